"""The structure of an episode that every inspection rule needs: cameras, shapes, instruction and embodiment. Pure: no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode


def missing_cameras(episode: Episode, wanted: Sequence[str]) -> list[str]:
    """The cameras of `wanted` of which the episode has no images."""
    return [name for name in wanted if name not in episode.images]


def structural_faults(episode: Episode, embodiment: EmbodimentSpec) -> Iterator[tuple[str, str]]:
    """(check, reason) of everything that keeps the rules from being measured, or the episode from being of this embodiment."""
    if not episode.instruction.strip():
        yield "instruction_missing", "the instruction is empty; a policy cannot learn what was asked"
    if episode.embodiment != embodiment.name:
        yield "embodiment_differs", f"recorded by {episode.embodiment!r}, expected {embodiment.name!r}"
    length = len(episode)
    if length < 2:
        yield "too_short", f"{length} frames, expected at least 2: rates are differences of frames"
    recorded = ", ".join(sorted(episode.images)) or "none"
    for name in missing_cameras(episode, [camera.name for camera in embodiment.cameras]):
        yield "camera_missing", f"no images of camera {name!r}; recorded: {recorded}"
    for camera in embodiment.cameras:
        frames, expected = episode.images.get(camera.name), (length, camera.height, camera.width, 3)
        if frames is not None and frames.shape != expected:
            yield "camera_shape", f"camera {camera.name!r} is {frames.shape}, expected {expected}"
    shapes: Mapping[str, tuple[tuple[int, ...], int]] = {
        "proprio": (episode.proprio_TP.shape, len(embodiment.proprio)),
        "action": (episode.actions_TA.shape, len(embodiment.action)),
        "executed action": (episode.executed_TA.shape, len(embodiment.action)),
    }
    for name, (shape, width) in shapes.items():
        if shape != (length, width):
            yield "shape", f"{name} is {shape}, expected {(length, width)}"


def unfinished_depth(episode: Episode) -> list[str]:
    """Cameras whose depth holds NaN or inf. Only where depth is in memory anyway: the gate of a data set does not decode it again."""
    return [name for name, depth in episode.depth_m.items() if not np.isfinite(depth).all()]
