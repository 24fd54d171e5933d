"""Made-up recordings whose meaning is known: an arm that follows smooth random targets, and actions written in one of several ways.

truth = motion(modes=..., ...)      # targets and the state that follows them
recorded = recorded_set("delta")    # the same motion, actions written as steps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from components.data.embodiments.evidence.recorded import RecordedCamera, RecordedSet

JOINTS = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos")
GRIPPER = "gripper.pos"
CAMERAS = (RecordedCamera(name="front", height=48, width=64), RecordedCamera(name="wrist", height=48, width=64))


def smooth_targets(seed: int, length: int, dims: int, *, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(T, D) a smooth path: three slow sines per dimension, about -1..1, from `start` where it is given."""
    rng = np.random.default_rng([23, seed])
    time_T = np.arange(length)[:, None] / 20.0
    path_TD = sum(
        rng.uniform(0.2, 0.5, dims) * np.sin(2 * np.pi * rng.uniform(0.1, 0.6, dims) * time_T + rng.uniform(0, 6, dims)) for _ in range(3)
    )
    made = np.asarray(path_TD, np.float64) + rng.uniform(-0.5, 0.5, dims)
    return made if start is None else made - made[0] + start


def followed(target_TD: NDArray[np.float64], seed: int, *, gain: float = 0.9, noise: float = 0.002) -> NDArray[np.float64]:
    """(T, D) the state that follows: row t + 1 has gone `gain` of the way to the target of row t, with noise of the sensor."""
    rng = np.random.default_rng([29, seed])
    state_TD = np.empty_like(target_TD)
    state_TD[0] = target_TD[0]
    for step in range(1, len(target_TD)):
        state_TD[step] = state_TD[step - 1] + gain * (target_TD[step - 1] - state_TD[step - 1])
    return state_TD + rng.normal(0, noise, state_TD.shape)


def gripper_track(seed: int, length: int) -> NDArray[np.float64]:
    """(T,) 1 for open, 0 for closed, from open, closed in the second third."""
    at = np.random.default_rng([31, seed]).integers(length // 4, length // 2)
    track_T = np.ones(length)
    track_T[at : at + length // 3] = 0.0
    return track_T


def recorded_set(
    mode: str,
    *,
    episodes: int = 8,
    length: int = 90,
    unit: float = 1.0,
    action_unit: float | None = None,
    gripper: tuple[float, float] = (0.0, 1.0),
    names: Sequence[str] = (*JOINTS, GRIPPER),
    fixed_start: bool = False,
    chunk: int = 0,
    fps: float = 20.0,
) -> RecordedSet:
    """A set of `mode`: "absolute", "delta", "velocity" or "relative" (to the first state, or to that of every `chunk` steps).

    unit: of the state; 1 is radians. action_unit: of the arm's actions (None: that of the state). gripper: the values for closed and open.
    """
    states, actions, dims = [], [], len(names) - 1
    for number in range(episodes):
        target_TD = 1.5 * smooth_targets(number, length, dims, start=np.full(dims, 0.4) if fixed_start else None)
        state_TD = followed(target_TD, number)
        track_T = gripper_track(number, length)
        opening_T = followed(track_T[:, None], number, gain=0.4, noise=0.001)[:, 0]
        scale = unit if action_unit is None else action_unit
        action_TD = _written(mode, target_TD, state_TD, chunk, fps) * scale
        low, high = gripper
        states.append(np.column_stack([state_TD * unit, low + (high - low) * opening_T]))
        actions.append(np.column_stack([action_TD, low + (high - low) * track_T]))
    lengths = np.array([len(one) for one in states], np.int64)
    return RecordedSet(
        name="made_up",
        robot="my_arm",
        fps=fps,
        state_NP=np.concatenate(states).astype(np.float32),
        actions_NA=np.concatenate(actions).astype(np.float32),
        times_N=np.concatenate([np.arange(n) / fps for n in lengths]),
        starts_E=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        lengths_E=lengths,
        state_names=tuple(names),
        action_names=tuple(names),
        cameras=CAMERAS,
    )


def _written(mode: str, target_TD: NDArray[np.float64], state_TD: NDArray[np.float64], chunk: int, fps: float) -> NDArray[np.float64]:
    if mode == "absolute":
        return target_TD
    if mode == "relative":
        base_T = np.arange(len(target_TD)) // chunk * chunk if chunk else np.zeros(len(target_TD), int)
        return target_TD - state_TD[base_T]
    steps_TD = np.diff(target_TD, axis=0, prepend=target_TD[:1])
    return steps_TD * fps if mode == "velocity" else steps_TD


def without_names(recorded: RecordedSet) -> RecordedSet:
    """The same set of a writer that names no dimension."""
    return replace(recorded, state_names=(), action_names=())
