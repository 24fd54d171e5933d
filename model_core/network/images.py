"""Frames -> normalised patches, pooling indices and grids: the published image processor, and its sound form.

Shape letters: H W pixels, C crops of a sample, P patches of a crop, D numbers of a patch (588), N pooled tokens,
G grids (per image: low resolution, then high resolution where there is one).

Two things differ between the default and `published=True`:

* Several views. The published code moves the patch indices of a later view up by the patches before it, its
  padding marker -1 included, which then points into a *valid* patch of the view before. Here -1 stays -1.
* Large frames. All robot training kept frames inside one base crop; the published code sends a larger one (480x640)
  into a tiled layout that no robot model was trained on. Here such a frame is first shrunk, aspect kept, to
  `robot_max_side` as the published fine-tuning script does (Lanczos, never enlarged).

The default also encodes a crop once when the high-resolution crop is the same image as the low-resolution one:
the indices of both point at it. Tokens, order and features stay; the tower's work is halved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.network.config import MolmoActConfig
from model_core.network.image_inputs import ImageInputs, joined_windows
from model_core.network.resizing import choose_tiling, letterbox, pooled_grid, shrunk_size, stretch
from model_core.network.settings_file import read_settings
from model_core.spec.documents import Number, from_document
from model_core.spec.errors import SpecError, require

CROP_MODES = ("resize", "overlap-and-resize-c2")
RESIZE_MODES = ("siglip", "default", "metaclip")
NORMALIZE_MODES = ("siglip", "openai")
_CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProcessor:
    """The published `preprocessor_config.json` as data; call it with the frames of one sample.

    published: reproduce the published processor exactly, its defects included (see the module).
    share_equal_crops: encode an identical low/high crop once. Off in published mode.
    shrinks_large: whether a frame that is larger than a crop is shrunk; False for images that are not a robot's.
    """

    crop_mode: str = "overlap-and-resize-c2"
    resize_mode: str = "siglip"
    normalize_mode: str = "siglip"
    max_crops: int = 8
    max_multi_image_crops: int = 4
    overlap_margins: tuple[int, int] = (4, 4)
    base_image_input_size: tuple[int, int] = (378, 378)
    pad_value: Number = 0.0
    image_patch_size: int = 14
    image_pooling_h: int = 2
    image_pooling_w: int = 2
    robot_max_side: int = 336
    published: bool = False
    share_equal_crops: bool = True
    shrinks_large: bool = True

    def __post_init__(self) -> None:
        require(self.crop_mode in CROP_MODES, f"crop_mode must be one of {CROP_MODES}", got=self.crop_mode)
        require(self.resize_mode in RESIZE_MODES, f"resize_mode must be one of {RESIZE_MODES}", got=self.resize_mode)
        require(self.normalize_mode in NORMALIZE_MODES, f"normalize_mode must be one of {NORMALIZE_MODES}", got=self.normalize_mode)
        height, width = self.base_image_input_size
        require(height % self.image_patch_size == 0 == width % self.image_patch_size, "the crop must be whole patches", got=(height, width))
        if self.crop_mode != "resize":
            require(height == width, "overlapping crops must be square", got=(height, width))
            require(self.window > 0, "overlap_margins leave no window of a crop", got=self.overlap_margins)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in one crop."""
        return self.base_image_input_size[0] // self.image_patch_size, self.base_image_input_size[1] // self.image_patch_size

    @property
    def window(self) -> int:
        """Pixels of a crop that are its own: what the overlap margins leave."""
        return (self.grid[0] - sum(self.overlap_margins)) * self.image_patch_size

    @classmethod
    def from_json(cls, source: Mapping[str, Any] | str | Path, **changes: Any) -> ImageProcessor:
        """Read `preprocessor_config.json` (parsed, its text, the file, or its folder); unknown keys are ignored."""
        data = read_settings(source, "preprocessor_config.json", "image processor config")
        # Nothing of the published file may switch our own fields.
        known = {entry.name for entry in fields(cls)} - {"published", "share_equal_crops", "shrinks_large"}
        values = {key: value for key, value in data.items() if key in known}
        if isinstance(size := values.get("base_image_input_size"), int):
            values["base_image_input_size"] = (size, size)
        return from_document(cls, {**values, **changes}, where="preprocessor_config.json")

    @classmethod
    def for_network(cls, config: MolmoActConfig, **changes: Any) -> ImageProcessor:
        """The processor that belongs to a network: CLIP towers letterbox and use CLIP's mean, SigLIP ones do not."""
        clip = config.vit.use_cls_token
        values: dict[str, Any] = {
            "base_image_input_size": config.vit.image_default_input_size,
            "image_patch_size": config.vit.image_patch_size,
            "resize_mode": "default" if clip else "siglip",
            "normalize_mode": "openai" if clip else "siglip",
        }
        return cls(**{**values, **changes})

    def to_json(self) -> dict[str, Any]:
        """The published keys of `preprocessor_config.json`."""
        skip = {"published", "share_equal_crops", "robot_max_side", "shrinks_large"}
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in skip}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def as_published(self) -> ImageProcessor:
        """The same settings with the published behaviour, defects included."""
        return replace(self, published=True, share_equal_crops=False)

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, several: bool | None = None) -> ImageInputs:
        """Prepare the views of one sample, each (H, W, 3) uint8 RGB. Raises SpecError for anything else.

        several: whether the limit of crops is that of a sample of several images; by default where there are several. The published
        quick start takes it for one image too.
        """
        require(len(images) > 0, "a sample needs at least one image")
        crops_allowed = self._crops_allowed(len(images), several)
        parts = [self._one(_checked(image), crops_allowed) for image in images]
        return ImageInputs(
            images_CPD=np.concatenate([part.images_CPD for part in parts]),
            pooled_patches_idx_N4=joined_windows(parts, published=self.published),
            image_masks_CP=np.concatenate([part.image_masks_CP for part in parts]),
            image_grids=tuple(grid for part in parts for grid in part.image_grids),
        )

    def grids_of(self, sizes_hw: Sequence[tuple[int, int]], *, several: bool | None = None) -> tuple[tuple[tuple[int, int], ...], ...]:
        """What `image_grids` of images of these (height, width) will be, without the images. several: see `__call__`."""
        require(len(sizes_hw) > 0, "a sample needs at least one image")
        require(all(min(size) > 0 for size in sizes_hw), "an image must have pixels", got=list(sizes_hw))
        pool, crops_allowed = (self.image_pooling_h, self.image_pooling_w), self._crops_allowed(len(sizes_hw), several)
        low = pooled_grid(*self.grid, pool)
        if self.crop_mode == "resize":
            return tuple((low,) for _ in sizes_hw)
        tilings = [self._tiling(*(size if self.published else self._trained_size(*size)), crops_allowed) for size in sizes_hw]
        patches = [[(tiles * self.window + self._margin) // self.image_patch_size for tiles in tiling] for tiling in tilings]
        return tuple((low, pooled_grid(rows, columns, pool)) for rows, columns in patches)

    def _crops_allowed(self, images: int, several: bool | None) -> int:
        return self.max_multi_image_crops if (images > 1 if several is None else several) else self.max_crops

    @property
    def _margin(self) -> int:
        return sum(self.overlap_margins) * self.image_patch_size

    def _one(self, image: NDArray[np.uint8], crops_allowed: int) -> ImageInputs:
        low, low_mask = self._resized(image, self.base_image_input_size)
        low_idx = np.arange(self.grid[0] * self.grid[1]).reshape(self.grid)
        low_windows = self._windows(low_idx)
        if self.crop_mode == "resize":
            return self._inputs(low[None], low_mask[None], [low_windows])
        if not self.published:
            image = self._within_training(image)
        tiling = self._tiling(image.shape[0], image.shape[1], crops_allowed)
        if self.share_equal_crops and not self.published and tiling == (1, 1):
            # One tile has the base crop's size, so both resolutions are the same image: both grids read crop 0.
            low, low_mask = self._resized(image, self.base_image_input_size)
            return self._inputs(low[None], low_mask[None], [low_windows, low_windows])
        if not self.published:
            low, low_mask = self._resized(image, self.base_image_input_size)
        high, high_mask, high_idx = self._tiles(image, tiling)
        high_windows = self._windows(np.where(high_idx >= 0, high_idx + low_idx.size, -1))
        return self._inputs(np.concatenate([low[None], high]), np.concatenate([low_mask[None], high_mask]), [low_windows, high_windows])

    def _inputs(self, crops_CHW3: NDArray[np.float32], masks_CHW: NDArray[np.bool_], windows: list[NDArray[np.int64]]) -> ImageInputs:
        (rows, cols), size = self.grid, self.image_patch_size
        patches = crops_CHW3.reshape(-1, rows, size, cols, size, 3).transpose(0, 1, 3, 2, 4, 5)
        masks = masks_CHW.reshape(-1, rows, size, cols, size).transpose(0, 1, 3, 2, 4)
        return ImageInputs(
            images_CPD=np.ascontiguousarray(patches).reshape(len(crops_CHW3), rows * cols, -1),
            pooled_patches_idx_N4=np.concatenate([window.reshape(-1, window.shape[-1]) for window in windows]).astype(np.int64),
            image_masks_CP=masks.reshape(len(masks_CHW), rows * cols, -1).mean(-1).astype(np.float32),
            image_grids=(tuple((window.shape[0], window.shape[1]) for window in windows),),
        )

    def _within_training(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shrink a frame that would leave the one-crop layout, as the published fine-tuning script does."""
        height, width = self._trained_size(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))

    def _trained_size(self, height: int, width: int) -> tuple[int, int]:
        if not self.shrinks_large:
            return height, width
        return shrunk_size(height, width, limit=min(self.base_image_input_size), longest=self.robot_max_side)

    def _tiling(self, height: int, width: int, crops_allowed: int) -> tuple[int, int]:
        return choose_tiling(height, width, crops_allowed=crops_allowed, window=self.window, margin=self._margin)

    def _tiles(self, image: NDArray[np.uint8], tiling: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]:
        """Crops at stride `window`; the indices keep one owner per source patch, in raster order over the frame."""
        left, right = self.overlap_margins
        source, mask = self._resized(image, (tiling[0] * self.window + self._margin, tiling[1] * self.window + self._margin))
        (rows, cols), size = self.grid, self.base_image_input_size[0]
        crops, masks = [], []
        owners = np.zeros((tiling[0], tiling[1], rows, cols), np.int64)
        for i, j in np.ndindex(*tiling):
            y, x = i * self.window, j * self.window
            crops.append(source[y : y + size, x : x + size])
            masks.append(mask[y : y + size, x : x + size])
            index = np.arange(rows * cols).reshape(rows, cols) + (len(crops) - 1) * rows * cols
            index[: left if i else 0] = -1
            index[:, : left if j else 0] = -1
            index[rows - (right if i < tiling[0] - 1 else 0) :] = -1
            index[:, cols - (right if j < tiling[1] - 1 else 0) :] = -1
            owners[i, j] = index
        raster = owners.transpose(0, 2, 1, 3).reshape(-1)
        patch = self.image_patch_size
        return np.stack(crops), np.stack(masks), raster[raster >= 0].reshape(source.shape[0] // patch, source.shape[1] // patch)

    def _windows(self, idx_HW: NDArray[np.int64]) -> NDArray[np.int64]:
        """[h, w, slots] pooling windows; an odd grid is padded with -1, floor before and ceil behind."""
        pool_h, pool_w = self.image_pooling_h, self.image_pooling_w
        pad_h, pad_w = -idx_HW.shape[0] % pool_h, -idx_HW.shape[1] % pool_w
        idx = np.pad(idx_HW, [(pad_h // 2, (pad_h + 1) // 2), (pad_w // 2, (pad_w + 1) // 2)], constant_values=-1)
        idx = idx.reshape(idx.shape[0] // pool_h, pool_h, idx.shape[1] // pool_w, pool_w).transpose(0, 2, 1, 3)
        return idx.reshape(idx.shape[0], idx.shape[1], pool_h * pool_w)

    def _resized(self, image: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The whole frame at `size`, 0..1 and then normalised, with a mask of what is image."""
        if self.resize_mode == "default":
            pixels, mask = letterbox(image, size, self.pad_value)
        else:
            pixels, mask = stretch(image, size, bicubic=self.resize_mode == "metaclip"), np.ones(size, np.bool_)
        if self.normalize_mode == "openai":
            return (pixels - _CLIP_MEAN) / _CLIP_STD, mask
        return pixels * np.float32(2.0) - np.float32(1.0), mask


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise SpecError(f"an image must be (H, W, 3) uint8 RGB, got {array.shape} {array.dtype}")
    return array
