"""Set-up takes Python 3.11 where the machine has it, else the newest of 3.12 and 3.13; `make test-pythons` counts what really ran.

The interpreters are programs that answer like one, because no machine has every combination.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FINDER = ROOT / "infra" / "local" / "find_python.sh"
SETUP = ROOT / "infra" / "local" / "setup.sh"
spec = importlib.util.spec_from_file_location("test_pythons", ROOT / "infra" / "local" / "test_pythons.py")
assert spec is not None
assert spec.loader is not None
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)

ANSWERS = 'if [ "$1" = -c ]; then echo "{version} $0"; fi'
SHIM = 'echo "pyenv: $0: command not found" >&2; exit 127'
NO_VENV = 'echo "{version} without venv: apt-get install python{version}-venv" >&2; exit 1'


@pytest.fixture
def machine(tmp_path):
    """Add interpreters to a machine that has none: machine("python3.12", ANSWERS, version="3.12")."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "head", "dirname", "date"):
        (folder / tool).symlink_to(next(path for path in (f"/bin/{tool}", f"/usr/bin/{tool}") if Path(path).exists()))

    def add(name: str, text: str, version: str = "") -> Path:
        path = tmp_path / name if "/" in name else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text.format(version=version)}\n")
        path.chmod(0o755)
        return path

    return add


def run(tmp_path: Path, script: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), **settings}
    return subprocess.run(["/bin/bash", str(script), *words], capture_output=True, text=True, env=environment, check=False, timeout=60)


@pytest.mark.parametrize(
    ("there", "taken"),
    [(("3.11", "3.12", "3.13"), "3.11"), (("3.12", "3.13"), "3.13"), (("3.12",), "3.12"), (("3.10", "3.13", "3.14"), "3.13")],
)
def test_the_preferred_version_is_taken(machine, tmp_path, there, taken):
    for version in there:
        machine(f"python{version}", ANSWERS, version)
    assert run(tmp_path, FINDER, "--first").stdout.strip() == str(tmp_path / "bin" / f"python{taken}")
    listed = [line.split()[0] for line in run(tmp_path, FINDER).stdout.splitlines()]
    assert sorted(listed) == [version for version in there if version in ("3.11", "3.12", "3.13")]


def test_a_shim_without_a_python_behind_it_is_passed_over(machine, tmp_path):
    machine("python3.11", SHIM)
    behind = machine(".pyenv/versions/3.12.4/bin/python3.12", ANSWERS, "3.12")
    assert run(tmp_path, FINDER, "--first").stdout.strip() == str(behind)
    looked = run(tmp_path, FINDER, "--looked").stdout
    assert f"3.11\t{tmp_path}/bin/python3.11\tdoes not start" in looked
    assert f"3.12\t{behind}\tfound" in looked


def test_a_name_that_is_another_version_and_a_python_without_venv_are_said(machine, tmp_path):
    machine("python3", ANSWERS, "3.10")
    machine("python3.12", NO_VENV, "3.12")
    done = run(tmp_path, FINDER, "--first")
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 with venv is needed, none was found" in done.stderr
    assert "apt-get install python3.12-venv" in done.stderr
    assert "is Python 3.10" in done.stderr
    assert "Fix: install one" in done.stderr


def test_set_up_refuses_a_version_that_is_not_supported_before_it_makes_anything(machine, tmp_path):
    old = machine("python3.10", 'if [ "$1" = -c ]; then exit 1; else echo Python 3.10.13; fi')
    done = run(tmp_path, SETUP, PYTHON=str(old), VENV=str(tmp_path / "made"))
    assert done.returncode == 1
    assert f"got PYTHON={old}: Python 3.10.13. Fix: name another: make setup PYTHON=" in done.stderr
    assert not (tmp_path / "made").exists()


def test_set_up_refuses_an_environment_of_another_version(machine, tmp_path):
    asked = machine("python3.13", 'case "$2" in *ensurepip*) exit 0;; esac; echo 3.13')
    machine("made/bin/python", "echo 3.11")
    done = run(tmp_path, SETUP, PYTHON=str(asked), VENV=str(tmp_path / "made"))
    assert done.returncode == 1
    assert f"holds Python 3.11, asked for was 3.13 ({asked}). Fix: rm -r {tmp_path / 'made'}" in done.stderr


def test_the_versions_that_are_looked_for_are_those_that_the_project_declares():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    looked_for = re.search(r'^VERSIONS="(.*)"$', FINDER.read_text(), flags=re.MULTILINE)
    assert looked_for is not None
    minors = sorted(int(version.split(".")[1]) for version in looked_for[1].split())
    assert declared == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_the_report_counts_what_passed_failed_and_was_skipped():
    report = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
      <testcase classname="tests.unit.test_a" name="test_good"/>
      <testcase classname="tests.unit.test_a" name="test_bad"><failure>no</failure></testcase>
      <testcase classname="tests.unit.test_b" name="test_torn[1]"><error>no</error></testcase>
      <testcase classname="tests.unit.test_b" name="test_not_here"><skipped/></testcase></testsuite></testsuites>"""
    assert runner.outcome(report) == {
        "passed": 1,
        "failed": 2,
        "skipped": 1,
        "failed_tests": ["tests.unit.test_a::test_bad", "tests.unit.test_b::test_torn[1]"],
    }


def test_a_run_that_was_interrupted_is_not_told_as_one_that_passed():
    part = {"found": True, "passed": 363, "failed": 0, "exit_code": 2}
    assert runner.summary(part) == "not complete: pytest ended with code 2, after 363 passed, 0 failed"
    assert runner.summary(part | {"exit_code": 0}) == "363 passed, 0 failed"
    assert "not on this machine" in runner.summary({"found": False})


def test_every_line_of_the_lock_is_compared_with_what_is_installed():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]
    assert [f"{name}=={version}" for name, version in runner.PIN.findall("\n".join(lines))] == lines
    assert runner.PIN.findall("uvloop==0.22.1 ; sys_platform != 'win32'\nzipp==4.1.2") == [("uvloop", "0.22.1"), ("zipp", "4.1.2")]
    assert os.fspath(runner.RESULT).endswith("benchmarks/results/pythons.json")
