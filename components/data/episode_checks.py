"""The fast check that every episode passes at the door: right after recording, and before it joins a data set.

Pure and cheap (a few milliseconds). The gate of the whole data set is `components.data.validate`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.config.records import Finding
from model_core.spec.contract import EmbodimentSpec, VectorSpec
from model_core.spec.types import Episode

BLACK_MEAN = 2.0


def inline_check(episode: Episode, embodiment: EmbodimentSpec, *, min_frames: int = 2) -> list[Finding]:
    """Everything that makes `episode` unusable; empty means that it may join. Never raises for what is in the episode."""
    found: list[Finding] = []

    def error(check: str, reason: str) -> None:
        found.append(Finding(check=check, where=episode.episode_id, reason=reason))

    if not episode.instruction.strip():
        error("instruction_missing", "the instruction is empty; a policy cannot learn what was asked")
    if episode.embodiment != embodiment.name:
        error("embodiment_differs", f"recorded by {episode.embodiment!r}, expected {embodiment.name!r}")
    if len(episode) < min_frames:
        error("too_short", f"{len(episode)} frames, expected at least {min_frames}")
    for check, reason in _shape_faults(episode, embodiment):
        error(check, reason)
    if found:
        return found
    for check, reason in (*_number_faults(episode, embodiment), *_picture_faults(episode), *_clock_faults(episode.timestamps_T)):
        error(check, reason)
    return found


def _shape_faults(episode: Episode, embodiment: EmbodimentSpec) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    length = len(episode)
    for camera in embodiment.cameras:
        frames = episode.images.get(camera.name)
        if frames is None:
            faults.append(
                ("camera_missing", f"no pictures of camera {camera.name!r}; recorded: {', '.join(sorted(episode.images)) or 'none'}")
            )
        elif frames.shape != (length, camera.height, camera.width, 3):
            faults.append(
                ("camera_shape", f"camera {camera.name!r} is {frames.shape}, expected {(length, camera.height, camera.width, 3)}")
            )
    wanted = {
        "proprio": (episode.proprio_TP, len(embodiment.proprio)),
        "action": (episode.actions_TA, len(embodiment.action)),
        "executed action": (episode.executed_TA, len(embodiment.action)),
    }
    for name, (values, width) in wanted.items():
        if values.shape != (length, width):
            faults.append(("shape", f"{name} is {values.shape}, expected {(length, width)}"))
    return faults


def _number_faults(episode: Episode, embodiment: EmbodimentSpec) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    groups: Mapping[str, tuple[NDArray[np.float32], VectorSpec]] = {
        "proprio": (episode.proprio_TP, embodiment.proprio),
        "action": (episode.actions_TA, embodiment.action),
        "executed action": (episode.executed_TA, embodiment.action),
    }
    for name, (values, spec) in groups.items():
        bad = ~np.isfinite(values)
        if bad.any():
            step, dim = np.argwhere(bad)[0]
            faults.append(
                ("not_finite", f"{name} holds NaN or inf in {int(bad.sum())} places, first at step {step}, {spec.dims[dim].name}")
            )
            continue
        slack = 0.05 * (spec.high - spec.low)
        outside = (values < spec.low - slack) | (values > spec.high + slack)
        if outside.any():
            step, dim = np.argwhere(outside)[0]
            limits = f"{spec.dims[dim].low:g}..{spec.dims[dim].high:g} {spec.dims[dim].unit}"
            faults.append(("out_of_range", f"{name} {spec.dims[dim].name} is {values[step, dim]:.3f} at step {step}, allowed {limits}"))
    if episode.tcp_T3 is not None and not np.isfinite(episode.tcp_T3).all():
        faults.append(("not_finite", "the gripper position holds NaN or inf"))
    for name, depth in episode.depth_m.items():
        if not np.isfinite(depth).all():
            faults.append(("not_finite", f"depth of camera {name!r} holds NaN or inf"))
    return faults


def _picture_faults(episode: Episode) -> list[tuple[str, str]]:
    dark = {name: float((frames.mean(axis=(1, 2, 3)) < BLACK_MEAN).mean()) for name, frames in episode.images.items()}
    return [("black_frames", f"{share:.0%} of the frames of camera {name!r} are black") for name, share in dark.items() if share > 0]


def _clock_faults(timestamps_T: NDArray[np.float64]) -> list[tuple[str, str]]:
    if not np.isfinite(timestamps_T).all():
        return [("timestamps", "timestamps hold NaN or inf")]
    steps = np.diff(timestamps_T)
    if (steps <= 0).any():
        return [("timestamps", f"time does not move forward at step {int(np.argmax(steps <= 0)) + 1}")]
    return []
