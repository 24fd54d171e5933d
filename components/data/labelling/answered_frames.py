"""The frames of an episode together with what the annotators answered about them, so that no image is decoded or asked about twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.data.annotators.cache import AnswerCache
from components.data.annotators.interface import DepthAnnotator, Frames, GripperTrack, ImageAnnotator, PointAnnotator
from components.data.annotators.open import Annotators
from components.data.labelling.batching import Batching, EpisodeImages
from components.data.labelling.engine import LabellingEngine
from components.data.labelling.in_process import InProcessEngine
from components.data.labelling.labeller import ImageLabeller, job_of, turns_of
from components.data.labelling.process_pool import ProcessPoolEngine
from components.data.packing.kept_images import KeptImages
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What outlives one annotation. answers: folder of the answers of networks. images: those that another stage decoded."""

    answers: Path
    images: KeptImages


@dataclass(frozen=True, kw_only=True, eq=False)
class AnsweredFrames:
    """Frames whose answers lie in `cache`.

    known_digest: of the whole frames, once it was computed; `frames` may then be without images. is_whole: every annotator that needs
    images has answered or failed. errors: version of an annotator -> frame -> why it has no answer.
    """

    frames: Frames
    cache: AnswerCache
    known_digest: str = ""
    is_whole: bool = False
    errors: Mapping[str, Mapping[int, str]] = field(default_factory=dict[str, Mapping[int, str]])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole frames."""
        return self.known_digest or self.frames.digest()

    def depth(self, annotator: DepthAnnotator) -> NDArray[np.number]:
        """The annotator's depth maps. Raises `DatasetError` where it has no answer."""
        if not annotator.needs_images:
            return annotator.annotate(self.frames)
        self._check(annotator.version)
        kept = self.cache.fetch(annotator.version, self.digest, lambda: {"depth": annotator.annotate(self.frames)})
        return np.asarray(kept["depth"])  # pyright: ignore[reportReturnType]

    def track(self, annotator: PointAnnotator) -> GripperTrack:
        """The annotator's gripper track. Raises `DatasetError` where it has no answer."""
        if not annotator.needs_images:
            return annotator.annotate(self.frames)
        self._check(annotator.version)
        kept = self.cache.fetch(annotator.version, self.digest, lambda: _arrays_of(annotator.annotate(self.frames)))
        names = {"points": "points_T2", "visible": "visible_T", "confidence": "confidence_T"}
        return GripperTrack(**{names.get(name, name): np.asarray(array) for name, array in kept.items()})  # pyright: ignore[reportArgumentType]

    def _check(self, version: str) -> None:
        for frame, reason in self.errors.get(version, {}).items():
            raise DatasetError(f"frame {frame}: {reason}")


def label_images(
    cfg: AnnotateConfig,
    annotators: Annotators,
    cache: AnswerCache,
    episodes: Callable[[], Iterable[tuple[int, AnsweredFrames]]],
) -> dict[int, AnsweredFrames]:
    """Ask every annotator that looks at single images about all `episodes` (index, frames); index -> the frames without images.

    Empty where there is no such annotator. Raises what its engine raises.
    """
    both = (("depth", annotators.depth), ("points", annotators.points))
    needing = {kind: one for kind, one in both if one is not None and one.needs_images}
    asked = {kind: one for kind, one in needing.items() if isinstance(one, ImageAnnotator)}
    found: dict[int, AnsweredFrames] = {}

    def remembered() -> Iterator[EpisodeImages]:
        for index, answered in episodes():
            if index not in found:
                images = answered.frames.images_THW3
                light = replace(answered.frames, images_THW3=images[:0], depth_m_THW=None)
                found[index] = replace(answered, frames=light, known_digest=answered.digest, is_whole=len(asked) == len(needing))
            yield EpisodeImages(digest=found[index].known_digest, images_THW3=answered.frames.images_THW3)

    errors: dict[str, dict[str, dict[int, str]]] = {}
    for kind, annotator in asked.items():
        engine: LabellingEngine = InProcessEngine(labeller=ImageLabeller(annotator=annotator, turn=turns_of(cfg)))
        if cfg.workers > 1:
            engine = ProcessPoolEngine(job_of(kind, cfg), cfg.workers)
        batching = Batching(engine=engine, cache=cache, version=annotator.version, batch=cfg.batch_size)
        try:
            batching.run(remembered())
        finally:
            engine.close()
        for digest, mine in batching.errors.items():
            errors.setdefault(digest, {})[annotator.version] = mine
    return {index: replace(one, errors=errors.get(one.known_digest, {})) for index, one in found.items()}


def _arrays_of(track: GripperTrack) -> dict[str, NDArray[np.generic]]:
    return {"points_T2": track.points_T2, "visible_T": track.visible_T, "confidence_T": track.confidence_T}
