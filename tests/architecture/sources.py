"""The product's sources as their syntax trees: parsed once, and walked once, for all tests of a process that look through them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file; not to be changed."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of the parsed file, as `ast.walk` gives them."""
    return tuple(ast.walk(tree_of(path)))
