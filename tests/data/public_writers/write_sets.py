"""Write the small sets beside this file with the installed `lerobot`, unmodified, and what its own reader gives of them.

python write_sets.py FOLDER [NAME ...]      0.3.3 writes v21/ and v21_images/, 0.4.4 v30/ and v30_images/, each with its NAME.json

Nothing of this project is imported but the scene, `reaching.py`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import reaching
import torch

VERSION = version("lerobot")
FILMS, IMAGES = {"count": 48, "videos": True, "cameras": reaching.CAMERAS}, {"count": 4, "videos": False, "cameras": reaching.UPRIGHT}
SETS = {
    "0.3.3": {"v21": {**FILMS, "seed": 21}, "v21_images": {**IMAGES, "seed": 22}},
    "0.4.4": {"v30": {**FILMS, "seed": 30}, "v30_images": {**IMAGES, "seed": 31}},
}
NORMALISED = VERSION == "0.3.3"  # actions as fractions of the limits, as LIBERO's; the other sets' are metres and radians


def import_lerobot():
    """LeRobotDataset. torchvision comes built with CUDA: beside a torch without it, its operators have no kernels to register."""
    register = torch.library.register_fake

    def register_where_it_is(name, *args, **kwargs):
        def decorate(function):
            try:
                return register(name, *args, **kwargs)(function)
            except RuntimeError:
                return function

        return decorate

    torch.library.register_fake = register_where_it_is
    import torchvision  # noqa: F401

    torch.library.register_fake = register
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def write(dataset_type, name: str, root: Path, *, count: int, seed: int, videos: bool, cameras: tuple) -> None:
    """Record the episodes with the writer's own settings."""
    names = {"motors": list(reaching.NAMES)} if NORMALISED else list(reaching.NAMES)
    numbers = {"dtype": "float32", "shape": (len(reaching.NAMES),), "names": names}
    features = {"observation.state": numbers, "action": numbers}
    for camera in cameras:
        shape = {"shape": (camera.height, camera.width, 3), "names": ["height", "width", "channels"]}
        features[f"observation.images.{camera.name}"] = {"dtype": "video" if videos else "image", **shape}
    dataset = dataset_type.create(f"drawn/{name}", reaching.FPS, features, root=root, robot_type="drawn_arm", use_videos=videos)
    for one in reaching.demonstrations(count, seed=seed, normalised=NORMALISED, cameras=cameras):
        for step in range(len(one)):
            frame = {"observation.state": one.state_T7[step], "action": one.action_T7[step]}
            frame |= {f"observation.images.{camera}": frames[step] for camera, frames in one.images.items()}
            if VERSION == "0.3.3":
                dataset.add_frame(frame, task=one.instruction)
            else:
                dataset.add_frame({**frame, "task": one.instruction})
        dataset.save_episode()
    if VERSION != "0.3.3":
        dataset.finalize()


def read(dataset_type, name: str, root: Path) -> dict:
    """What the reader gives: numbers of each episode, and a digest of the pixels of each camera."""
    dataset = dataset_type(f"drawn/{name}", root=root)
    items = [dataset[i] for i in range(len(dataset))]
    episodes = []
    for number in range(dataset.num_episodes):
        mine = [item for item in items if int(item["episode_index"]) == number]
        columns = {key: np.stack([item[key].numpy() for item in mine]) for key in ("observation.state", "action", "timestamp")}
        frames = {}
        for camera in reaching.CAMERAS:
            images = [np.rint(item[f"observation.images.{camera.name}"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8) for item in mine]
            frames[camera.name] = hashlib.sha256(np.ascontiguousarray(np.stack(images)).tobytes()).hexdigest()
        episodes.append(
            {
                "length": len(mine),
                "task": mine[0]["task"],
                "columns": {key: hashlib.sha256(column.astype("<f4").tobytes()).hexdigest() for key, column in columns.items()},
                "first_action": columns["action"][0].tolist(),
                "last_state": columns["observation.state"][-1].tolist(),
                "frames": frames,
            }
        )
    packages = {name: version(name) for name in ("lerobot", "torch", "torchvision", "torchcodec", "av", "datasets", "pyarrow", "numpy")}
    return {"fps": dataset.fps, "packages": packages, "episodes": episodes}


def main() -> None:
    dataset_type, folder = import_lerobot(), Path(sys.argv[1])
    for name, settings in SETS[VERSION].items():
        if name not in (sys.argv[2:] or SETS[VERSION]):
            continue
        write(dataset_type, name, folder / name, **settings)
        (folder / f"{name}.json").write_text(json.dumps(read(dataset_type, name, folder / name), indent=1) + "\n")
    if VERSION == "0.4.4":
        (folder / "v30_calibration.json").write_text(json.dumps(reaching.calibration(), indent=1) + "\n")


if __name__ == "__main__":
    main()
