"""A team's own recordings in small: a LeRobot set of a two-camera robot without depth or truth, and the file that describes the robot.

Each image shows where to go: the place of a bright square decides the action, so a policy that looks can predict it. Actions are named
and lie in another order than the embodiment's; cameras have other names.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from tests.older_set import DATA

SIZE, FPS, STEPS = 32, 20, 24
CAMERAS = {"front": "observation.images.cam_high", "wrist": "observation.images.cam_wrist"}
ACTION_NAMES = ["gripper", "dy", "dx"]
SENTENCES = ("follow the red square", "follow the green square")


def own_embodiment(control_hz: float = FPS) -> EmbodimentSpec:
    """The robot: 3-D changes of position, a gripper, two cameras."""
    dims = [DimSpec(name=name, unit="m", low=-1.0, high=1.0, mode="delta") for name in ("dx", "dy")]
    gripper = DimSpec(name="gripper", unit="1", low=-1.0, high=1.0, mode="absolute")
    return EmbodimentSpec(
        name="bench-arm",
        cameras=tuple(CameraSpec(name=name, width=SIZE, height=SIZE) for name in CAMERAS),
        proprio=VectorSpec(dims=(DimSpec(name="x", unit="m", low=-2.0, high=2.0), DimSpec(name="y", unit="m", low=-2.0, high=2.0))),
        action=VectorSpec(dims=(*dims, gripper), mode="delta"),
        control_hz=control_hz,
        gripper_dim="gripper",
        gripper_open=1.0,
        hold=(0.0, 0.0, None),
        gripper_range=(-1.0, 1.0),
    )


def own_episode(number: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """(state (T, 2), actions (T, 3) in the set's order, images (T, 2, H, W, 3)) of episode `number`, always the same."""
    rng = np.random.default_rng([5, number])
    # a circle: the next place follows from what is seen, so the second action of a chunk can be predicted too
    turn_T = rng.uniform(0, 2 * np.pi) + 0.25 * np.arange(STEPS)
    place_T2 = rng.uniform(13, SIZE - 14, 2) + rng.uniform(6, 9) * np.stack([np.cos(turn_T), np.sin(turn_T)], axis=1)
    actions_TA = np.stack(
        [np.where(place_T2[:, 0] > SIZE / 2, 1.0, -1.0), place_T2[:, 1] / SIZE - 0.5, place_T2[:, 0] / SIZE - 0.5], axis=1
    ).astype(np.float32)
    state_T2 = np.cumsum(actions_TA[:, [2, 1]] * 0.01, axis=0).astype(np.float32) + rng.uniform(-0.5, 0.5, 2).astype(np.float32)
    images = np.full((STEPS, 2, SIZE, SIZE, 3), 60, np.uint8)
    for step, (x, y) in enumerate(place_T2.astype(int)):
        images[step, :, y - 3 : y + 4, x - 3 : x + 4, number % 2] = 250
        images[step, 1, :2, :4] = 20 + number  # the wrist camera shows something else
    return state_T2, actions_TA, images


def write_own_set(root: Path, episodes: int, *, first: int = 0) -> Path:
    """A LeRobot v2.1 folder with PNG images in its rows."""
    length = 0
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    for number in range(episodes):
        state, actions, images = own_episode(first + number)
        steps = np.arange(STEPS)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(state.ravel(), 2),
            "action": pa.FixedSizeListArray.from_arrays(actions.ravel(), 3),
            "timestamp": (steps / FPS).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(STEPS, number),
            "index": steps + length,
            "task_index": np.full(STEPS, (first + number) % 2),
        }
        for view, key in enumerate(CAMERAS.values()):
            columns[key] = pa.array([{"bytes": _png(pixels), "path": None} for pixels in images[:, view]])
        pq.write_table(pa.table(columns), root / DATA.format(episode_chunk=0, episode_index=number))
        length += STEPS
    lines = [{"episode_index": n, "tasks": [SENTENCES[(first + n) % 2]], "length": STEPS} for n in range(episodes)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps({"task_index": n, "task": s}) + "\n" for n, s in enumerate(SENTENCES)))
    (root / "meta/info.json").write_text(json.dumps(_info(episodes, length)))
    return root


def _png(pixels_HW3: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels_HW3).save(sink, "PNG")
    return sink.getvalue()


def _info(episodes: int, frames: int) -> dict[str, object]:
    whole = {"dtype": "int64", "shape": [1], "names": None}
    image = {"dtype": "image", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": [3], "names": {"motors": ACTION_NAMES}},
        **dict.fromkeys(CAMERAS.values(), image),
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole),
    }
    counts = {"total_episodes": episodes, "total_frames": frames, "total_tasks": 2, "chunks_size": 1000, "fps": FPS}
    return {"codebase_version": "v2.1", "robot_type": "bench-arm", "data_path": DATA, "video_path": None, "features": features, **counts}


EMBODIMENT_FILE = f"""\
format: 1
name: bench-arm
control_hz: {FPS}
cameras:
  - {{name: front, width: {SIZE}, height: {SIZE}}}
  - {{name: wrist, width: {SIZE}, height: {SIZE}}}
proprio:
  unit: m
  frame: world
  dims:
    - {{name: x, low: -2.0, high: 2.0}}
    - {{name: y, low: -2.0, high: 2.0}}
action:
  mode: delta
  unit: m
  frame: world
  dims:
    - {{name: dx, low: -1.0, high: 1.0}}
    - {{name: dy, low: -1.0, high: 1.0}}
    - {{name: gripper, unit: "1", mode: absolute, low: -1.0, high: 1.0}}
gripper: {{dim: gripper, values: [-1.0, 1.0], open: 1.0}}
confirmed: {{by: tester, on: 2026-11-29}}
"""


def write_embodiment(path: Path) -> Path:
    """The file of `own_embodiment`, signed."""
    path.write_text(EMBODIMENT_FILE)
    return path
