"""What is read, and the interface of those who read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

RUN_TAG = "actwright.run_id"  # our id of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run. server_id: MLflow's id. metrics: the last value of each curve. ended_ms: None while it is running; times since 1970."""

    server_id: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def run_id(self) -> str:
        """Our id; MLflow's where another program recorded the run."""
        return self.tags.get(RUN_TAG, self.server_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One recorded value over the steps, ascending, each step once with what was recorded last. values: None where it was no number."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One registered version of a model; tags hold its lineage."""

    name: str
    version: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One registered model: its tags, and which version each alias names."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)


class TrackingReader(Protocol):
    """Reads one experiment and the registry. Every method raises `TrackingError` with the place and what to do."""

    def runs(self, *, tags: Mapping[str, str], limit: int) -> list[RunRow]:
        """The newest `limit` runs that carry all of `tags`, newest first."""
        ...

    def run(self, digits: str) -> list[RunRow]:
        """The runs whose id (ours or MLflow's) begins with `digits`."""
        ...

    def curves(self, run: RunRow, names: Sequence[str], *, most: int) -> list[Curve]:
        """These curves of a run, in this order, without those that it has not; of each at most about `most` points, the last among them."""
        ...

    def model(self, name: str) -> ModelRow | None:
        """The registered model, or None."""
        ...

    def versions(self, name: str = "") -> Sequence[VersionRow]:
        """Every version of the model `name`, of all models without one; by name, oldest first."""
        ...
