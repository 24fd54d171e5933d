"""The labelling engine of one process: this one. A model is opened once, on the first shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from components.data.labelling.engine import LabelJob, Labeller, Shard, ShardAnswer


class InProcessEngine:
    """Labels here, one shard at a time. labeller: one that is open already, in place of opening the job's."""

    def __init__(self, job: LabelJob | None = None, labeller: Labeller | None = None) -> None:
        self._job, self._labeller = job, labeller

    def _open(self) -> Labeller:
        if self._labeller is None:
            if self._job is None:
                raise ValueError("an engine needs a job or a labeller")
            self._labeller = self._job.open()
        return self._labeller

    def description(self) -> Mapping[str, Any]:
        """The labeller's."""
        return self._open().description()

    def label(self, shards: Iterable[Shard]) -> Iterator[ShardAnswer]:
        """One answer a shard, in order."""
        for shard in shards:
            yield self._open().label(shard)

    def close(self) -> None:
        """Let the model go, where this engine opened it."""
        if self._job is not None:
            self._labeller = None
