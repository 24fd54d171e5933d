"""Run every public client against the service and write reports/conformance.json.

python -m tests.conformance.run [--only openpi] [--python python3.11]

The clients live in a virtual environment of their own (.actwright/conformance), because one of them pins an older numpy.
Each client script prints one JSON line per check: {"check", "passed", "detail"}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".actwright" / "conformance"
CLIENTS = Path(__file__).parent / "clients"
REPORT = ROOT / "reports" / "conformance.json"
PACKAGES = {
    "openpi": ("openpi-client==0.1.2",),
    "vla-eval": ("vla-eval==0.8.0",),
    "yam": ("inspect-robots==0.60.0", "inspect-robots-yam==0.37.0"),
}
SCRIPTS = {"openpi": "openpi_calls.py", "vla-eval": "vla_eval_calls.py", "yam": "yam_calls.py"}


def environment(python: str) -> Path:
    """The clients' interpreter; makes their environment when it is missing or of other versions."""
    wanted = "\n".join(package for group in PACKAGES.values() for package in group)
    stamp = HOME / ".packages"
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run([python, "-m", "venv", str(HOME)], check=True)
        subprocess.run([str(HOME / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *wanted.split()], check=True)
        stamp.write_text(wanted)
    return HOME / "bin" / "python"


@contextlib.contextmanager
def service(body: str) -> Iterator[str]:
    """The service with this body; gives "127.0.0.1:port" once it is ready."""
    command = [sys.executable, "-m", "tests.conformance.service", "--body", body]
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


def run_client(python: Path, name: str, address: str) -> list[dict[str, Any]]:
    """Every check of one client; a client that dies is a failed check with its last lines."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ACTWRIGHT"))}
    script = str(CLIENTS / SCRIPTS[name])
    done = subprocess.run([str(python), script, address], capture_output=True, text=True, timeout=300, check=False, env=settings)
    checks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        checks.append({"check": "the client runs to its end", "passed": False, "detail": done.stderr[-2000:]})
    return [{"client": name, "packages": list(PACKAGES[name]), **check} for check in checks]


def main() -> int:
    """Returns 0 when every check of every client passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(PACKAGES))
    parser.add_argument("--python", default="python3.11")
    args = parser.parse_args()
    python = environment(args.python)
    found: list[dict[str, Any]] = []
    for name in [args.only] if args.only else list(PACKAGES):
        with service(name) as address:
            found += run_client(python, name, address)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=1) + "\n")
    for check in found:
        print(f"{'ok    ' if check['passed'] else 'FAILED'} {check['client']:9} {check['check']}: {check['detail']}")  # noqa: T201
    passed = sum(check["passed"] for check in found)
    print(f"{passed} of {len(found)} checks passed; {REPORT.relative_to(ROOT)}")  # noqa: T201
    return 0 if found and passed == len(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
