"""What a policy was trained on, in a small file of its bundle: a policy service measures novelty by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.frozen_dataset import spread_frames
from model_core.bundle import NOVELTY
from model_core.spec.contract import PolicyContract
from model_core.spec.execution.novelty import NoveltyReference, reference_of, thumbnail
from model_core.spec.files import atomic_write

_MOST_FRAMES = 4096  # of each split that are looked at


def write_reference(frozen: Path | None, contract: PolicyContract, bundle: Path) -> NoveltyReference | None:
    """Write the reference of a frozen data set (None: there is none) into a bundle.

    None, and no file, where the set has no validation frames or another body than the contract: nothing could be calibrated by it.
    Raises `DatasetError` for a damaged or missing shard.
    """
    from safetensors.numpy import save

    if frozen is None:
        return None
    train, held_out = (_described(frozen, split) for split in ("train", "validation"))
    body = contract.embodiment
    fits = all(
        thumbnails.shape[1:2] == (len(body.cameras),) and proprio.shape[1] == len(body.proprio) for thumbnails, proprio in (train, held_out)
    )
    if not fits:
        return None
    reference = reference_of(train, held_out)
    atomic_write(bundle / NOVELTY, save({name: np.ascontiguousarray(value) for name, value in reference.tensors().items()}))
    return reference


def _described(frozen: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Thumbnails (N, V, 192) and proprio (N, P) of frames that are spread evenly over a split; of none, arrays without cameras."""
    thumbnails: list[NDArray[np.uint8]] = []
    proprio: list[NDArray[Any]] = []
    for images_VHW3, proprio_P in spread_frames(frozen, split, _MOST_FRAMES):
        thumbnails.append(np.stack([thumbnail(image_HW3) for image_HW3 in images_VHW3]))
        proprio.append(proprio_P)
    if not thumbnails:
        return np.zeros((0, 0, 0), np.uint8), np.zeros((0, 0), np.float32)
    return np.stack(thumbnails), np.stack(proprio).astype(np.float32)
