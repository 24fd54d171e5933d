"""A robot's computer has no torch: importing everything that a workcell needs must not import it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import serving.workcell

HEAVY = ("torch", "transformers", "bentoml", "mlflow", "prefect", "starlette", "pandas", "safetensors")
MODULES = sorted(m.name for m in pkgutil.walk_packages(serving.workcell.__path__, "serving.workcell."))


def test_the_list_of_modules_is_not_empty() -> None:
    assert {
        "serving.workcell.control.realtime_cell",
        "serving.workcell.link.waiting_link",
        "serving.workcell.robot.episode_recorder",
        "serving.workcell.__main__",
    } <= set(MODULES)


@pytest.mark.parametrize("entry", [*MODULES, "model_core.spec.protocol.wire", "serving.lifeline"])
def test_importing_the_robot_side_imports_nothing_heavy(entry: str) -> None:
    code = f"import sys, {entry}; print(*sorted({{m.partition('.')[0] for m in sys.modules}} & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
