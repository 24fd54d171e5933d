"""What users rely on changes only on purpose: command line options, wire messages, contract, public names of the spec, metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.architecture.surfaces import SURFACES, frozen


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
