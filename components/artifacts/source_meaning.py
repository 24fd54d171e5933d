"""What a source file does: a digest of its syntax tree, and what it imports when it runs.

To parse every source that a stage can reach takes seconds. So what was read of a file is kept beside what Python compiled of it
(`__pycache__/NAME.cpython-311.meaning`), under the digest of the file's bytes and of this module's own: a changed file is read again, and
a kept one that is damaged counts as none. Where Python may write no compiled files, nothing is kept.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from model_core.spec.files import atomic_write


@dataclass(frozen=True, slots=True)
class Meaning:
    """digest: SHA-256 (hex, 64) of the syntax tree without comments, docstrings and layout; it depends on Python's minor version.

    imports: the absolute names of what the file imports, also inside functions and not for types alone; of `from a import b` both "a"
    and "a.b", since b may be a module.
    """

    digest: str
    imports: tuple[str, ...]


@cache
def meaning_of(path: Path, inside: str) -> Meaning:
    """What a source file does. inside: the package that the file is in, from which `from . import x` counts."""
    source = path.read_bytes()
    stamp = hashlib.sha256(b"\0".join((_own_source(), inside.encode(), source))).hexdigest()
    place = Path(cache_from_source(str(path))).with_suffix(".meaning")
    kept = _kept(place, stamp)
    if kept is not None:
        return kept
    meaning = _parsed(source.decode("utf-8"), inside)
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # a folder that may not be written to: it is read again each time
            text = json.dumps({"stamp": stamp, "digest": meaning.digest, "imports": meaning.imports})
            atomic_write(place, text, durable=False)
    return meaning


@cache
def _own_source() -> bytes:
    return Path(__file__).read_bytes()


def _kept(place: Path, stamp: str) -> Meaning | None:
    """What was kept of the file with this stamp; None where nothing was, or of another content."""
    try:
        document = json.loads(place.read_bytes())
        if document["stamp"] != stamp:
            return None
        return Meaning(digest=document["digest"], imports=tuple(document["imports"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parsed(source: str, inside: str) -> Meaning:
    tree = ast.parse(source)
    imports: list[str] = []
    for node in _at_run_time(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, inside)
            imports += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            del body[0]
    return Meaning(
        digest=hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest(),
        imports=tuple(imports),
    )


def _origin(node: ast.ImportFrom, inside: str) -> str:
    """The module that names are imported from; each dot beyond the first is one package further up."""
    if node.level == 0:
        return node.module or ""
    above = inside.split(".")[: len(inside.split(".")) - (node.level - 1)]
    return ".".join((*above, *([node.module] if node.module else [])))


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without the bodies of ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_run_time(child)
