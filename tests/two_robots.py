"""Two robots in small, whose recordings train one network: the bench arm of `own_data`, and a gantry with other numbers and another camera.

bench-arm: 2 readings, 3 actions (changes and a gripper), 2 cameras of 32x32, 20 Hz. gantry: 3 readings, 4 actions (speeds), 1 camera of
48x40, 10 Hz. Of both the images decide the actions; their words differ but for "follow" and "the".
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.data.sources import raw_index
from tests import own_data
from tests.older_set import DATA
from tests.own_data import write_own_set

HEIGHT, WIDTH, FPS, STEPS = 40, 48, 10, 20
CAMERA = "observation.images.top"
GANTRY_SENTENCE = "follow the lamp"
GANTRY_FILE = f"""\
format: 1
name: gantry
control_hz: {FPS}
cameras:
  - {{name: top, width: {WIDTH}, height: {HEIGHT}}}
proprio:
  unit: m
  frame: world
  dims: [{{name: a, low: -3, high: 3}}, {{name: b, low: -3, high: 3}}, {{name: c, low: -3, high: 3}}]
action:
  mode: velocity
  unit: m/s
  frame: world
  dims:
    - {{name: va, low: -50, high: 50}}
    - {{name: vb, low: -50, high: 50}}
    - {{name: vc, low: -50, high: 50}}
    - {{name: vd, low: -50, high: 50}}
gripper: {{dim: ""}}
confirmed: {{by: tester, on: 2026-11-29}}
"""


def gantry_episode(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """(state (T, 3), actions (T, 4), images (T, H, W, 3)); a lamp moves down a diagonal, so the chunk follows from where it is."""
    rng = np.random.default_rng([11, number])
    x_T = (rng.integers(0, WIDTH) + np.arange(STEPS)) % (WIDTH - 12) + 6
    y_T = 6 + (x_T - 6) * (HEIGHT - 12) // (WIDTH - 12)
    aim_T = x_T / WIDTH - 0.5
    actions_TA = (40 * np.stack([aim_T, -aim_T, aim_T / 2, -aim_T / 2], axis=1) + rng.normal(0, 0.2, (STEPS, 4))).astype(np.float32)
    state_TP = (rng.uniform(-1, 1, 3) + 0.01 * np.cumsum(actions_TA[:, :3], axis=0)).astype(np.float32)
    images = rng.integers(40, 60, (STEPS, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for image_HW3, x, y in zip(images, x_T, y_T, strict=True):
        image_HW3[y - 4 : y + 5, x - 4 : x + 5] = 250
    return state_TP.clip(-3, 3), actions_TA, images


def write_gantry_set(root: Path, episodes: int, *, interventions: bool = False) -> Path:
    """A LeRobot v2.1 folder with PNG images in its rows. interventions: a person acts in the second half of every second episode."""
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    for number in range(episodes):
        state, actions, images = gantry_episode(number)
        steps = np.arange(STEPS)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(state.ravel(), 3),
            "action": pa.FixedSizeListArray.from_arrays(actions.ravel(), 4),
            CAMERA: pa.array([{"bytes": own_data._png(pixels), "path": None} for pixels in images]),
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(STEPS, number),
            "index": steps + number * STEPS,
            "task_index": np.zeros(STEPS, np.int64),
        }
        if interventions:
            columns["intervention"] = (steps >= STEPS // 2) & (number % 2 == 1)
        pq.write_table(pa.table(columns), root / DATA.format(episode_chunk=0, episode_index=number))
    lines = [{"episode_index": n, "tasks": [GANTRY_SENTENCE], "length": STEPS} for n in range(episodes)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": GANTRY_SENTENCE}) + "\n")
    (root / "meta/info.json").write_text(json.dumps(_info(episodes, interventions=interventions)))
    return root


def _info(episodes: int, *, interventions: bool) -> dict[str, object]:
    whole = {"dtype": "int64", "shape": [1], "names": None}
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]},
        "action": {"dtype": "float32", "shape": [4], "names": ["va", "vb", "vc", "vd"]},
        CAMERA: {"dtype": "image", "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole),
        **({"intervention": {"dtype": "bool", "shape": [1], "names": None}} if interventions else {}),
    }
    counts = {"total_episodes": episodes, "total_frames": episodes * STEPS, "total_tasks": 1, "chunks_size": 1000, "fps": FPS}
    return {"codebase_version": "v2.1", "robot_type": "gantry", "data_path": DATA, "video_path": None, "features": features, **counts}


def two_sources(root: Path, episodes: int, *, interventions: bool = False) -> list[SourceConfig]:
    """Sets of so many episodes of each robot below `root`, with their signed embodiment files."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "gantry.yaml").write_text(GANTRY_FILE)
    bench = SourceConfig(
        name="bench",
        path=str(write_own_set(root / "bench", episodes)),
        embodiment=str(own_data.write_embodiment(root / "bench-arm.yaml")),
        cameras=own_data.CAMERAS,
    )
    gantry = SourceConfig(
        name="gantry",
        path=str(write_gantry_set(root / "gantry", episodes, interventions=interventions)),
        embodiment=str(root / "gantry.yaml"),
        cameras={"top": CAMERA},
    )
    return [bench, gantry]


def indexed(sources: list[SourceConfig], step: Path, **weights: float) -> Path:
    """The raw index of the sources, as the stage collect makes it. weights: by the name of a source."""
    chosen = [replace(source, weight=weights.get(source.name, 1.0)) for source in sources]
    raw_index.write_index(chosen, step, Silent())
    raw_index.keep_places(step, chosen)
    return step / "dataset"
