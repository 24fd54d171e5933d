"""Files, functions, parameter lists and folders stay small. The exceptions of exceptions.json may only shrink.

`--shrink` rewrites exceptions.json only. frozen/exceptions_baseline.json holds the exceptions that there were when the budgets were
introduced, and is never rewritten: an exception that is not in it, or is larger than there, is refused.
"""

from __future__ import annotations

import ast
import hashlib

import pytest

from tests.architecture.budgets import BASELINE, BUDGETS, ROOMS, ROOT, exceptions, functions, grown, over_budget, parameters, shrunk

BASELINE_SHA256 = "b4bc824162bb03902e3d8c6529bdf8f95e7f06e81fecad6e8e1fda6ac34ac192"
ADVICE = {
    "files": "split it by idea",
    "functions": "give its parts names",
    "parameters": "name the idea behind the parameters as a frozen dataclass",
    "folders": "group its files",
}

pytestmark = pytest.mark.xdist_group("sources")  # they are parsed once


@pytest.mark.parametrize("kind", BUDGETS)
def test_nothing_new_is_over_budget(kind):
    allowed = exceptions()[kind]
    new = {place: size for place, size in over_budget()[kind].items() if size > allowed.get(place, BUDGETS[kind])}
    assert not new, f"over the budget of {BUDGETS[kind]} ({kind}): {new}; {ADVICE[kind]}"


@pytest.mark.parametrize("kind", BUDGETS)
def test_the_exceptions_only_shrink(kind):
    allowed, now = exceptions()[kind], over_budget()[kind]
    needless = {place: size for place, size in allowed.items() if now.get(place, 0) < size}
    assert not needless, f"smaller than recorded: {needless}; run `.venv/bin/python -m tests.architecture.budgets --shrink`"


@pytest.mark.parametrize("kind", BUDGETS)
def test_no_exception_is_new_or_larger_than_in_the_baseline(kind):
    assert not (more := grown(exceptions(BASELINE)[kind], exceptions()[kind])), f"not an exception of the baseline: {more}; {ADVICE[kind]}"


def test_the_baseline_is_never_rewritten():
    assert hashlib.sha256(BASELINE.read_bytes()).hexdigest() == BASELINE_SHA256, f"{BASELINE.name} was changed; exceptions may only shrink"


def test_an_exception_cannot_be_swapped_or_raised():
    baseline = {"a.py": 300, "b.py": 300}
    assert grown(baseline, {"a.py": 300}) == {}
    assert grown(baseline, {"c.py": 251}) == {"c.py": 251}
    assert grown(baseline, {"a.py": 301, "b.py": 299}) == {"a.py": 301}


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
