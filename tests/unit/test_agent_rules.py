"""Which release an agent goes for, and what it may not take; and settings that are refused."""

from __future__ import annotations

import json

import pytest

from model_core.spec.errors import SpecError
from model_core.spec.fleet.documents import DesiredState
from serving.fleet.agent.agent_state import AgentState, SlotRecord, StateFile
from serving.fleet.agent.rules import check_agent, check_allowed, fallback_of, release_before, slot_for, target_of
from serving.fleet.agent.settings import read_settings
from serving.fleet.intake.problems import UpdateRefused

A, B, C = "a" * 64, "b" * 64, "c" * 64


def state(a: str = "probed", b: str = "probed", release: str = "", *, refused: dict[str, int] | None = None, **desired) -> AgentState:
    """Release A in slot a, B in slot b, in these states; the controller proposes `release` by revision 5."""
    slots = {"a": SlotRecord(state=a, release=A, number=1), "b": SlotRecord(state=b, release=B, number=2)}
    said = DesiredState(cell="c", revision=5, acknowledged_sequence=1, sent_at_s=0.0, release=release, **desired)
    return AgentState(slots=slots, desired=said, highest=2, refused=refused or {})


@pytest.mark.parametrize(
    ("now", "running", "target"),
    [
        (AgentState(), "", ""),
        (state(release=""), "a", ""),
        (state(release=A), "a", ""),
        (state(release=B), "a", B),
        (state(release=C), "a", C),
        (state(release=C), "", C),
        (state(release=C, refused={C: 5}), "a", ""),  # refused by this very proposal
        (state(release=C, refused={C: 4}), "a", C),  # proposed again
        (state(a="refused", release=A), "a", B),  # what runs is broken: the other slot, at once
        (state(a="refused", release=A, blocked=(B,)), "a", A),  # which is blocked: repair
        (state(a="refused", b="partial", release=A), "a", A),
        (state(a="refused", b="partial", release=C), "a", C),
        (state(a="refused", b="partial", release=A, refused={A: 5}), "a", ""),
    ],
)
def test_which_release_is_gone_for(now, running, target) -> None:
    assert target_of(now, running) == target


def test_a_release_goes_where_it_is_or_where_nothing_runs() -> None:
    assert slot_for(state(), B, "a") == "b"
    assert slot_for(state(), C, "a") == "b"
    assert slot_for(state(), C, "b") == "a"
    assert slot_for(AgentState(), C, "") == "a"
    assert fallback_of(state(b="verified"), "a") == B
    assert fallback_of(state(b="empty"), "a") == ""


@pytest.mark.parametrize(
    ("now", "shared", "first"),
    [
        (state(release=C, rollback_to=(A,)), {A}, A),
        (state(release=C, rollback_to=(A, "d" * 64)), {A, "d" * 64}, A),  # it is in the slot
        (state(release=C, rollback_to=("d" * 64,)), {A, "d" * 64}, "d" * 64),
        (state(release=C, rollback_to=(A,)), {A, B}, ""),  # not alone: the others are waited for
        (state(release=C, rollback_to=(A,)), set(), ""),
        (state(release=C), {A}, ""),  # older than what ran here
        (state(release=C, rollback_to=(A,), blocked=(A,)), {A}, ""),
        (state(release=C, rollback_to=(A,), refused={A: 5}), {A}, ""),
        (AgentState(), {A}, ""),
    ],
)
def test_a_cell_alone_on_a_service_goes_first_to_what_the_others_run(now, shared, first) -> None:
    assert release_before(now, "b", shared) == first


def test_a_newer_release_in_the_other_slot_needs_no_list() -> None:
    assert release_before(state(release=C), "a", {B}) == B
    assert release_before(state(release=C), "", {B}) == ""


def refusal(*arguments: object, **named: object) -> str:
    try:
        check_allowed(*arguments, **named)
    except UpdateRefused as error:
        return error.code
    return ""


def test_an_older_number_needs_the_list_and_a_blocked_one_never_passes() -> None:
    assert refusal(C, 3, state()) == ""
    assert refusal(B, 2, state()) == ""
    assert refusal(A, 1, state()) == "ROLLBACK"
    assert refusal(A, 1, state(rollback_to=(A,))) == ""
    assert refusal(A, 1, state(), is_fallback=True) == ""
    assert refusal(A, 1, state(rollback_to=(A,), blocked=(A,)), is_fallback=True) == "BLOCKED"


@pytest.mark.parametrize(
    ("minimum", "mine", "is_old"), [("0.1.0", "0.1.0", False), ("0.10", "0.9.9", True), ("1", "1.0.1", False), ("2", "1.9", True)]
)
def test_the_minimum_version_of_an_agent_counts_by_numbers(minimum, mine, is_old) -> None:
    if is_old:
        with pytest.raises(UpdateRefused, match="asks for agent"):
            check_agent(minimum, mine)
    else:
        check_agent(minimum, mine)


def test_numbers_of_reports_grow_over_restarts_and_cost_few_writes(tmp_path) -> None:
    path = tmp_path / "agent.json"
    first = StateFile(path)
    assert [first.next_sequence() for _ in range(3)] == [1, 2, 3]
    written = path.stat().st_mtime_ns
    first.next_sequence()
    assert path.stat().st_mtime_ns == written
    assert StateFile(path).next_sequence() > 4


def test_a_state_that_cannot_be_read_is_set_aside(tmp_path) -> None:
    path = tmp_path / "agent.json"
    StateFile(path).slot("a", SlotRecord(state="probed", release=A))
    assert StateFile(path).now.slot("a").release == A
    path.write_bytes(path.read_bytes()[:-5])
    assert StateFile(path).now == AgentState()
    assert (tmp_path / "agent.unreadable").exists()


GOOD = {"cell": "c-1", "site": "lab", "controller": "http://c", "repository": "http://r", "root": "1.root.json", "key": "k.pem"}
GOOD |= {"controller_key": "c.pub.pem", "release_key": "r.pub.pem"}


def test_paths_of_settings_are_relative_to_their_file(tmp_path) -> None:
    (tmp_path / "agent.json").write_text(json.dumps(GOOD))
    settings = read_settings(tmp_path / "agent.json")
    assert (settings.key, settings.home, settings.authorities) == (tmp_path / "k.pem", tmp_path / "agent", ())


@pytest.mark.parametrize(
    "change",
    [
        {"cell": "a/b"},
        {"cell": ""},
        {"site": "x" * 65},
        {"controller": "ftp://x"},
        {"release_key": None},
        {"authorities": ["a.pem"]},
        {"report_every_s": 0},
        {"report_every_s": "10"},
        {"ports": [3101, 3101]},
        {"ports": [0, 3101]},
        {"bytes_per_s": -1},
        {"service": ["python"]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_settings_that_are_wrong_are_refused_by_name(tmp_path, change) -> None:
    (tmp_path / "agent.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(SpecError, match=next(iter(change)).split("_")[0]):
        read_settings(tmp_path / "agent.json")
