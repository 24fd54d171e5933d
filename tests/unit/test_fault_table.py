"""Injected faults are found, and sound sets are left alone: a part of the table here, all of it by `make soak`."""

from __future__ import annotations

import json

import pytest

from tests.data_faults.clean_sets import KINDS
from tests.data_faults.faults import all_faults
from tests.data_faults.interface import blind_faults
from tests.data_faults.table import Row, beside_peers, blind_rows, false_alarms, rows_of, told_of_sound

# one of each family, of which three follow public reports
SHORT = (
    "episodes_are_counted_as_one",
    "a_gap_in_the_clock",
    "red_and_blue_are_exchanged",
    "an_action_is_no_number",
    "the_robot_mostly_stands",
)


def test_there_are_sixty_faults_and_twenty_follow_public_reports():
    faults = all_faults()
    assert len(faults) >= 60
    assert sum("#" in fault.report for fault in faults) >= 20
    assert all((fault.change is None) != (fault.damage is None) and fault.expected and set(fault.kinds) <= set(KINDS) for fault in faults)


def test_faults_of_each_family_are_found_and_a_sound_set_is_left_alone():
    assert told_of_sound("delta_arm") == set()
    rows = rows_of([fault for fault in all_faults() if fault.name in SHORT], ["delta_arm"])
    assert [row.fault for row in rows if not row.is_found] == []
    assert len(rows) == len(SHORT)


def test_what_only_another_tool_finds_is_listed(tmp_path):
    reported = {"a": {"doctor": ["WARN"]}, "b": {}, "c": {"audit": ["review"], "doctor": ["FAIL"]}}
    answers = {
        "versions": {"doctor": "1", "audit": "2"},
        "rows": [{"fault": name, "set": "arm", "reported": found} for name, found in reported.items()],
        "sound": {"arm": {"doctor": ["WARN"]}, "another": {}},
    }
    (tmp_path / "peers.json").write_text(json.dumps(answers))
    rows = [Row(fault=name, family="time", kind="arm", named=("rule",) if name == "b" else ()) for name in "abc"]
    made = beside_peers([*rows, Row(fault="a", family="time", kind="another")], tmp_path / "peers.json")
    assert made["recall"] == {"doctor": 0.6667, "audit": 0.3333}
    assert (made["faults_asked"], made["recall_of_ours"]) == (3, 0.3333)
    assert made["found_by_a_peer_and_not_by_us"] == {"a": ["doctor"], "c": ["audit", "doctor"]}
    assert made["found_by_us_alone"] == ["b"]
    assert made["by_origin"] == {"blind": {"faults": 3, "ours": 0.3333, "doctor": 0.6667, "audit": 0.3333}}
    assert (made["sound_sets"], made["sound_sets_reported"]) == (2, {"doctor": 1, "audit": 0})


@pytest.mark.soak
def test_the_whole_table():
    rows = rows_of(all_faults(), list(KINDS))
    lost = [(row.fault, row.kind, row.named) for row in rows if not row.is_found]
    assert len(lost) <= 0.05 * len(rows), lost
    alarms = false_alarms(list(KINDS), seeds=4)
    assert alarms["false"] <= 0.02 * alarms["verdicts"], alarms
    for row in blind_rows(blind_faults(), list(KINDS)):
        assert row.fault  # what they find is in the table, apart; no bound was promised for them
