"""What was written, compared with what it was made from: numbers and instructions exactly, images exactly or by their distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.config.records import Progress
from components.data.sources.interface import EpisodeSource
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

_FIX = "Fix: report it with the name of the format; nothing was left in the folder's place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What of an episode the written set holds besides state, actions, images and instruction. rate_hz: of its steps."""

    rate_hz: float
    has_success: bool
    has_intervention: bool
    has_tool_centre: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """psnr_db: of all images; None where every pixel is equal. largest: difference of a colour value of a pixel, of 255."""

    psnr_db: float | None
    largest: int


def compare(source: EpisodeSource, written: EpisodeSource, held: Held, progress: Progress, *, is_lossless: bool) -> Comparison:
    """Compare every episode. Raises `DatasetError` naming the first that is not what it was made from."""
    count, squares, values, largest = len(source.rows), 0.0, 0, 0
    if len(written.rows) != count:
        raise DatasetError(f"{count} episodes were written, {len(written.rows)} are read back. {_FIX}")
    for index in range(count):
        one, other = source.episode(index, depth=False), written.episode(index, depth=False)
        _check_numbers(one, other, held)
        for camera, frames in one.images.items():
            wide = frames.astype(np.int16) - other.images[camera]
            largest = max(largest, int(np.abs(wide).max()))
            squares += float(np.square(wide, dtype=np.float64).sum())
            values += wide.size
        if is_lossless and largest:
            raise DatasetError(f"episode {one.episode_id}: an image read back differs by {largest} of 255, expected equal pixels. {_FIX}")
        progress.update(count + index + 1, 2 * count, f"reading back {one.episode_id}")
    return Comparison(psnr_db=10 * math.log10(255**2 * values / squares) if squares else None, largest=largest)


def _check_numbers(one: Episode, other: Episode, held: Held) -> None:
    times_T = np.arange(len(one)) / held.rate_hz
    parts: dict[str, bool] = {
        "state": _equal(one.proprio_TP, other.proprio_TP),
        "action": _equal(one.actions_TA, other.actions_TA),
        "timestamp": len(other) == len(one) and float(np.abs(other.timestamps_T - times_T).max()) <= 1e-4,
        "instruction": one.instruction == other.instruction,
        "success": one.success == other.success or not held.has_success,
        "intervention": not held.has_intervention or _flags(one) == _flags(other),
        "tool centre": not held.has_tool_centre or _equal_or_none(one.tcp_T3, other.tcp_T3),
    }
    if odd := [name for name, is_equal in parts.items() if not is_equal]:
        raise DatasetError(f"episode {one.episode_id}: {', '.join(odd)} read back is not what was written. {_FIX}")


def _flags(episode: Episode) -> list[bool] | None:
    return None if episode.intervention_T is None else episode.intervention_T.tolist()


def _equal_or_none(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    return one is None if other is None else one is not None and _equal(one, other)


def _equal(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return one.shape == other.shape and np.array_equal(one.view(np.uint32), other.view(np.uint32))
