"""Which module is the first to import a heavy library, found in one fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import importlib, sys
modules, heavy = sys.argv[1].split(","), sys.argv[2].split(",")
known = set(sys.modules)
for module in modules:
    importlib.import_module(module)
    for name in heavy:
        if name in sys.modules and name not in known:
            print(module, name)
            known.add(name)
"""


def heavy_imports(modules: Iterable[str], heavy: Iterable[str]) -> list[str]:
    """ "module library" for each library that one of the modules, imported in this order, is the first to import."""
    command = [sys.executable, "-c", _PROGRAM, ",".join(modules), ",".join(heavy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()
