"""The image augmentation of the published post-training: a random crop of nine tenths of the area, then colours. Each view by itself.

The same operations, in the same ranges and random order, as torchvision's `RandomResizedCrop(scale=(0.9, 0.9), ratio=(1, 1))` and
`ColorJitter(0.2, (0.8, 1.2), (0.8, 1.2), 0.05)` on an image, with numpy's random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

AREA = 0.9
FACTORS = (0.8, 1.2)  # of brightness, contrast and saturation
HUE = 0.05  # of the whole circle, to both sides

Image = NDArray[np.uint8]


def augmented(image_HW3: Image, generator: np.random.Generator) -> Image:
    """Crop, then brightness, contrast, saturation and hue in random order."""
    image = random_crop(image_HW3, generator)
    steps: list[Callable[[Image, np.random.Generator], Image]] = [random_brightness, random_contrast, random_saturation, random_hue]
    for place in generator.permutation(len(steps)):
        image = steps[place](image, generator)
    return image


def random_crop(image_HW3: Image, generator: np.random.Generator) -> Image:
    """A square of 0.9 of the area, resized to the image's own size; of a frame that is too narrow for it the square in its middle."""
    from PIL import Image as Pictures

    height, width = image_HW3.shape[:2]
    side = round(math.sqrt(AREA * height * width))
    if side <= min(height, width):
        top, left = (int(generator.integers(0, room - side + 1)) for room in (height, width))
    else:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
    cut = Pictures.fromarray(image_HW3).crop((left, top, left + side, top + side))
    return np.asarray(cut.resize((width, height), Pictures.Resampling.BILINEAR))


def random_brightness(image_HW3: Image, generator: np.random.Generator) -> Image:
    """Towards black, or away from it."""
    return _blended(image_HW3, np.zeros(1), generator.uniform(*FACTORS))


def random_contrast(image_HW3: Image, generator: np.random.Generator) -> Image:
    """Towards the mean grey of the image, or away from it."""
    return _blended(image_HW3, np.floor(_grey(image_HW3).mean(keepdims=True) + 0.5)[..., None], generator.uniform(*FACTORS))


def random_saturation(image_HW3: Image, generator: np.random.Generator) -> Image:
    """Towards the grey of each pixel, or away from it."""
    return _blended(image_HW3, _grey(image_HW3)[..., None], generator.uniform(*FACTORS))


def random_hue(image_HW3: Image, generator: np.random.Generator) -> Image:
    """Around the circle of colours."""
    from PIL import Image as Pictures

    hue, saturation, value = Pictures.fromarray(image_HW3).convert("HSV").split()
    turned = np.asarray(hue).astype(np.int64) + round(generator.uniform(-HUE, HUE) * 255)
    parts = (Pictures.fromarray((turned % 256).astype(np.uint8)), saturation, value)
    return np.asarray(Pictures.merge("HSV", parts).convert("RGB"))


def _blended(image_HW3: Image, towards: NDArray[np.floating], factor: float) -> Image:
    return np.clip(image_HW3 * factor + towards * (1.0 - factor), 0, 255).astype(np.uint8)


def _grey(image_HW3: Image) -> NDArray[np.float64]:
    return np.floor(image_HW3.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) + 0.5)
