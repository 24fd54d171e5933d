"""Versions of code: what it does counts, how it looks does not, and everything a stage can reach is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import code_version as cv
from components.config.records import STAGES
from flows.pipeline.stages import MODULES, PACKAGES
from model_core.spec.errors import SpecError

SOURCE = '"""Doc."""\n\nimport components.alpha\n\n\ndef f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # why\n'


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    monkeypatch.setattr(cv, "REPOSITORY", tmp_path)
    for name in ("alpha", "beta", "hidden"):
        (tmp_path / "components").mkdir(exist_ok=True)
        (tmp_path / "components" / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "components" / "main.py").write_text(SOURCE)

    def version() -> str:
        for cached in (cv.code_version, cv._read, cv._path):
            cached.cache_clear()
        return cv.code_version(("components.main",))

    yield tmp_path / "components", version
    for cached in (cv.code_version, cv._read, cv._path):
        cached.cache_clear()


def test_comments_docstrings_and_layout_do_not_count(rooms):
    folder, version = rooms
    before = version()
    (folder / "main.py").write_text(SOURCE.replace("# why", "# because").replace("Twice", "Double").replace("2 * x", "2*x"))
    assert version() == before


@pytest.mark.parametrize(("old", "new"), [("2 * x", "3 * x"), ("def f", "def g"), ("import components.alpha", "import components.beta")])
def test_meaning_counts(rooms, old, new):
    folder, version = rooms
    before = version()
    (folder / "main.py").write_text(SOURCE.replace(old, new))
    assert version() != before


def test_an_import_inside_a_function_is_followed_and_one_for_types_is_not(rooms):
    folder, version = rooms
    (folder / "alpha.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import components.hidden\ndef f():\n    import components.beta\n"
    )
    before = version()
    (folder / "hidden.py").write_text("x = 2\n")
    assert version() == before
    (folder / "beta.py").write_text("x = 2\n")
    assert version() != before


def test_a_module_that_is_gone_is_told():
    with pytest.raises(SpecError, match=r"no module 'components\.nowhere'"):
        cv.reached(("components.nowhere",))


def test_every_stage_names_modules_that_exist_and_reach_what_matters():
    assert set(STAGES) <= set(MODULES)
    assert set(PACKAGES) <= set(MODULES)
    reach = {stage: cv.reached(modules) for stage, modules in MODULES.items()}
    assert "model_core.network.model" in reach["train"] & reach["evaluate"] & reach["package"]
    assert "model_core.training" in reach["train"]
    assert "model_core.spec.execution.guard" in reach["evaluate"] & reach["workcells"] & reach["package"]
    assert not {name for name in reach["collect"] if name.startswith(("model_core.network", "serving"))}
    assert Path(cv.REPOSITORY / "flows").is_dir()
