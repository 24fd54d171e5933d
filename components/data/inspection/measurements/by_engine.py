"""Episodes of a folder, measured by an engine that may run on other machines, into a store where an inspection of the folder finds them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.config.launch.ray_config import RayConfig
from components.config.records import Progress
from components.data.inspection.folder.content import FolderView
from components.data.inspection.folder.view import open_folder
from components.data.inspection.measurements.dataset import Pictures
from components.data.inspection.measurements.raw_episode import of_folder
from components.data.inspection.measurements.store import MeasurementStore
from components.data.labelling.engine import LabelJob, LabellingEngine, Shard, ShardAnswer, accounted
from components.data.labelling.on_ray.engine import RayEngine
from model_core.spec.contract import EmbodimentSpec, digest_of
from model_core.spec.documents import from_document, to_document

MAKER = f"{__name__}:open_measurer"
NUMBER = "number"


def measurer_job(folder: Path, store: Path, embodiment: EmbodimentSpec | None) -> LabelJob:
    """What measures episodes of `folder` into `store`; both are seen by every machine under the same path."""
    described = None if embodiment is None else to_document(embodiment)
    return LabelJob(maker=MAKER, settings={"folder": str(folder.resolve()), "store": str(store.resolve()), "embodiment": described})


def open_measurer(settings: Mapping[str, Any]) -> EpisodeMeasurer:
    """The measurer of `measurer_job`. Raises `DatasetError` where this machine does not see the folder."""
    described = settings["embodiment"]
    embodiment = None if described is None else from_document(EmbodimentSpec, described)
    return EpisodeMeasurer(
        view=open_folder(Path(settings["folder"]), embodiment=embodiment), store=MeasurementStore(Path(settings["store"]))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeasurer:
    """Answers numbers of episodes: measured and kept, or the reason why not."""

    view: FolderView
    store: MeasurementStore

    def description(self) -> Mapping[str, Any]:
        """Whose episodes."""
        return {"folder": self.view.root.name}

    def label(self, shard: Shard) -> ShardAnswer:
        """Measure every episode of `shard`."""
        entries = {entry.number: entry for entry in self.view.entries}
        good: list[int] = []
        errors: dict[str, str] = {}
        pictures = Pictures(self.view)
        for row_id, number in zip(shard.row_ids, map(int, shard.columns[NUMBER]), strict=True):
            try:
                entry = entries[number]
                self.store.measured(of_folder(self.view, entry), partial(pictures.digests, entry), partial(pictures.of, entry))
            except Exception as error:  # of one episode; the inspection meets it again, and says what it is
                errors[row_id] = f"{type(error).__name__}: {error}"
            else:
                good.append(number)
        pictures.close()
        rows = tuple(str(number) for number in good)
        return ShardAnswer(row_ids=rows, columns={NUMBER: np.array(good, np.int64)} if good else {}, errors=errors)


def measure_by(engine: LabellingEngine, folder: Path, *, batch: int) -> dict[str, str]:
    """Measure all episodes of `folder` that have rows, `batch` of them a shard; episode number -> why it could not be measured there.

    Raises `DatasetError` where there is no data set, and what the engine raises.
    """
    view = open_folder(folder, films=False, digests=False)
    numbers = np.array([entry.number for entry in view.entries if len(view.rows_of.get(entry.number, ()))], np.int64)

    def shards() -> Iterator[Shard]:
        for first in range(0, len(numbers), batch):
            part = numbers[first : first + batch]
            yield Shard(row_ids=tuple(str(number) for number in part), columns={NUMBER: part})

    return {row_id: reason for answer in accounted(engine, shards()) for row_id, reason in answer.errors.items()}


def measure_on_ray(
    folder: Path, store: Path, embodiment: EmbodimentSpec | None, ray: RayConfig, progress: Progress
) -> tuple[str, dict[str, str]]:
    """Measure on a Ray cluster: what 1,000 episodes took there, and what could not be measured. After a kill the same call goes on."""
    job = measurer_job(folder, store, embodiment)
    place = store / "on_ray" / digest_of(to_document(job))[:16]
    engine = RayEngine(job=job, ray=ray, folder=place, batch=1, progress=progress)
    errors = measure_by(engine, folder, batch=ray.block_rows)
    cost = "" if engine.done is None else engine.done.cost(ray, "episodes")
    shutil.rmtree(place, ignore_errors=True)
    return cost, errors
