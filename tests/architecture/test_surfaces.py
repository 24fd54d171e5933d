"""What users rely on changes only on purpose: command line options, wire messages, contract, public names of the spec, metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.architecture.surfaces import PROGRAMS, SURFACES, frozen
from tests.architecture.test_rooms import FILES, named


@pytest.mark.parametrize("name", SURFACES)
def test_a_frozen_surface_is_as_it_was(name):
    before, now = frozen(name), SURFACES[name]()
    assert now, f"the surface {name} is empty: it is not read right"
    assert now == before, (
        f"the surface {name} changed:\n" + "\n".join(differences(before, now)) + "\nUsers rely on it. If the change is intended: "
        "`make freeze-surfaces`, and commit tests/architecture/frozen with the change and a changelog fragment"
    )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Lines with - for what is gone and + for what is new."""
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old is None or new is None:
            lines.append(f"{'-' if new is None else '+'} {key}")
        else:
            lines += [f"- {key}: {entry}" for entry in old if entry not in new] + [f"+ {key}: {entry}" for entry in new if entry not in old]
    return lines


def test_a_change_is_told_by_name():
    before = {"actwright run": ["<recipe>", "--set"], "actwright old": []}
    assert differences(before, {"actwright run": ["<recipe>", "--change"]}) == [
        "- actwright old",
        "- actwright run: --set",
        "+ actwright run: --change",
    ]


def test_the_options_of_every_program_are_frozen():
    parsing = {
        named(path) for path in FILES if named(path).startswith("serving/") and "ArgumentParser(" in path.read_text(encoding="utf-8")
    }
    frozen_files = {f"{name.replace('.', '/')}{end}" for name in PROGRAMS for end in (".py", "/__main__.py")}
    assert parsing
    assert parsing <= frozen_files, f"{sorted(parsing - frozen_files)}: name the program in PROGRAMS of tests/architecture/surfaces.py"
    assert all(f"python -m {name}" in frozen("cli") for name in PROGRAMS)
