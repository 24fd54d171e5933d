"""Set up an environment for every supported Python of this machine and run the unit and architecture tests with it.

Run: make test-pythons [WORKERS=2]      writes benchmarks/results/pythons.json

Needs nothing but the standard library, so any of the interpreters can run it. The environments lie in .actwright/pythons/VERSION and
hold the versions of requirements.lock; .venv serves for its own version. A version that the machine does not have is named in the report,
with the places that were looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".actwright" / "pythons"
RESULT = ROOT / "benchmarks" / "results" / "pythons.json"
FINDER = ROOT / "infra" / "local" / "find_python.sh"
SUITES = ("tests/unit", "tests/architecture")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)[ \t]*(?:;.*)?$", flags=re.MULTILINE)
VERSION_OF = "import sys; print('%d.%d' % sys.version_info[:2])"
INSTALLED = """import importlib.metadata as metadata, json
print(json.dumps({found.name.lower().replace('_', '-').replace('.', '-'): found.version for found in metadata.distributions()}))"""


def looked_at() -> dict[str, list[dict[str, str]]]:
    """The places of each supported version, and what came of each."""
    lines = subprocess.run(["bash", str(FINDER), "--looked"], capture_output=True, text=True, check=True).stdout.splitlines()
    places: dict[str, list[dict[str, str]]] = {}
    for version, place, outcome in (line.split("\t") for line in lines):
        places.setdefault(version, []).append({"place": place.replace(str(Path.home()), "~"), "outcome": outcome})
    return places


def interpreters() -> dict[str, str]:
    """Version to path, of those that the machine has."""
    lines = subprocess.run(["bash", str(FINDER)], capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def environment(version: str, interpreter: str) -> Path:
    """The folder of an environment with the versions of the lock; made or brought up to date by setup.sh."""
    here = ROOT / ".venv"
    if (here / ".ready").is_file() and _said(here / "bin" / "python", VERSION_OF) == version:
        return here
    folder = ENVIRONMENTS / version
    needs = [ROOT / "requirements.lock", ROOT / "pyproject.toml"]
    ready = folder / ".ready"
    if not ready.is_file() or any(ready.stat().st_mtime < path.stat().st_mtime for path in needs):
        settings = {**os.environ, "PYTHON": interpreter, "VENV": str(folder.relative_to(ROOT))}
        subprocess.run(["bash", str(ROOT / "infra" / "local" / "setup.sh")], env=settings, check=True)
    return folder


def off_the_lock(python: Path) -> dict[str, str]:
    """Packages whose installed version is not that of the lock: "name": "lock -> installed"."""
    installed = json.loads(_said(python, INSTALLED))
    pins = {name.lower().replace("_", "-").replace(".", "-"): pin for name, pin in PIN.findall((ROOT / "requirements.lock").read_text())}
    found = {name: installed.get(name, "missing").partition("+")[0] for name in pins}
    return {name: f"{pins[name]} -> {found[name]}" for name in sorted(pins) if found[name] != pins[name]}


def outcome(report: str) -> dict[str, Any]:
    """The counts and the failed tests of a JUnit report."""
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    counts = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for suite in suites
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return {"passed": passed, "failed": counts["failures"] + counts["errors"], "skipped": counts["skipped"], "failed_tests": failed}


def tested(version: str, interpreter: str, workers: int) -> dict[str, Any]:
    """One interpreter's part of the report."""
    began = time.monotonic()
    try:
        folder = environment(version, interpreter)
    except subprocess.CalledProcessError as error:
        return {"found": True, "set_up": False, "failed": 1, "message": f"setup.sh ended with code {error.returncode}"}
    set_up_s, python = time.monotonic() - began, folder / "bin" / "python"
    written = ENVIRONMENTS / f"{version}.xml"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadgroup", f"--junitxml={written}", *SUITES]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, check=False)
    counts = outcome(written.read_text(encoding="utf-8")) if written.is_file() else {"failed": 1, "message": "pytest wrote no report"}
    return {
        "found": True,
        "set_up": True,
        "version": _said(python, "import platform; print(platform.python_version())"),
        "torch": _said(python, "import torch; print(torch.__version__)"),
        "set_up_s": round(set_up_s),
        "tests_s": round(time.monotonic() - began),
        "exit_code": done.returncode,
        "not_as_in_the_lock": off_the_lock(python),
        **counts,
    }


def summary(part: dict[str, Any]) -> str:
    """One interpreter's part in a line. A run that pytest did not end by itself (codes 0 and 1) is named as not complete."""
    if not part["found"]:
        return "not on this machine; the report names the places that were looked at"
    text = f"{part.get('passed', 0)} passed, {part['failed']} failed"
    code = part.get("exit_code", 0)
    return text if code in (0, 1) else f"not complete: pytest ended with code {code}, after {text}"


def _said(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.strip()


def main() -> int:
    """Returns 0 when at least one interpreter was found and no test failed on any of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="one version alone, such as 3.12; the others keep their part of the report")
    args = parser.parse_args()
    places, found = looked_at(), interpreters()
    wanted = [args.only] if args.only else list(places)
    parts = {}
    for version in wanted:
        part = tested(version, found[version], args.workers) if version in found else {"found": False}
        parts[version] = {**part, "date": f"{datetime.now(UTC):%Y-%m-%d}", "looked_at": places.get(version, [])}
    kept = json.loads(RESULT.read_text()).get("pythons", {}) if args.only and RESULT.is_file() else {}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    RESULT.write_text(
        json.dumps({"machine": machine, "suites": SUITES, "pythons": dict(sorted({**kept, **parts}.items()))}, indent=1) + "\n"
    )
    for version, part in sorted(parts.items()):
        sys.stdout.write(f"Python {version}: {summary(part)}\n")
    sys.stdout.write(f"{RESULT.relative_to(ROOT)}\n")
    run = [part for part in parts.values() if part["found"]]
    return 0 if run and not any(part["failed"] or part.get("exit_code") for part in run) else 1


if __name__ == "__main__":
    raise SystemExit(main())
