"""Labelling on Ray, run by tests in a network of its own: Ray listens on every address, so nothing of it may be reachable.

Run: python -m tests.labelling_on_ray FOLDER ENGINE    labels the set of `write_set` with the stub below, by "local" or "ray"
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.config.launch.ray_config import RayConfig
from components.config.records import Silent
from components.data.annotators.interface import Frames, GripperTrack, ImageAnswers
from tests.episodes import episode, write_dataset

DARK = 20  # an image with a lower mean cannot be answered
LENGTHS = (5, 9, 4, 6)


@dataclass(frozen=True)
class BrightestPixel:
    """Points at the brightest pixel of an image: what it answers depends on every pixel and on nothing else."""

    version: str = "brightest/1"
    needs_images: bool = True

    def answer_images(self, images_NHW3: NDArray[np.uint8]) -> ImageAnswers:
        flat_NP = images_NHW3.sum(axis=3, dtype=np.int64).reshape(len(images_NHW3), -1)
        y_N, x_N = np.unravel_index(flat_NP.argmax(axis=1), images_NHW3.shape[1:3])
        columns = {
            "points": np.stack([x_N, y_N], axis=1).astype(np.float64),
            "visible": np.ones(len(flat_NP), bool),
            "confidence": (flat_NP.max(axis=1) / 765).astype(np.float32),
        }
        bad = [place for place, image in enumerate(images_NHW3) if image.mean() < DARK]
        return ImageAnswers(columns=columns, errors=dict.fromkeys(bad, "nothing to point at"))

    def annotate(self, frames: Frames) -> GripperTrack:
        raise AssertionError(f"{frames.episode_id} is asked in this process; expected answers of single images")


def open_points(cfg: AnnotateConfig) -> BrightestPixel:
    """The stub, as recipes name it."""
    del cfg
    return BrightestPixel()


CONFIG = AnnotateConfig(
    depth_annotator="none",
    point_annotator="tests.labelling_on_ray:open_points",
    batch_size=4,
    max_rejected_fraction=0.5,
    ray=RayConfig(block_rows=8),
)


def write_set(folder: Path) -> tuple[Path, Path]:
    """(data set, verdicts): one frame of the third episode cannot be answered."""
    made = []
    for number, length in enumerate(LENGTHS):
        one = episode(number, length=length)
        if number == 2:
            for images in one.images.values():
                images[1] = 0
        made.append(one)
    valid = folder / "valid.json"
    valid.write_text(json.dumps({one.episode_id: True for one in made}))
    return write_dataset(folder / "set", made), valid


def needs_ray() -> None:
    """Skip where Ray, or a network without any other machine, is not to be had."""
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root, unshare and iproute2")


def alone(*command: str, home: Path | None = None) -> subprocess.Popen[str]:
    """A command in a network namespace that has nothing but its own loopback. home: its ACTWRIGHT_HOME."""
    environment = os.environ | ({} if home is None else {"ACTWRIGHT_HOME": str(home)})
    words = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    root = Path(__file__).parents[1]
    return subprocess.Popen(words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main() -> None:
    from components.data.annotate import annotate

    logging.basicConfig(level="INFO")
    folder, engine = Path(sys.argv[1]), sys.argv[2]
    annotate(replace(CONFIG, engine=engine), folder / "set", folder / "valid.json", folder / engine, Silent())


if __name__ == "__main__":
    main()
