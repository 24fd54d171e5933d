"""Views through a vision tower that is not trained: features instead of crops, read from a store where they are known.

Each view is computed by itself, without gradients, in the number format of the training. So its features depend on the view, the weights
and the format alone, and it makes no difference which views were seen with it, by which process, or whether they were read from disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.training.published.tower.feature_store import FeatureStore
from model_core.network.image_inputs import ImageFeatures, ImageInputs, joined_windows
from model_core.network.images import ImageProcessor
from model_core.spec.errors import require

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.vision import VisionBackbone

View = NDArray[np.uint8]


class FrozenTower:
    """Call it with the views of one sample. store: where features are kept; None: every view is computed each time.

    bf16: the tower is computed in bfloat16, as a training in that precision computes all layers.
    """

    def __init__(self, backbone: VisionBackbone, processor: ImageProcessor, *, bf16: bool, store: FeatureStore | None = None) -> None:
        require(not processor.published, "a tower's views are looked up one by one, which needs a processor in its sound form")
        self._backbone, self._processor, self._bf16, self._store = backbone, processor, bf16, store
        self._places = lru_cache(maxsize=64)(self._places_of)

    def __call__(self, views: Sequence[View]) -> ImageFeatures:
        """What the processor gives for these views, (H, W, 3) uint8, with the features of each crop in place of its pixels."""
        import torch

        several = len(views) > 1
        found = [self._features(np.ascontiguousarray(view), several) for view in views]
        places = [self._places(view.shape[0], view.shape[1], several) for view in views]
        return ImageFeatures(
            features_CPD=torch.cat(found),
            pooled_patches_idx_N4=joined_windows(places),
            image_masks_CP=np.concatenate([one.image_masks_CP for one in places]),
            image_grids=tuple(grid for one in places for grid in one.image_grids),
        )

    def _features(self, view_HW3: View, several: bool) -> Tensor:
        if self._store is None:
            return self._computed(view_HW3, several)
        key = hashlib.sha256(f"{view_HW3.shape} {several} ".encode() + view_HW3.data).hexdigest()
        features_CPD = self._store.read(key)
        if features_CPD is None:
            features_CPD = self._computed(view_HW3, several)
            self._store.write(key, features_CPD)
        return features_CPD

    def _computed(self, view_HW3: View, several: bool) -> Tensor:
        import torch

        crops = torch.from_numpy(self._processor([view_HW3], several=several).images_CPD)
        device = self._backbone.image_vit.positional_embedding.device
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            return self._backbone.patch_features(crops.to(device)).to("cpu")

    def _places_of(self, height: int, width: int, several: bool) -> ImageInputs:
        """Patch indices, masks and grids of a view of this size, which do not depend on its pixels."""
        inputs = self._processor([np.zeros((height, width, 3), np.uint8)], several=several)
        return replace(inputs, images_CPD=inputs.images_CPD[:0])
