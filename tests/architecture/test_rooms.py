"""The import rules: which room may import which, one file per outside system, and commands that answer at once."""

from __future__ import annotations

import ast
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.loaded import heavy_imports
from tests.architecture.sources import nodes_of, tree_of

pytestmark = pytest.mark.xdist_group("sources")
ROOT = Path(__file__).parents[2]
ROOMS = ("model_core", "components", "flows", "serving")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# outside system -> the only files, or folders, that import it. Exact: every entry does, and nothing else does
ONE_PLACE = {
    "mlflow": ("components/adapters/mlflow/",),
    "kubernetes": ("components/adapters/kubernetes.py",),
    "deepspeed": ("components/training/deepspeed_engine.py",),
    "minio": ("components/adapters/storage/s3.py", "components/adapters/storage/seaweedfs.py"),
    "great_expectations": ("components/adapters/great_expectations.py",),
    "prefect": (
        "flows/pipeline/loop.py",
        "flows/pipeline/retrain.py",
        "flows/pipeline/rollouts/flow.py",
        "flows/commands/operations/schedule.py",
        "flows/pipeline/rollouts/flow.py",
        "flows/platform/prefect_server.py",
    ),
    "typer": ("flows/commands/",),
    "rich": ("flows/commands/bench/", "flows/pipeline/run_summary.py", "flows/terminal/"),
    "ray": ("components/data/labelling/on_ray/driver.py",),
    "httpx": ("components/adapters/http.py",),
    "jinja2": ("components/report/page.py",),
    "filelock": ("components/artifacts/locks.py",),
    "msgspec": (
        "model_core/spec/documents.py",
        "model_core/spec/fleet/",
        "model_core/spec/live/",
        "flows/web/http/",
        "serving/cell_files/finished_episodes.py",
        "serving/fleet/agent/",
    ),
    "av": ("components/data/lerobot/video.py", "components/data/lerobot/pictures.py"),
    "pydantic": ("flows/platform/settings.py",),
    "pydantic_settings": ("flows/platform/settings.py",),
    "metaworld": (
        "components/simulation/metaworld.py",
        "components/simulation/benchmarks/metaworld_states.py",
        "components/simulation/two_buttons_scene.py",
    ),
    "mujoco": ("components/simulation/mujoco_renderer.py",),
    "bentoml": ("serving/gateway/service.py",),
    "matplotlib": ("components/evaluation/decoding/time_plot.py",),
    "scipy": ("components/evaluation/intervals.py", "components/data/failures/grouping.py"),
    "mcap": (
        "components/data/sources/mcap/log_file.py",
        "model_core/spec/audit/reading.py",
        "serving/workcell/audit/mcap_writer.py",
        "serving/workcell/audit/retention.py",
    ),
    "prometheus_client": (
        "components/deployment/quality/gauges.py",
        "serving/gateway/app.py",
        "serving/gateway/operations/metrics.py",
        "serving/fleet/controller/metrics.py",
    ),
}
ENVIRONMENT = ("flows/platform/settings.py", "flows/platform/child_process.py")
ENTRY_POINTS = (
    "serving/",
    "components/training/rank_process.py",
    "components/simulation/",
    "components/adapters/dvc.py",
    "components/data/labelling/on_ray/driver.py",
)
FORBIDDEN_NAMES = ("utils", "helpers", "manager", "handler", "misc", "common", "base")


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree, without the bodies of ``if TYPE_CHECKING``."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            waiting += [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]


@cache
def imports(path: Path) -> frozenset[str]:
    """Top-level names of every module that the file imports, also inside functions and by name; not under TYPE_CHECKING."""
    found: set[str] = set()
    for node in at_run_time(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and "import_module" in (getattr(node.func, "attr", ""), getattr(node.func, "id", "")):
            found |= {given.value.split(".")[0] for given in node.args if isinstance(given, ast.Constant) and isinstance(given.value, str)}
    return frozenset(found)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_import_contracts_hold():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(program), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


@pytest.mark.parametrize("system", ONE_PLACE)
def test_one_place_per_outside_system(system):
    importers = {named(path) for path in FILES if system in imports(path)}
    strangers = {name for name in importers if not name.startswith(ONE_PLACE[system])}
    assert not strangers, f"{system} is imported by {sorted(strangers)}; only {ONE_PLACE[system]} may"
    needless = [place for place in ONE_PLACE[system] if not any(name.startswith(place) for name in importers)]
    assert not needless, f"{needless} may import {system} and does not: take it out of ONE_PLACE"


def test_the_import_finder_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kubernetes\ndef f():\n    import mlflow.client\n")
    with file.open("a") as more:
        more.write("    importlib.import_module('prefect.flows')\n")
    assert imports(file) == {"typing", "mlflow", "prefect"}


def test_the_environment_is_read_in_one_place():
    readers = set()
    for path in FILES:
        if any(isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv") and ast.unparse(n.value) == "os" for n in nodes_of(path)):
            readers.add(named(path))
    strangers = {name for name in readers if name not in ENVIRONMENT and not name.startswith(ENTRY_POINTS)}
    # a child's environment is built from ours: reading it whole to pass it on is not configuration
    passing_on = {name for name in strangers if "**os.environ" in (ROOT / name).read_text() and "environ[" not in (ROOT / name).read_text()}
    assert not strangers - passing_on, f"{sorted(strangers - passing_on)} read the environment; flows/platform/settings.py does that"


def test_no_file_or_class_has_a_name_that_says_nothing():
    wrong = [named(path) for path in FILES if path.stem in FORBIDDEN_NAMES]
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef) and node.name.lower().endswith(("manager", "handler", "helper", "utils")):
                wrong.append(f"{named(path)}:{node.name}")
    assert not wrong


def test_every_module_says_what_it_is_for():
    silent = [named(p) for p in FILES if p.read_text().strip() and not ast.get_docstring(tree_of(p))]
    assert not silent


def test_light_modules_leave_heavy_libraries_alone():
    modules = [
        *("model_core.spec", "serving.workcell.control.realtime_cell", "serving.workcell.link.waiting_link"),
        *("flows.commands.main", "components.config.recipe"),
    ]
    heavy = [
        *("torch", "transformers", "bentoml", "mlflow", "deepspeed", "great_expectations"),
        *("kubernetes", "matplotlib", "prefect", "dvc"),
    ]
    assert heavy_imports(modules, heavy) == []


def test_help_answers_at_once():
    command = [sys.executable, "-c", "import sys; sys.argv = ['actwright', '--help']; from flows.commands.main import main; main()"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "actwright run" in done.stdout
    # processor time, not wall time: how busy the machine is says nothing about us
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_the_top_level_is_what_people_know():
    """A command that writes into the folder where it is run leaves a folder there, and that is committed unseen."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    command = [git, "-c", "safe.directory=*", "ls-files"]
    named = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = {name.partition("/")[0] for name in named if "/" in name and not name.startswith(".")}
    rooms = {"flows", "components", "infra", "model_core", "serving", "tests"}
    assert folders == rooms | {"benchmarks", "changelog.d", "docs", "findings", "typings"}
