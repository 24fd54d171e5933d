"""Versions of code: what it does counts, how it looks does not, and everything a stage can reach is in."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import packages_distributions

import pytest
import yaml

from components.artifacts import code_version as cv
from components.artifacts.source_meaning import meaning_of
from components.config.judging.suite_stages import RECORDED, SUITE
from components.config.recipe import EvalConfig, Recipe
from components.config.stages import INGEST, JOIN, OPEN_LOOP, PAIRS, SOURCES, STAGES, stage_named
from flows.pipeline.stages.step import StepKey
from model_core.spec.errors import SpecError

SOURCE = '"""Doc."""\n\nimport components.alpha\n\n\ndef f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # why\n'


pytestmark = pytest.mark.xdist_group("sources")  # what is parsed is kept for all tests that parse it


@pytest.fixture
def fresh():
    """Forgets what this process read; what it kept beside the compiled files is found again."""

    def forget() -> None:
        for cached in (cv.code_version, cv._path, meaning_of):
            cached.cache_clear()

    yield forget
    forget()


@pytest.fixture
def rooms(tmp_path, monkeypatch, fresh):
    monkeypatch.setattr(cv, "REPOSITORY", tmp_path)
    for name in ("alpha", "beta", "hidden"):
        (tmp_path / "components").mkdir(exist_ok=True)
        (tmp_path / "components" / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "components" / "main.py").write_text(SOURCE)

    def version() -> str:
        fresh()
        return cv.code_version(("components.main",))

    return tmp_path / "components", version


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


@pytest.fixture
def plugin(tmp_path, monkeypatch, fresh):
    """A package outside the rooms, and the code version of the evaluation whose recipe names a suite of it."""
    package = tmp_path / "lab_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a cache key must import nothing')\n")
    (package / "suite.py").write_text("from lab_plugin import numbers\n\n\ndef open_suite(cfg, scenes):\n    return 1\n")
    (package / "numbers.py").write_text("x = 1\n")
    (package / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def version() -> str:
        fresh()
        recipe = Recipe(name="x", evaluate=EvalConfig(suite="lab_plugin.suite:open_suite"))
        return StepKey(stage=stage_named("evaluate"), recipe=recipe, inputs={}).code_version

    return package, version


@pytest.mark.parametrize("name", ["suite", "numbers"])
def test_the_code_of_a_plug_in_that_a_recipe_names_counts(plugin, name):
    package, version = plugin
    before = version()
    (package / "unrelated.py").write_text("x = 2\n")
    assert version() == before
    changed = (package / f"{name}.py").read_text().replace("1", "2")
    (package / f"{name}.py").write_text(changed)
    assert version() != before


@pytest.mark.parametrize("line", ["from . import numbers", "from .numbers import x", "from .parts import far", "from .parts.near import y"])
def test_what_a_plug_in_imports_by_dots_counts(plugin, line):
    package, version = plugin
    (package / "parts").mkdir()
    (package / "parts" / "__init__.py").write_text("")
    (package / "parts" / "far.py").write_text("from .. import numbers\n")
    (package / "parts" / "near.py").write_text("from ..numbers import x as y\n")
    (package / "suite.py").write_text(f"{line}\n")
    before = version()
    (package / "unrelated.py").write_text("x = 2\n")
    assert version() == before
    (package / "numbers.py").write_text("x = 2\n")
    assert version() != before, "a changed evaluation would be found finished in the store"


def test_a_plug_in_of_ours_is_followed_and_a_missing_one_is_told():
    config = {
        "simulator": "components.simulation.metaworld:MetaWorld",
        "depth": "truth",
        "tasks": ["a sentence: with words"],
        "instructions": {"a": "pick:cube"},
    }
    assert cv.named_modules(config) == ("components.simulation.metaworld",)
    with pytest.raises(SpecError, match=r"no module 'lab\.nowhere' for 'lab\.nowhere:Arm'"):
        cv.named_modules({"simulator": "lab.nowhere:Arm"})


def test_every_stage_names_modules_that_exist_and_reach_what_matters():
    reach = {stage.name: cv.reached(stage.modules) for stage in STAGES}
    assert "model_core.network.model" in reach["train"] & reach["evaluate"] & reach["package"]
    assert "model_core.training" in reach["train"]
    assert "model_core.spec.execution.guard" in reach["evaluate"] & reach["workcells"] & reach["package"]
    assert not {name for name in reach["collect"] if name.startswith(("model_core.network", "serving"))}


# distributions that a stage imports and that cannot change its result
NEVER_CHANGES_A_RESULT = {
    "huggingface_hub": "fetches a published checkpoint, whose revision the configuration names",
    "prometheus_client": "counts what a service does",
    "packaging": "compares version numbers in a check",
}


@pytest.mark.parametrize("stage", [*STAGES, INGEST, JOIN, SOURCES, OPEN_LOOP, PAIRS, SUITE, RECORDED], ids=lambda stage: stage.title)
def test_the_packages_of_a_stage_are_what_its_modules_import(stage):
    imported = {name for module in cv.reached(stage.modules) for name in distributions_of(module)} - set(NEVER_CHANGES_A_RESULT)
    assert len(stage.packages) == len(set(stage.packages))
    assert set(stage.packages) == imported, (
        f"the cache key of {stage.name} must hold the version of every library that its code imports; in components/config/stages.py, "
        f"missing: {sorted(imported - set(stage.packages))}, not imported any more: {sorted(set(stage.packages) - imported)}"
    )


def test_every_exempt_package_is_imported_by_a_stage():
    imported = {name for stage in (*STAGES, INGEST) for module in cv.reached(stage.modules) for name in distributions_of(module)}
    assert set(NEVER_CHANGES_A_RESULT) <= imported


def test_dvc_runs_the_data_stages_with_the_sections_that_decide_them():
    document = yaml.safe_load((cv.REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
    listed = {name: tuple(stage["params"][0]["data/recipe.json"]) for name, stage in document["stages"].items()}
    assert listed == {stage.name: stage.config + stage.input_config for stage in STAGES if stage.is_data}


@cache
def distributions_of(module: str) -> frozenset[str]:
    """The installed distributions that a module of ours imports, also inside functions; not the standard library, not for types."""
    found = {name.partition(".")[0] for name in cv.meaning(module).imports}
    outside = found - set(sys.stdlib_module_names) - set(cv.ROOMS)
    return frozenset(_distribution_of(name) for name in outside)


@cache
def _distribution_of(name: str) -> str:
    """The distribution of a top-level import name; raises for one that is not installed, for then its version is unknown."""
    owners = sorted(set(_owners()[name]) - {"ruamel.yaml.clib"})  # shares its top-level name with the one that is imported
    assert len(owners) == 1, f"{name} belongs to {owners}"
    return owners[0]


_owners = cache(packages_distributions)
