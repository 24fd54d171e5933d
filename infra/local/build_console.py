"""Build the console's pages: types from the API, a check of the types, the bundle. Needs node 20 and npm; users need neither.

    python infra/local/build_console.py          builds in build/console, from the lock file, and replaces flows/web/static

`built_from.json` in the result names the digest of the sources; a test compares it, so that what is committed is what was built.
`files.json` lists what a browser keeps for a page without connection.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "flows" / "web"
SOURCES, STATIC, OPENAPI = WEB / "console", WEB / "static", WEB / "openapi.json"
BUILD = ROOT / "build" / "console"
RECORD, FILES, WORKER = "built_from.json", "files.json", "worker.js"


def source_digest() -> str:
    """SHA-256 over the names and contents of the sources and of the API's document."""
    whole = hashlib.sha256()
    for path in sorted([*(one for one in SOURCES.rglob("*") if one.is_file() and "node_modules" not in one.parts), OPENAPI]):
        whole.update(f"{path.relative_to(WEB).as_posix()}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def main() -> int:
    """Build; returns npm's exit code where a step failed."""
    described = subprocess.run([sys.executable, "-m", "flows.web"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    OPENAPI.write_text(described, encoding="utf-8")
    BUILD.mkdir(parents=True, exist_ok=True)
    locked = BUILD / "package-lock.json"
    is_installed = (BUILD / "node_modules").is_dir() and locked.is_file() and locked.read_bytes() == (SOURCES / locked.name).read_bytes()
    for old in ("src", "public"):
        shutil.rmtree(BUILD / old, ignore_errors=True)
    shutil.copytree(SOURCES, BUILD, dirs_exist_ok=True)
    shutil.copy(OPENAPI, BUILD.parent / OPENAPI.name)
    steps = [["npm", "run", "--silent", name] for name in ("types", "check", "build")]
    for step in steps if is_installed else [["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], *steps]:
        code = subprocess.run(step, cwd=BUILD, check=False).returncode
        if code:
            return code
    (SOURCES / "src" / "api" / "schema.ts").write_bytes((BUILD / "src" / "api" / "schema.ts").read_bytes())
    shutil.rmtree(STATIC, ignore_errors=True)
    shutil.copytree(BUILD / "dist", STATIC)
    kept = [path for path in sorted(STATIC.rglob("*")) if path.suffix in (".js", ".css", ".svg") and path.name != WORKER]
    files = [f"/{path.relative_to(STATIC).as_posix()}" for path in kept]
    (STATIC / FILES).write_text(json.dumps(files) + "\n", encoding="utf-8")
    (STATIC / RECORD).write_text(json.dumps({"sources_sha256": source_digest()}) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
