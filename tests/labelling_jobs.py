"""Labellers for tests of the engines, made in processes of their own: what they do is written in the images that they are given."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.data.annotators.interface import ImageAnswers
from components.data.labelling.engine import LabelJob
from components.data.labelling.labeller import ImageLabeller
from model_core.spec.errors import CheckpointError

KILLS, KILLS_ONCE, FAILS, HAS_NO_ANSWER = 255, 254, 253, 252  # first value of an image


@dataclass(frozen=True)
class Means:
    """The mean of each image; every call leaves a line in `folder`/calls with the first value of each image.

    held_from: the number of lines from which on a call goes no further until there is a file `folder`/go; 0: never.
    """

    folder: Path
    held_from: int = 0
    version: str = "means/1"

    def answer_images(self, images_NHW3: np.ndarray) -> ImageAnswers:
        firsts = [int(image[0, 0, 0]) for image in images_NHW3]
        with (self.folder / "calls").open("a") as file:
            file.write(f"{os.getpid()} {' '.join(map(str, firsts))}\n")
        while self.held_from and self._calls() >= self.held_from and not (self.folder / "go").exists():
            time.sleep(0.005)
        once = self.folder / "killed"
        if KILLS in firsts or (KILLS_ONCE in firsts and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if FAILS in firsts:
            raise ValueError("this image is not to be looked at")
        errors = {place: "nothing to see" for place, first in enumerate(firsts) if first == HAS_NO_ANSWER}
        return ImageAnswers(columns={"mean": images_NHW3.mean(axis=(1, 2, 3))}, errors=errors)

    def _calls(self) -> int:
        return len((self.folder / "calls").read_text().splitlines())


def open_means(settings: Mapping[str, Any]) -> ImageLabeller:
    if settings.get("weights") == "missing":
        raise CheckpointError("no weights. Fix: give some")
    if settings.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return ImageLabeller(annotator=Means(Path(settings["folder"]), settings.get("held_from", 0)))


def job(folder: Path, **settings: Any) -> LabelJob:
    return LabelJob(maker="tests.labelling_jobs:open_means", settings={"folder": str(folder), **settings})
