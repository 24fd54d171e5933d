"""Open the annotators that a recipe names."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from components.config.annotators import DEPTH_ANNOTATORS, POINT_ANNOTATORS, annotator_source
from components.config.data_config import NO_LABELS, AnnotateConfig
from components.data.annotators.interface import DepthAnnotator, PointAnnotator
from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotators:
    """The annotator of each kind. depth: None where only traces are made."""

    depth: DepthAnnotator | None
    points: PointAnnotator

    @property
    def needs_images(self) -> bool:
        """Whether images must be read at all."""
        return self.points.needs_images or (self.depth is not None and self.depth.needs_images)

    def versions(self) -> dict[str, str]:
        """Kind -> version."""
        return {"depth": NO_LABELS if self.depth is None else self.depth.version, "points": self.points.version}


def open_annotators(cfg: AnnotateConfig) -> Annotators:
    """Load the annotators. Raises `SpecError` for a name or a function that does not exist."""
    return Annotators(depth=open_annotator("depth", cfg) if cfg.has_depth else None, points=open_annotator("points", cfg))


def open_annotator(kind: str, cfg: AnnotateConfig) -> Any:
    """Load the recipe's annotator of one kind, "depth" or "points"."""
    if kind == "depth":
        return _open(cfg, annotator_source("annotate.depth_annotator", cfg.depth_annotator, DEPTH_ANNOTATORS))
    return _open(cfg, annotator_source("annotate.point_annotator", cfg.point_annotator, POINT_ANNOTATORS))


def _open(cfg: AnnotateConfig, source: str) -> Any:
    module_name, _, function_name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"no annotator {source!r} ({error}); expected 'package.module:function' that can be imported here") from error
    return function(cfg)
