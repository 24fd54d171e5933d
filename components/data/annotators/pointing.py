"""The pointing annotator of a recipe: `annotate.point_model` names its weights, and their layout decides which code asks them."""

from __future__ import annotations

from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import PointAnnotator
from components.data.annotators.molmoact_pointing import OwnPointing, is_own_checkpoint
from components.data.annotators.transformers_pointing import GripperPointer


def open_points(cfg: AnnotateConfig) -> PointAnnotator:
    """A checkpoint of our network's layout, or any pointing architecture that transformers has built in."""
    if is_own_checkpoint(cfg.point_model):
        return OwnPointing.load(cfg.point_model, batch_size=cfg.batch_size)
    return GripperPointer.load(cfg.point_model, batch_size=cfg.batch_size)
