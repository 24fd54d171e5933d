"""A robot's computer has no torch: importing everything that a workcell needs must not import it."""

from __future__ import annotations

import pkgutil

import serving.cell_files
import serving.fleet.agent
import serving.fleet.intake
import serving.workcell
from tests.architecture.loaded import heavy_imports

HEAVY = ("torch", "transformers", "bentoml", "mlflow", "prefect", "starlette", "pandas", "safetensors")
ROOMS = (serving.cell_files, serving.fleet.agent, serving.fleet.intake, serving.workcell)
MODULES = sorted(m.name for room in ROOMS for m in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))


def test_the_list_of_modules_is_not_empty() -> None:
    assert {
        "serving.workcell.control.realtime_cell",
        "serving.workcell.link.waiting_link",
        "serving.workcell.robot.episode_recorder",
        "serving.workcell.__main__",
    } <= set(MODULES)


def test_importing_the_robot_side_imports_nothing_heavy() -> None:
    assert heavy_imports([*MODULES, "model_core.spec.protocol.wire", "serving.lifeline"], HEAVY) == []


def test_a_heavy_import_is_found_and_its_module_named() -> None:
    assert heavy_imports(["serving.lifeline", "safetensors.numpy"], HEAVY) == ["safetensors.numpy safetensors"]
