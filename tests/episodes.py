"""Small made-up episodes and data sets: a bright square (the gripper) moves over a grey field in front of a real pinhole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from components.data.lerobot.reader import DatasetWriter
from components.simulation.interface import FreeCamera
from components.simulation.metaworld import embodiment
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode, Provenance

CAMERA = FreeCamera(width=32, height=32)
BODY: EmbodimentSpec = embodiment(cameras=(CAMERA,))


class Tally:
    """A `Progress` that remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def update(self, done: int, total: int, message: str = "") -> None:
        self.calls.append((done, total))


def episode(number: int = 0, *, length: int = 12, **changes: Any) -> Episode:
    """Episode `number`: always the same for the same number."""
    rng = np.random.default_rng([7, number])
    tcp_T3 = (np.array([0.0, 0.7, 0.1]) + np.linspace(0, 0.1, length)[:, None] * rng.uniform(-1, 1, 3)).astype(np.float32)
    geometry = CAMERA.geometry()
    pixels_T3 = geometry.project(tcp_T3)
    frames = rng.integers(60, 90, (1, 32, 32, 3)).astype(np.uint8).repeat(length, axis=0)
    for step, (u, v, _) in enumerate(np.rint(pixels_T3).astype(int)):
        frames[step, max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2] = (250, 20 + step, number % 256)
    actions_TA = rng.uniform(-0.9, 0.9, (length, 4)).astype(np.float32)
    made = Episode(
        episode_id=f"square-{number:04d}",
        embodiment=BODY.name,
        task="drawer-close-v3" if number % 2 else "coffee-button-v3",
        instruction="close the green drawer" if number % 2 else "push the button",
        success=True,
        provenance=Provenance(producer="expert:test", cell="bench", seed=number, versions={"numpy": "2"}, render={"shadow": "off"}),
        images={"front": frames},
        depth_m={"front": np.rint(rng.uniform(300, 2900, (length, 32, 32))).astype(np.float32) / np.float32(1000)},
        geometry={"front": geometry},
        proprio_TP=np.concatenate([tcp_T3, np.full((length, 1), 0.5, np.float32)], axis=1),
        actions_TA=actions_TA,
        executed_TA=np.clip(actions_TA + 0.05, -1, 1).astype(np.float32),
        timestamps_T=np.arange(length) / BODY.control_hz,
        tcp_T3=tcp_T3,
    )
    return replace(made, **changes)


def write_dataset(root: Path, episodes: list[Episode], **options: Any) -> Path:
    """A LeRobot folder with these episodes."""
    with DatasetWriter(root, BODY, **options) as writer:
        for one in episodes:
            writer.add(one)
    return root
