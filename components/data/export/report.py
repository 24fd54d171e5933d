"""What an export tells the person who asked for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written. images: how they are stored, and what that lost. left_out: what the set does not hold."""

    episodes: int
    frames: int
    images: str
    left_out: tuple[str, ...]
    psnr_db: float | None
    largest_difference: int
