"""Time from a cut link to the hold, a few cuts; `benchmarks/link_cut.py` does a hundred and prints the distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.link_cut import measure
from tests.faults.real_cell import SLACK_S
from tests.faults.verdicts import covers


@covers("F4", I4="reset, half-open and silent: the driver sees a hold before the chunk in hand could have ended")
@pytest.mark.slow
def test_a_cut_link_is_held_within_the_life_of_a_chunk(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    found = measure(6, 2, tmp_path)
    times_ms = [ms for times in found.values() for ms in times]
    record_property("to_hold_ms", [round(ms) for ms in times_ms])
    assert len(times_ms) == 6
    assert max(times_ms) < 1e3 * (8 / 20.0 + 0.05 + SLACK_S)
