"""One sample's images as the network takes them, and a batch of such samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.spec.errors import require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageInputs:
    """One sample's images as the network takes them.

    images_CPD: float32. pooled_patches_idx_N4: int64, -1 where a slot is empty. image_masks_CP: float32, share of a patch
    that is image and not letterbox. image_grids: per image its (rows, columns) of tokens, low resolution first.
    """

    images_CPD: NDArray[np.float32]
    pooled_patches_idx_N4: NDArray[np.int64]
    image_masks_CP: NDArray[np.float32]
    image_grids: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def image_grids_G2(self) -> NDArray[np.int64]:
        """All grids of the sample in order, as the published processor returns them."""
        return np.array([grid for grids in self.image_grids for grid in grids], np.int64)

    def tensors(self) -> dict[str, Tensor]:
        """As keyword arguments of `MolmoAct.forward`, a batch of one."""
        return collate_images([self])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """One sample's images behind the vision tower: `VisionBackbone.patch_features` of its crops, and the other fields of `ImageInputs`.

    features_CPD: in the number format in which the tower was computed.
    """

    features_CPD: Tensor
    pooled_patches_idx_N4: NDArray[np.int64]
    image_masks_CP: NDArray[np.float32]
    image_grids: tuple[tuple[tuple[int, int], ...], ...]


def joined_windows(parts: Sequence[ImageInputs | ImageFeatures], *, published: bool = False) -> NDArray[np.int64]:
    """`pooled_patches_idx_N4` of several as of one: indices move up by the patches before them, empty slots stay empty. published: these
    move too, as the published processor has it."""
    before = np.cumsum([0, *(part.image_masks_CP.size for part in parts)])
    windows = [part.pooled_patches_idx_N4 for part in parts]
    return np.concatenate([np.where(published | (idx >= 0), idx + at, -1) for idx, at in zip(windows, before, strict=False)])


def collate_images(samples: Sequence[ImageInputs]) -> dict[str, Tensor]:
    """Stack samples as keyword arguments of `MolmoAct.forward`; short ones are padded with empty crops and -1 indices."""
    require(len(samples) > 0, "cannot collate zero samples")
    crops = max(len(s.images_CPD) for s in samples)
    tokens = max(len(s.pooled_patches_idx_N4) for s in samples)

    def padded(array: NDArray[Any], length: int, fill: int) -> NDArray[Any]:
        widths = [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths, constant_values=fill)

    return {
        "images_BCPD": torch.from_numpy(np.stack([padded(s.images_CPD, crops, -1) for s in samples])),
        "pooled_patches_idx_BN4": torch.from_numpy(np.stack([padded(s.pooled_patches_idx_N4, tokens, -1) for s in samples])),
        "image_masks_BCP": torch.from_numpy(np.stack([padded(s.image_masks_CP, crops, 0) for s in samples])),
    }
