"""LeRobot, unmodified, as a writer and as a reader of data sets. The numbers come and go as .npz files; the caller compares them.

python lerobot_sets.py write EPISODES.npz FOLDER [--resumed N]    records the episodes; the last N after opening the set a second time
python lerobot_sets.py read FOLDER READ.npz                       every frame in order, and the action chunks of two further steps

EPISODES.npz: state_0, action_0, frames_0, task_0 and so on, fps and robot_type. Nothing of this project is imported.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

import numpy as np
import torch

VERSION = tuple(int(part) for part in importlib.metadata.version("lerobot").split(".")[:2])
BACKEND = "pyav" if VERSION >= (0, 5) else "torchcodec"  # "pyav" of the older ones is of torchvision, which has it no more


def _register_where_it_is(register):
    """torchvision comes built with CUDA: beside a torch without it, its operators have no kernels to register. None is needed here."""

    def named(name, *args, **kwargs):
        def decorate(function):
            try:
                return register(name, *args, **kwargs)(function)
            except RuntimeError:
                return function

        return decorate

    return named


_register = torch.library.register_fake
torch.library.register_fake = _register_where_it_is(_register)
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

torch.library.register_fake = _register

CAMERA = "observation.images.front"
NAME = "conformance/set"


def write(episodes: np.lib.npyio.NpzFile, folder: Path, resumed: int) -> None:
    """Record the episodes with LeRobot's own settings."""
    count = sum(name.startswith("state_") for name in episodes.files)
    state, action, frames = (episodes[f"{name}_0"] for name in ("state", "action", "frames"))
    features = {
        "observation.state": {"dtype": "float32", "shape": state.shape[1:], "names": [f"s{i}" for i in range(state.shape[1])]},
        "action": {"dtype": "float32", "shape": action.shape[1:], "names": [f"a{i}" for i in range(action.shape[1])]},
        CAMERA: {"dtype": "video", "shape": frames.shape[1:], "names": ["height", "width", "channels"]},
    }
    fps, robot = int(episodes["fps"]), str(episodes["robot_type"])
    dataset = LeRobotDataset.create(NAME, fps, features, root=folder, robot_type=robot, video_backend=BACKEND)
    for number in range(count):
        if number == count - resumed:
            dataset.finalize()
            dataset = LeRobotDataset.resume(NAME, root=folder, video_backend=BACKEND)
        for step, image in enumerate(episodes[f"frames_{number}"]):
            row = {"observation.state": episodes[f"state_{number}"][step], "action": episodes[f"action_{number}"][step], CAMERA: image}
            dataset.add_frame({**row, "task": str(episodes[f"task_{number}"])})
        dataset.save_episode()
    dataset.finalize()


def read(folder: Path, target: Path) -> None:
    """Every frame that LeRobot gives, in order."""
    dataset = LeRobotDataset(NAME, root=folder, video_backend=BACKEND)
    items = [dataset[i] for i in range(len(dataset))]
    chunks = LeRobotDataset(NAME, root=folder, video_backend=BACKEND, delta_timestamps={"action": [k / dataset.fps for k in range(3)]})
    ahead = [chunks[i] for i in range(len(chunks))]
    columns = ("observation.state", "action", "timestamp", "episode_index", "frame_index", "index")
    arrays = {name: np.stack([item[name].numpy() for item in items]) for name in columns}
    arrays["frames"] = np.stack([np.rint(item[CAMERA].numpy().transpose(1, 2, 0) * 255).astype(np.uint8) for item in items])
    arrays["task"] = np.array([item["task"] for item in items])
    arrays["chunk"] = np.stack([item["action"].numpy() for item in ahead])
    arrays["chunk_is_pad"] = np.stack([item["action_is_pad"].numpy() for item in ahead])
    arrays["action_mean"] = np.asarray(dataset.meta.stats["action"]["mean"], np.float64)
    np.savez(target, episodes=dataset.num_episodes, fps=dataset.fps, robot_type=str(dataset.meta.robot_type), **arrays)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("write", "read"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--resumed", type=int, default=0)
    args = parser.parse_args()
    if args.work == "write":
        write(np.load(args.source), args.target, args.resumed)
    else:
        read(args.source, args.target)


if __name__ == "__main__":
    main()
