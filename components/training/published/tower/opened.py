"""The frozen tower of a training as its recipe asks for it: its number format, where its features are kept, if the disk has room."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig, start_folder
from components.training.plan import choose_precision, cpu_flags
from components.training.published.tower.feature_store import FeatureStore
from components.training.published.tower.frozen_tower import FrozenTower
from components.training.rank_process import has_gpu
from model_core.network.images import ImageProcessor
from model_core.spec.documents import to_document

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def open_tower(model: MolmoAct, processor: ImageProcessor, config: TrainConfig) -> FrozenTower:
    """The tower of this network, wherever it lies now; with `train.published.feature_cache` its features are kept there."""
    bf16 = _is_bf16(config)
    store = _store(model, processor, config) if config.published.feature_cache else None
    return FrozenTower(model.model.vision_backbone, processor, bf16=bf16, store=store)


def require_room(model: MolmoAct, processor: ImageProcessor, config: TrainConfig, *, images: int, views_VHW3: NDArray[np.uint8]) -> None:
    """Raise `JobError` unless the features of so many images fit on the disk. views_VHW3: of one sample."""
    crops = max(len(processor([view], several=len(views_VHW3) > 1).images_CPD) for view in views_VHW3)
    numbers = crops * math.prod(model.config.vit.grid) * model.config.feature_width
    _store(model, processor, config).require_room(images, numbers * (2 if _is_bf16(config) else 4))


def tower_digest(model: MolmoAct, processor: ImageProcessor, *, bf16: bool) -> str:
    """Names everything but the view that its features depend on: weights, shape, processor, number format, and what computes them."""
    import torch

    tower, config = model.model.vision_backbone.image_vit, model.config
    computed_by = [torch.__version__, tower.positional_embedding.device.type, "bf16" if bf16 else "fp32"]
    shape = [to_document(config.vit), list(config.feature_layers), processor.to_json(), processor.robot_max_side]
    found = hashlib.sha256(json.dumps([computed_by, shape], sort_keys=True).encode())
    for name, value in tower.state_dict().items():
        found.update(name.encode() + value.detach().to("cpu").contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _store(model: MolmoAct, processor: ImageProcessor, config: TrainConfig) -> FeatureStore:
    folder = start_folder(config.published.feature_cache)
    return FeatureStore(folder, tower_digest(model, processor, bf16=_is_bf16(config)))


def _is_bf16(config: TrainConfig) -> bool:
    return choose_precision(config.precision, cpu_flags(), has_gpu=has_gpu()).name == "bf16"
