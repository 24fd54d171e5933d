"""No module imports itself through others, counting imports inside functions and under TYPE_CHECKING too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.architecture.sources import nodes_of
from tests.architecture.test_rooms import ROOMS, ROOT

pytestmark = pytest.mark.xdist_group("sources")  # they are parsed once


def modules_of(root: Path, rooms: tuple[str, ...]) -> dict[str, Path]:
    """{module: file} of every Python file in the rooms; a package is named as such, without `__init__`."""
    files = (path for room in rooms for path in sorted((root / room).rglob("*.py")))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports_of(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The known modules that a file imports anywhere in it."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module for alias in node.names}
    return found & known.keys()


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module (Tarjan), each sorted; a module that names itself is no circle."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> Iterator[str]:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                yield other
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            part = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(part) > 1:
                found.append(sorted(part))

    for start in graph:
        if start in order:
            continue
        walks = [visit(start)]
        while walks:
            deeper = next(walks[-1], None)
            if deeper is None:
                walks.pop()
            else:
                walks.append(visit(deeper))
    return found


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path) -> None:
    room = tmp_path / "room"
    (room / "inner").mkdir(parents=True)
    (room / "a.py").write_text("from room import b\n")
    (room / "b.py").write_text("def late():\n    import room.inner.c\n")
    (room / "inner" / "__init__.py").write_text("")
    (room / "inner" / "c.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from room.a import thing\n")
    (room / "d.py").write_text("from room import a, b\n")
    known = modules_of(tmp_path, ("room",))
    assert circles({name: imports_of(path, known) for name, path in known.items()}) == [["room.a", "room.b", "room.inner.c"]]


def test_no_module_imports_itself_through_others() -> None:
    known = modules_of(ROOT, ROOMS)
    assert len(known) > 200
    assert circles({name: imports_of(path, known) for name, path in known.items()}) == []
