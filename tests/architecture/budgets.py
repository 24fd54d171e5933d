"""Sizes of the product's files, functions, parameter lists and folders, as the budgets count them.

Run: .venv/bin/python -m tests.architecture.budgets             (prints what is over budget now)
     .venv/bin/python -m tests.architecture.budgets --shrink    (records smaller exceptions, and takes out those not needed any more)
"""

from __future__ import annotations

import ast
import json
import sys
from functools import cache
from pathlib import Path

from tests.architecture.sources import tree_of

ROOT = Path(__file__).parents[2]
ROOMS = ("model_core", "components", "flows", "serving")
EXCEPTIONS = Path(__file__).with_name("exceptions.json")
BASELINE = Path(__file__).with_name("frozen") / "exceptions_baseline.json"
BUDGETS = {"files": 250, "functions": 50, "parameters": 6, "folders": 12}


@cache
def over_budget() -> dict[str, dict[str, int]]:
    """What is over budget, by kind: place -> size. A function's place is its file and its qualified name."""
    found: dict[str, dict[str, int]] = {kind: {} for kind in BUDGETS}
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    for path in paths:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        found["files"][name] = len(text.splitlines())
        for function, node in functions(tree_of(path)):
            found["functions"][f"{name}:{function}"] = (node.end_lineno or node.lineno) - node.lineno + 1
            found["parameters"][f"{name}:{function}"] = parameters(node)
    for folder in {path.parent for path in paths}:
        found["folders"][folder.relative_to(ROOT).as_posix()] = sum(path.name != "__init__.py" for path in folder.glob("*.py"))
    return {kind: {place: size for place, size in sizes.items() if size > BUDGETS[kind]} for kind, sizes in found.items()}


def functions(tree: ast.AST, within: str = "") -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below, by its qualified name."""
    found = []
    for node in ast.iter_child_nodes(tree):
        name = f"{within}.{node.name}".lstrip(".") if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else within
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((name, node))
        found += functions(node, name)
    return found


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many values a caller may give; self and cls are not the caller's."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([one for one in given if one.arg not in ("self", "cls")])


def exceptions(file: Path = EXCEPTIONS) -> dict[str, dict[str, int]]:
    """The recorded exceptions, by kind: place -> recorded size."""
    return json.loads(file.read_text(encoding="utf-8"))


def grown(baseline: dict[str, int], allowed: dict[str, int]) -> dict[str, int]:
    """The exceptions of one kind that the baseline does not have, or has with a smaller size."""
    return {place: size for place, size in allowed.items() if size > baseline.get(place, 0)}


def shrunk(allowed: dict[str, dict[str, int]], now: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The exceptions with today's sizes where those are smaller; nothing is added and nothing grows."""
    return {
        kind: {place: min(size, now[kind][place]) for place, size in sizes.items() if place in now[kind]} for kind, sizes in allowed.items()
    }


if __name__ == "__main__":
    if "--shrink" in sys.argv[1:]:
        EXCEPTIONS.write_text(json.dumps(shrunk(exceptions(), over_budget()), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(over_budget(), indent=1, sort_keys=True) + "\n")
