"""Files, functions, parameter lists and folders stay small. The exceptions of exceptions.json may only shrink."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.budgets import BUDGETS, ROOMS, ROOT, exceptions, functions, over_budget, parameters, shrunk

MOST_EXCEPTIONS = {"files": 20, "functions": 0, "parameters": 15, "folders": 0}
ADVICE = {
    "files": "split it by idea",
    "functions": "give its parts names",
    "parameters": "name the idea behind the parameters as a frozen dataclass",
    "folders": "group its files",
}


@pytest.mark.parametrize("kind", BUDGETS)
def test_nothing_new_is_over_budget(kind):
    allowed = exceptions()[kind]
    new = {place: size for place, size in over_budget()[kind].items() if size > allowed.get(place, BUDGETS[kind])}
    assert not new, f"over the budget of {BUDGETS[kind]} ({kind}): {new}; {ADVICE[kind]}"


@pytest.mark.parametrize("kind", BUDGETS)
def test_the_exceptions_only_shrink(kind):
    allowed, now = exceptions()[kind], over_budget()[kind]
    assert len(allowed) <= MOST_EXCEPTIONS[kind]
    needless = {place: size for place, size in allowed.items() if now.get(place, 0) < size}
    assert not needless, f"smaller than recorded: {needless}; run `.venv/bin/python -m tests.architecture.budgets --shrink`"


def test_every_folder_says_in_one_sentence_what_lives_there():
    wrong = []
    for folder in sorted({path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}):
        first = folder / "__init__.py"
        text = ast.get_docstring(ast.parse(first.read_text(encoding="utf-8"))) if first.is_file() else None
        sentence = (text or "").split("\n\n")[0]
        if not sentence.endswith(".") or ". " in sentence:
            wrong.append(folder.relative_to(ROOT).as_posix())
    assert not wrong, f"the docstring of __init__.py must begin with one sentence, alone: {wrong}"


def test_functions_are_found_wherever_they_stand_and_self_is_not_counted():
    tree = ast.parse("class A:\n    def b(self, x, *, y):\n        async def c(): pass\nif True:\n    def d(a, b, /): pass\n")
    found = dict(functions(tree))
    assert list(found) == ["A.b", "A.b.c", "d"]
    assert [parameters(node) for node in found.values()] == [2, 0, 2]


def test_shrinking_adds_nothing_and_lets_nothing_grow():
    allowed = {"files": {"a.py": 300, "b.py": 300, "c.py": 300}}
    assert shrunk(allowed, {"files": {"a.py": 280, "b.py": 400, "d.py": 999}}) == {"files": {"a.py": 280, "b.py": 300}}
