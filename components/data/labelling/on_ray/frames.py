"""The answers of image annotators about a data set, by a Ray cluster: what is kept of each episode is what one machine would keep."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.config.records import Progress
from components.data.annotators.cache import AnswerCache
from components.data.annotators.interface import Frames, ImageAnnotator
from components.data.annotators.open import Annotators
from components.data.labelling.answered_frames import AnsweredFrames
from components.data.labelling.engine import ShardAnswer, accounted
from components.data.labelling.labeller import job_of
from components.data.labelling.on_ray.engine import RayEngine
from components.data.labelling.on_ray.frame_reader import DIGEST, reader_job, references
from components.data.labelling.views import View, Views
from model_core.spec.contract import digest_of
from model_core.spec.files import atomic_write

log = logging.getLogger(__name__)
Chosen = Sequence[tuple[int, str, int]]  # of each episode: index, id, frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFrames:
    """What is labelled. dataset: its folder, which every machine sees under this path; views: its cameras. camera: "" for the first.

    cache: where answers are kept, on storage that every machine sees. costs: what was labelled took, a line each, added as work is done.
    """

    dataset: Path
    views: Views
    cache: AnswerCache
    camera: str = ""
    costs: list[str] = field(default_factory=list[str])

    def view_of(self, index: int) -> View:
        """The camera of an episode."""
        return self.views.named(index, self.camera) if self.camera else self.views.first(index)


def label_on_ray(
    cfg: AnnotateConfig, annotators: Annotators, whose: ClusterFrames, episodes: Chosen, progress: Progress
) -> dict[int, AnsweredFrames]:
    """As `label_images`: index -> the frames, without images, whose answers are kept. Raises `JobError` where the cluster lost rows."""
    both = (("depth", annotators.depth), ("points", annotators.points))
    needing = [(kind, one) for kind, one in both if one is not None and one.needs_images]
    asked = [(kind, one) for kind, one in needing if isinstance(one, ImageAnnotator)]
    outcomes = {one.version: _answered(cfg, kind, one.version, whose, episodes, progress) for kind, one in asked}
    found: dict[int, AnsweredFrames] = {}
    for index, episode_id, count in episodes:
        size = whose.view_of(index).size
        found[index] = AnsweredFrames(
            frames=Frames(images_THW3=np.zeros((0, *size, 3), np.uint8), size=size, count=count, episode_id=episode_id),
            cache=whose.cache,
            known_digest=next((one.digests[index] for one in outcomes.values() if index in one.digests), ""),
            is_whole=len(asked) == len(needing),
            errors={version: one.errors[index] for version, one in outcomes.items() if index in one.errors},
        )
    return found


@dataclass(slots=True)
class _Outcome:
    """digests: episode -> digest of its frames. errors: episode -> frame -> reason. open_ones: episodes that are not whole yet."""

    digests: dict[int, str] = field(default_factory=dict[int, str])
    errors: dict[int, dict[int, str]] = field(default_factory=dict[int, dict[int, str]])
    open_ones: dict[int, dict[int, Mapping[str, NDArray[Any]]]] = field(default_factory=dict[int, dict[int, Mapping[str, NDArray[Any]]]])


def _answered(cfg: AnnotateConfig, kind: str, version: str, whose: ClusterFrames, episodes: Chosen, progress: Progress) -> _Outcome:
    """One annotator's answers. Episodes that are known from an earlier call are not asked again, those with an error are."""
    folder = whose.cache.folder / "on_ray" / digest_of([kind, version, whose.views.source.digest, whose.camera])[:16]
    known = _read_known(folder / "known.json")
    here = {index: digest for index, digest in known.items() if whose.cache.holds(version, digest)}
    outcome = _Outcome(digests={index: here[index] for index, _, _ in episodes if index in here})
    waiting = {index: (index, episode_id, count) for index, episode_id, count in episodes if index not in here}
    if not waiting:
        return outcome
    height, width = whose.view_of(next(iter(waiting))).size
    engine = RayEngine(
        job=job_of(kind, cfg),
        ray=cfg.ray,
        folder=folder / digest_of(list(waiting.values()))[:16],
        batch=cfg.batch_size,
        decoder=reader_job(whose.dataset, whose.camera),
        carried=(DIGEST,),
        row_bytes=height * width * 3,
        progress=progress,
    )
    counts = {index: count for index, _, count in waiting.values()}
    for answer in accounted(engine, references(waiting.values())):
        _take(answer, outcome, counts, (version, whose.cache))
    if engine.done is not None:
        whose.costs.append(f"{kind}: {engine.done.cost(cfg.ray)}")
        log.info("annotate.ray %s", whose.costs[-1])
        progress.update(len(episodes), len(episodes), whose.costs[-1])
    _write_known(folder / "known.json", here | outcome.digests, outcome.errors)
    shutil.rmtree(engine.folder, ignore_errors=True)  # all of it is in the cache now, but the reasons, which are asked again
    return outcome


def _take(answer: ShardAnswer, outcome: _Outcome, counts: Mapping[int, int], where: tuple[str, AnswerCache]) -> None:
    version, cache = where
    for place, row_id in enumerate(answer.row_ids):
        columns = {name: column[place] for name, column in answer.columns.items()}
        index, frame = map(int, row_id.split(":"))
        outcome.digests.setdefault(index, columns.pop(DIGEST).tobytes().hex())
        outcome.open_ones.setdefault(index, {})[frame] = columns
    for row_id, reason in answer.errors.items():
        index, frame = map(int, row_id.split(":"))
        outcome.errors.setdefault(index, {})[frame] = reason
    for index in {int(row_id.partition(":")[0]) for row_id in answer.row_ids}:
        if len(outcome.open_ones[index]) == counts[index]:
            frames = outcome.open_ones.pop(index)
            columns = {name: np.stack([frames[frame][name] for frame in range(counts[index])]) for name in frames[0]}
            cache.keep(version, outcome.digests[index], columns)


def _read_known(path: Path) -> dict[int, str]:
    return {int(index): str(digest) for index, digest in json.loads(path.read_text(encoding="utf-8")).items()} if path.is_file() else {}


def _write_known(path: Path, digests: Mapping[int, str], errors: Mapping[int, Any]) -> None:
    good = {str(index): digest for index, digest in sorted(digests.items()) if index not in errors}
    atomic_write(path, json.dumps(good, indent=1) + "\n")
