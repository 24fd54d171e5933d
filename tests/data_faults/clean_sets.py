"""Five sound sets of different writers, robots and rates: what every rule must be silent about.

delta_arm        7-D changes of a tool, 2 cameras, 20 Hz, noise in the pictures
leader_follower  6-D joint positions in degrees, follower behind its leader, 2 cameras, 30 Hz
bimanual         14-D joint positions in radians, 3 cameras in 4:2:0, 50 Hz, several data files and films
with_outcome     7-D velocities, 1 camera, 15 Hz, success and session of each episode, two splits, a data card
ours             our own writer: described embodiment, measured times that jitter, 4-D changes
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.data_faults.made_set import MadeEpisode, MadeSet, write_made_set

EPISODES, LENGTH, SIZE = 7, 54, 32
TASKS = ("put the red cube into the bowl", "push the drawer shut")
Array = NDArray[np.float64]


def clean_set(kind: str, seed: int = 0, *, episodes: int = EPISODES) -> MadeSet:
    """The set of this kind; the same seed gives the same one."""
    return KINDS[kind](np.random.default_rng([31, list(KINDS).index(kind), seed]), episodes)


def write_clean_set(root: Path, kind: str, seed: int = 0) -> Path:
    """Write it as a folder."""
    return write_made_set(root, clean_set(kind, seed))


def smooth_path(rng: np.random.Generator, length: int, dims: int, goal: int) -> Array:
    """(T, D) within -1..1: a few slow waves, other ones for each episode, on the way to one of two goals."""
    time = np.linspace(0, 1, length)[:, None]
    rates, phases = rng.uniform(1.0, 4.0, (3, dims)), rng.uniform(0, 2 * np.pi, (3, dims))
    waves = sum(np.sin(2 * np.pi * rates[k] * time + phases[k]) / (k + 2) for k in range(3))
    direction = np.where(np.arange(dims) % 2 == 0, 1.0, -1.0) * (1 if goal == 0 else -1)
    path = 0.22 * waves + 0.4 * direction * (time - 0.5) * 1.6
    return np.clip(path, -0.98, 0.98)


def gripper(rng: np.random.Generator, length: int) -> Array:
    """(T,) 1 open .. 0 closed: closes and opens within a few frames each, at other times in each episode."""
    first, second = rng.uniform(0.25, 0.4), rng.uniform(0.65, 0.8)
    time = np.linspace(0, 1, length)
    return 1.0 - 1.0 / (1 + np.exp(-(time - first) * 90)) + 1.0 / (1 + np.exp(-(time - second) * 90))


def pictures(path_T: Array, camera: int, *, noise: int = 0, rng: np.random.Generator | None = None, size: int = SIZE) -> NDArray[np.uint8]:
    """(T, H, W, 3): a coloured bench of its own for each camera, and an arm whose place the path gives."""
    y, x = np.mgrid[0:size, 0:size] / size
    base = np.stack([(150 - 60 * camera) * x + 60, 60 + 90 * y * (1 + camera % 2), 170 - 120 * x * y + 20 * camera], axis=-1)
    base[: size // 4, : size // 3] = (200, 60 + 40 * camera, 40)
    base[size // 2 :, size * 3 // 4 :] = (30, 60, 130 + 30 * camera)
    column = (0.5 + 0.4 * path_T[:, 0]) * size
    row = (0.5 + 0.4 * path_T[:, min(1 + camera % 2, path_T.shape[1] - 1)]) * size
    frames = np.repeat(base[None], len(path_T), axis=0)
    for step in range(len(path_T)):
        near = np.clip(5.0 - np.hypot(x * size - column[step], y * size - row[step]), 0, 1)[..., None]
        frames[step] = frames[step] * (1 - near) + near * np.array([235, 225, 90 + 20 * camera])
    if noise and rng is not None:
        frames += rng.integers(-noise, noise + 1, frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _delta_arm(rng: np.random.Generator, episodes: int) -> MadeSet:
    made: list[MadeEpisode] = []
    for number in range(episodes):
        length = LENGTH + int(rng.integers(-6, 7))
        path, grip = smooth_path(rng, length + 1, 6, number % 2), gripper(rng, length + 1)
        pose = np.concatenate([path[:, :3] * 0.3, path[:, 3:] * 0.6], axis=1)
        action = np.concatenate([np.diff(pose, axis=0) * 5, grip[1:, None] * 2 - 1], axis=1) + rng.normal(0, 2e-3, (length, 7))
        state = np.concatenate([pose[:-1], grip[:-1, None] * 0.08], axis=1) + rng.normal(0, 2e-4, (length, 7))
        frames = {name: pictures(path[:-1], k, noise=2, rng=rng) for k, name in enumerate(("front", "wrist"))}
        made.append(MadeEpisode(state_TP=f32(state), action_TA=f32(action), frames=frames, task=TASKS[number % 2]))
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    return MadeSet(episodes=tuple(made), fps=20, robot="franka", state_names=names, action_names=names, card=card("apache-2.0"))


def _leader_follower(rng: np.random.Generator, episodes: int) -> MadeSet:
    made: list[MadeEpisode] = []
    scale = np.array([90, 80, 85, 70, 100.0])
    for number in range(episodes):
        length = LENGTH + int(rng.integers(-6, 7))
        path, grip = smooth_path(rng, length + 2, 5, number % 2), gripper(rng, length + 2)
        joints = np.concatenate([path * scale, grip[:, None] * 60], axis=1)
        action = joints[2:] + rng.normal(0, 0.05, (length, 6))
        state = joints[:-2] + rng.normal(0, 0.05, (length, 6))
        frames = {name: pictures(path[:-2], k) for k, name in enumerate(("top", "side"))}
        made.append(MadeEpisode(state_TP=f32(state), action_TA=f32(action), frames=frames, task=TASKS[number % 2]))
    names = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
    return MadeSet(episodes=tuple(made), fps=30, robot="so101_follower", state_names=names, action_names=names, episode_statistics=True)


def _bimanual(rng: np.random.Generator, episodes: int) -> MadeSet:
    made: list[MadeEpisode] = []
    for number in range(episodes):
        length = LENGTH + 16 + int(rng.integers(-6, 7))
        path = smooth_path(rng, length + 1, 12, number % 2)
        joints = np.concatenate(
            [path[:, :6] * 1.5, gripper(rng, length + 1)[:, None], path[:, 6:] * 1.5, gripper(rng, length + 1)[:, None]], axis=1
        )
        action, state = joints[1:] + rng.normal(0, 1e-3, (length, 14)), joints[:-1] + rng.normal(0, 1e-3, (length, 14))
        frames = {name: pictures(path[:-1], k) for k, name in enumerate(("cam_high", "cam_left_wrist", "cam_right_wrist"))}
        made.append(MadeEpisode(state_TP=f32(state), action_TA=f32(action), frames=frames, task=TASKS[number % 2]))
    joints_of_a_side = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
    names = tuple(f"{side}_{name}" for side in ("left", "right") for name in joints_of_a_side)
    return MadeSet(episodes=tuple(made), fps=50, robot="aloha", state_names=names, action_names=names, per_file=3, lossy=True)


def _with_outcome(rng: np.random.Generator, episodes: int) -> MadeSet:
    made: list[MadeEpisode] = []
    held_out = episodes - 2
    for number in range(episodes):
        length = LENGTH + int(rng.integers(-6, 7))
        path, grip = smooth_path(rng, length + 1, 6, number % 2), gripper(rng, length + 1)
        action = np.concatenate([np.diff(path, axis=0) * 15, grip[1:, None]], axis=1) + rng.normal(0, 2e-3, (length, 7))
        state = np.concatenate([path[:-1] * 1.2, grip[:-1, None]], axis=1) + rng.normal(0, 3e-4, (length, 7))
        done = [step == length - 1 for step in range(length)]
        person, room = ("ann", "ben", "cid")[number % 3], ("north", "south")[number % 2]
        made.append(
            MadeEpisode(
                state_TP=f32(state),
                action_TA=f32(action),
                frames={"exterior": pictures(path[:-1], 0, noise=1, rng=rng)},
                task=TASKS[number % 2],
                columns={"next.done": done, "next.success": done, "collector": [person] * length, "building": [room] * length},
                fields={"session": f"day-{number // 2}" if number < held_out else "day-100"},
            )
        )
    names = ("j1", "j2", "j3", "j4", "j5", "j6", "gripper")
    splits = {"train": f"0:{held_out}", "val": f"{held_out}:{episodes}"}
    return MadeSet(
        episodes=tuple(made), fps=15, robot="droid", state_names=names, action_names=names, card=card("cc-by-4.0"), info={"splits": splits}
    )


def _ours(rng: np.random.Generator, episodes: int) -> MadeSet:
    from tests.episodes import BODY

    made: list[MadeEpisode] = []
    low, high = BODY.proprio.low.astype(np.float64), BODY.proprio.high.astype(np.float64)
    middle, half = (low + high)[:3] / 2, (high - low)[:3] / 2
    for number in range(episodes):
        length = LENGTH + int(rng.integers(-6, 7))
        path, grip = smooth_path(rng, length + 1, 3, number % 2), gripper(rng, length + 1)
        place = middle + 0.7 * half * path
        change = np.diff(path, axis=0)
        action = np.concatenate([change / 0.15, grip[1:, None] * 1.6 - 0.8], axis=1) + rng.normal(0, 2e-3, (length, 4))
        state = np.concatenate([place[:-1], grip[:-1, None] * 0.9 + 0.05], axis=1)
        times = np.arange(length) / BODY.control_hz + rng.uniform(-0.0004, 0.0004, length)
        made.append(
            MadeEpisode(
                state_TP=f32(state),
                action_TA=f32(np.clip(action, -1, 1)),
                frames={"front": pictures(path[:-1], 0)},
                task=TASKS[number % 2],
                times_T=times - times[0],
                fields={"name": ("cube-into-bowl", "drawer-close")[number % 2]},
            )
        )
    return MadeSet(
        episodes=tuple(made), fps=int(BODY.control_hz), robot=BODY.name, state_names=("x", "y", "z", "grip"), action_names=(), ours=True
    )


def f32(values: Array) -> NDArray[np.float32]:
    """As it is stored."""
    return values.astype(np.float32)


def card(licence: str) -> str:
    """A data card with this licence."""
    return f"---\nlicense: {licence}\ntags:\n- robotics\n---\n\nA set that was made for tests.\n"


KINDS: dict[str, Callable[[np.random.Generator, int], MadeSet]] = {
    "delta_arm": _delta_arm,
    "leader_follower": _leader_follower,
    "bimanual": _bimanual,
    "with_outcome": _with_outcome,
    "ours": _ours,
}
