"""Sets that we recorded and took in, for public checkers: `python -m tests.conformance.checked_sets FOLDER`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.config.data_config import CameraConfig, CollectConfig
from components.config.records import Silent
from components.data.collect import collect
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from tests.planar_arm import TASK

WRITERS = Path(__file__).parents[1] / "data" / "public_writers"
RECORDED = CollectConfig(
    simulator="tests.planar_arm:PlanarArm",
    tasks=(TASK,),
    episodes_per_task=6,
    workers=1,
    sim_steps_per_action=2,
    horizon_sim_steps=150,
    noise_levels=(0.0, 0.1),
    burst_probability=0.0,
    image_size=64,
    camera=CameraConfig(azimuth=0.0, elevation=-80.0, distance=1.2, lookat=(0.2, 0.0, 0.0)),
    max_depth_m=2.0,
)


def make_sets(work: Path) -> dict[str, Path]:
    """Name -> folder: demonstrations of a simulator of ours, and sets of the public writers as we write them again."""
    collect(RECORDED, work / "collect", Silent())
    return {"recorded": work / "collect" / "dataset"} | {name: take_in(name, work / name) for name in ("v21", "v30")}


def take_in(name: str, root: Path) -> Path:
    """A set of `tests/data/public_writers` written by our writer."""
    reader = DatasetReader(WRITERS / name)
    body = _body(reader)
    with DatasetWriter(root, body) as writer:
        for one in reader.episodes():
            writer.add(replace(one, embodiment=body.name))
    return root


def _body(reader: DatasetReader) -> EmbodimentSpec:
    """The arm, with the ranges that its numbers have."""
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")

    def vector(column: str, mode: str) -> VectorSpec:
        values = reader.column(column)
        low, high = np.floor(values.min(axis=0) * 100) / 100, np.ceil(values.max(axis=0) * 100) / 100
        pairs = zip(names, low, high, strict=True)
        return VectorSpec(dims=tuple(DimSpec(name=n, unit="1", low=float(a) - 0.01, high=float(b) + 0.01) for n, a, b in pairs), mode=mode)

    sizes = {name: reader.picture_size(name) for name in reader.cameras}
    return EmbodimentSpec(
        name="drawn_arm",
        cameras=tuple(CameraSpec(name=name, height=size[0], width=size[1]) for name, size in sizes.items() if size),
        proprio=vector("observation.state", ""),
        action=vector("action", "delta"),
        control_hz=reader.fps,
        gripper_dim="gripper",
        gripper_open=1.0,
        hold=(0.0,) * 6 + (None,),
    )


if __name__ == "__main__":
    for name, folder in make_sets(Path(sys.argv[1])).items():
        print(name, folder)  # noqa: T201
