"""Which code a result came from: a digest of what the source of some files *does*.

Comments, docstrings and layout do not count, so that tidying up does not retrain a model; the versions of the
libraries that change numbers do.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def code_version(paths: tuple[str, ...], packages: tuple[str, ...] = ()) -> str:
    """16 hex digits over these files and folders (from the root of the source tree) and the installed versions of `packages`."""
    total = hashlib.sha256()
    for path in sorted({file for name in paths for file in _sources(ROOT / name)}):
        total.update(f"{path.relative_to(ROOT).as_posix()} {_meaning(path)}\n".encode())
    for name in packages:
        total.update(f"{name} {_installed(name)}\n".encode())
    return total.hexdigest()[:16]


def _sources(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (p for p in path.rglob("*") if p.suffix in (".py", ".json", ".yaml") and "__pycache__" not in p.parts)


@cache
def _meaning(path: Path) -> str:
    """A digest of the file; of a Python file, of its syntax tree without docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tree = ast.parse(text)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                body[0].value.value = "" if isinstance(body[0].value.value, str) else body[0].value.value
        text = ast.dump(tree, annotate_fields=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "absent"
