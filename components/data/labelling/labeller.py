"""An annotator as a labeller: it is opened from a recipe's settings wherever an engine wants it, and answers shards of images.

A batch that fails is asked image by image, so that one image costs one row: whatever went wrong with it is the reason of that row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.artifacts.locks import one_of
from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import DepthAnnotator, ImageAnnotator, ImageAnswers, PointAnnotator
from components.data.annotators.open import open_annotator
from components.data.labelling.engine import LabelJob, Shard, ShardAnswer, joined
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError

log = logging.getLogger(__name__)
Turn = Callable[[], AbstractContextManager[None]]
IMAGES = "images"  # the column of a shard
MAKER = f"{__name__}:open_labeller"


def job_of(kind: str, cfg: AnnotateConfig) -> LabelJob:
    """The job of the recipe's annotator of this kind ("depth" or "points")."""
    return LabelJob(maker=MAKER, settings={"kind": kind, "annotate": to_document(cfg)})


def open_labeller(settings: Mapping[str, Any]) -> ImageLabeller:
    """The labeller of `job_of`. Raises `SpecError` for an annotator that does not answer single images."""
    cfg = from_document(AnnotateConfig, settings["annotate"])
    annotator = open_annotator(str(settings["kind"]), cfg)
    if not isinstance(annotator, ImageAnnotator):
        raise SpecError(
            f"{type(annotator).__name__} does not answer single images. Fix: give it `answer_images`, or set annotate.workers=1"
        )
    return ImageLabeller(annotator=annotator, turn=turns_of(cfg))


def turns_of(cfg: AnnotateConfig) -> Turn:
    """What a batch is asked within: one of `calls_at_once` places that all jobs share which name the same folder, or nothing."""
    if not cfg.calls_at_once:
        return nullcontext
    return partial(one_of, Path(cfg.calls_folder), cfg.calls_at_once)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLabeller:
    """Shards with a column of images (N, H, W, 3), answered by one annotator. turn: what a batch is asked within."""

    annotator: Any
    turn: Turn = nullcontext

    def description(self) -> Mapping[str, Any]:
        """Version, and what its depth means."""
        annotator: DepthAnnotator | PointAnnotator = self.annotator
        scaling = getattr(annotator, "scaling", None)
        return {"version": annotator.version, "scaling": None if scaling is None else to_document(scaling)}

    def label(self, shard: Shard) -> ShardAnswer:
        """An answer or a reason per image."""
        try:
            with self.turn():
                answers = self.annotator.answer_images(shard.columns[IMAGES])
            return _answer_of(shard, answers)
        except Exception as error:  # of the model or its library: it becomes the reason of the rows that cause it
            if len(shard.row_ids) == 1:
                log.warning("row %s cannot be labelled: %s", shard.row_ids[0], error, exc_info=True)
                return ShardAnswer(row_ids=(), columns={}, errors={shard.row_ids[0]: f"{type(error).__name__}: {error}"})
        return joined(self.label(shard.row(place)) for place in range(len(shard.row_ids)))


def _answer_of(shard: Shard, answers: ImageAnswers) -> ShardAnswer:
    kept = [place for place in range(len(shard.row_ids)) if place not in answers.errors]
    return ShardAnswer(
        row_ids=tuple(shard.row_ids[place] for place in kept),
        columns={name: column[kept] for name, column in answers.columns.items()} if kept else {},
        errors={shard.row_ids[place]: reason for place, reason in answers.errors.items()},
    )
