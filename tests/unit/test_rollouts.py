"""Rollouts as pure functions: cohorts, evidence, stages, orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.fleet.rollout_plan import ProofRequired, RolloutPlan, Stage
from serving.fleet.controller.rollout.cohorts import CellView, members_of
from serving.fleet.controller.rollout.evidence import Block, GuardCount, Tally, before_evidence, closed_blocks, with_blocks
from serving.fleet.controller.rollout.machine import Surroundings, advance, still_missing
from serving.fleet.controller.rollout.orders import Order, carried_out
from serving.fleet.controller.rollout.state import RolloutState, Status, assignments

NEW, OLD = "a" * 64, "b" * 64
CELLS = [CellView(name=f"cell-{n:02}", site="lab", labels={"bench": "yes"} if n < 2 else {}) for n in range(20)]
PLAN = RolloutPlan(
    name="pick-4",
    release=NEW,
    stages=(
        Stage(name="bench", labels={"bench": "yes"}, minimum_episodes=4),
        Stage(name="shadow", share=0.2, shadow=True, minimum_decisions=100, distances={"action": 0.5}),
        Stage(name="one", cells=3, minimum_episodes=10, approvals=2, approvers=("ada", "bo", "cy")),
        Stage(name="fleet", share=1.0, hold_out=0.2, minimum_episodes=20, proof=ProofRequired(margin=0.2, maximum_episodes=400)),
    ),
    guards={"interventions": 0.1, "clips": 0.0},
)
AROUND = Surroundings(cells=CELLS, now_s=100.0, salt="1/pick-4")
BEGUN = RolloutState(started_at_s=0.0, stage_since_s=0.0)


def evidence(new=(0, 0), old=(0, 0), blocks=1, **more):
    block = Block(stratum="pick@lab", new=Tally(successes=new[0], trials=new[1]), old=Tally(successes=old[0], trials=old[1]))
    begun = before_evidence(PLAN)
    found = with_blocks(begun, [block] * blocks) if new[1] and old[1] else begun
    return replace(found, finished=new[1] * blocks, **more)


def test_a_plan_is_read_back_as_it_was_written_and_refuses_what_shows_nothing():
    assert from_document(RolloutPlan, to_document(PLAN)) == PLAN
    for wrong in (
        {"name": "s", "minimum_episodes": 1},
        {"name": "s", "cells": 1, "share": 0.5, "minimum_episodes": 1},
        {"name": "s", "cells": 1},
        {"name": "s", "cells": 1, "shadow": True, "minimum_episodes": 4},
        {"name": "s", "cells": 1, "minimum_episodes": 1, "approvals": 2, "approvers": ("ada", "ada")},
        {"name": "s", "cells": 1, "shadow": True, "minimum_decisions": 1, "distances": {"acton": 0.1}},
        {"name": "s", "cells": 1, "minimum_episodes": 1, "distances": {"action": 0.1}},
    ):
        with pytest.raises(SpecError, match="'s'"):
            Stage(**wrong)
    with pytest.raises(SpecError, match="digest"):
        replace(PLAN, release="pick/4")
    with pytest.raises(SpecError, match=r"guards.*speed"):
        replace(PLAN, guards={"speed": 0.1})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 1.0), st.floats(0.0, 0.5), st.integers(0, 9))
def test_cohorts_are_stable_and_leave_a_hold_out(count, share, hold_out, salt):
    cells = [CellView(name=f"c{n}") for n in range(count)]
    stage = Stage(name="s", share=share, hold_out=hold_out, minimum_episodes=1)
    members = members_of(stage, cells, (), str(salt))
    assert members == members_of(stage, list(reversed(cells)), (), str(salt))
    held = count - len(members)
    assert held >= min(1, count - 1)
    assert held >= hold_out * count - 1e-9 or count == 1
    wider = members_of(replace(stage, share=1.0), cells, members, str(salt))
    assert set(members) <= set(wider)
    joined = members_of(stage, [*cells, CellView(name="new")], members, str(salt))
    assert set(members) <= set(joined)
    assert len(joined) <= len(members) + 1 or share * (count + 1) > len(members) + 1


def test_a_rollout_goes_through_its_stages_to_every_cell():
    state = advance(PLAN, BEGUN, evidence(), AROUND)
    assert (state.stage, state.members) == (0, ("cell-00", "cell-01"))
    assert advance(PLAN, state, evidence((3, 3), (9, 9)), AROUND) == state
    state = advance(PLAN, state, evidence((4, 4), (9, 9)), AROUND)
    assert state.stage == 1
    told = assignments(PLAN, OLD, state, CELLS)
    assert {name for name, one in told.items() if one.shadow == NEW} == set(state.shadows)
    assert len(state.shadows) == 4
    assert {name for name, one in told.items() if one.release == NEW} == {"cell-00", "cell-01"}  # a shadow moves nothing

    enough = {"decisions": 100, "distances": {"action": 0.4}}
    assert "2 approvals of stage one" in still_missing(PLAN, state, evidence((4, 4), (9, 9), **enough))
    unmeasured = {"decisions": 100, "distances": {"trace": 1.0}}  # what nobody measured shows nothing
    assert "the distance action" in still_missing(PLAN, state, evidence((4, 4), (9, 9), **unmeasured))
    for by in ("ada", "cy"):
        state = carried_out(PLAN, state, evidence(), Order(kind="approve", by=by), AROUND)
    state = advance(PLAN, state, evidence((4, 4), (9, 9), **enough), AROUND)
    assert (state.stage, len(state.members), state.shadows, state.approved_by) == (2, 3, (), ())  # shadows are no canaries
    assert {name for name, one in assignments(PLAN, OLD, state, CELLS).items() if one.release == NEW} == set(state.members)

    state = advance(PLAN, state, evidence((14, 14), (9, 9), **enough), AROUND)
    assert (state.stage, len(state.members)) == (3, 16)
    state = advance(PLAN, state, evidence((16, 18), (18, 20), blocks=2), AROUND)
    assert state.status is Status.RUNNING  # episodes enough, no proof yet
    state = advance(PLAN, state, evidence((16, 18), (18, 20), blocks=12), AROUND)
    assert state.status is Status.PASSED
    assert {one.release for one in assignments(PLAN, OLD, state, CELLS).values()} == {NEW}  # the hold-out follows


def running(stage, members=("cell-00", "cell-05"), shadows=()):
    return replace(BEGUN, stage=stage, members=members, shadows=shadows)


@pytest.mark.parametrize(
    ("refused", "asked", "pauses"), [(0, 500, False), (4, 4, False), (12, 12, True), (40, 100, False), (90, 100, True)]
)
def test_a_candidate_that_refuses_what_the_other_answers_pauses_the_rollout_long_before_its_hours_are_over(refused, asked, pauses):
    found = replace(before_evidence(PLAN), refusals=GuardCount(events=refused, episodes=asked))
    state = advance(PLAN, running(1, shadows=("cell-07",)), found, AROUND)
    assert (state.status is Status.PAUSED) == pauses
    assert not pauses or f"refuses {refused} of {asked} observations" in state.reason
    assert advance(PLAN, running(2), found, AROUND).status is Status.RUNNING, "it says nothing of another stage"


def test_cells_in_shadow_are_counted_where_they_refuse_and_end_with_the_rollout():
    state = running(1, shadows=("cell-07", "cell-08"))
    refusing = [replace(cell, refused="PROBES: depth differs") if cell.name == "cell-08" else cell for cell in CELLS]
    paused = advance(PLAN, state, evidence(), replace(AROUND, cells=refusing))
    assert paused.status is Status.PAUSED
    assert "cell-08: PROBES" in paused.reason
    aborted = carried_out(PLAN, state, evidence(), Order(kind="abort", by="ada"), AROUND)
    assert {name: (one.release, one.shadow) for name, one in assignments(PLAN, OLD, aborted, CELLS).items()} == {
        "cell-07": (OLD, ""),
        "cell-08": (OLD, ""),
    }


@pytest.mark.parametrize(
    ("found", "around", "why"),
    [
        (evidence((2, 10), (90, 100), blocks=3), AROUND, "shown to be worse"),
        (evidence(guards={"interventions": GuardCount(events=8, episodes=20)}), AROUND, "guard interventions: 8 of 20"),
        (evidence(guards={"clips": GuardCount(events=1, episodes=500)}), AROUND, "guard clips"),
        (evidence(), replace(AROUND, killed="digest aaaa"), "kill switch"),
        (evidence(), replace(AROUND, killed="digest aaaa", frozen=True), "kill switch"),
        (evidence(decisions=100, distances={"action": 0.6}), AROUND, "action 0.6, allowed 0.5"),
    ],
)
def test_what_is_shown_against_a_release_brings_the_old_one_back_running_or_paused(found, around, why):
    for status in (Status.RUNNING, Status.PAUSED):
        state = advance(PLAN, replace(running(1), status=status), found, around)
        assert state.status is Status.ROLLED_BACK
        assert why in state.reason
        assert {one.release for one in assignments(PLAN, OLD, state, CELLS).values()} == {OLD}


def test_a_stage_is_left_on_the_evidence_of_now_and_a_rollback_on_what_was_ever_shown():
    good, bad = evidence((18, 18), (18, 20), blocks=3), evidence((2, 10), (90, 100), blocks=3)
    spoilt = Block(stratum="pick@lab", new=Tally(successes=6, trials=14), old=Tally(successes=13, trials=14))
    lost = with_blocks(good, [spoilt])
    proof = PLAN.stages[3].proof
    needed = np.log(1.0 / proof.alpha)
    assert lost.proofs[proof.margin].best >= needed > lost.proofs[proof.margin].log_e
    assert lost.worse.best < needed
    assert still_missing(PLAN, running(3), good) == []  # 54 episodes and the proof
    assert still_missing(PLAN, running(3), lost) == ["the proof that it is not worse by 0.2"]
    assert advance(PLAN, running(3), lost, AROUND).status is Status.RUNNING
    forgiven = with_blocks(bad, [Block(stratum="pick@lab", new=Tally(successes=60, trials=60), old=Tally(successes=30, trials=60))])
    assert forgiven.worse.best >= needed > forgiven.worse.log_e
    assert advance(PLAN, running(3), forgiven, AROUND).status is Status.ROLLED_BACK


def test_a_person_is_asked_where_the_episodes_decide_nothing():
    refusing = replace(CELLS[5], refused="PROBES: depth differs by 3 codes")
    state = advance(PLAN, running(2), evidence(), replace(AROUND, cells=[*CELLS[:5], refusing, *CELLS[6:]]))
    assert state.status is Status.PAUSED
    assert "PROBES" in state.reason
    outside = replace(CELLS[7], refused="DIGEST: other bytes")  # not a member
    assert advance(PLAN, running(2), evidence(), replace(AROUND, cells=[*CELLS[:7], outside])).status is Status.RUNNING

    late = replace(AROUND, now_s=168 * 3600 + 1)
    state = advance(PLAN, running(2), evidence(), late)
    assert "over its 168 hours and misses 10 of 10 episodes" in state.reason
    state = carried_out(PLAN, state, evidence(), Order(kind="resume", by="ada"), late)
    assert advance(PLAN, state, evidence(), late).status is Status.RUNNING

    narrow = replace(PLAN, stages=(*PLAN.stages[:3], replace(PLAN.stages[3], proof=ProofRequired(margin=0.01, maximum_episodes=100))))
    block = Block(stratum="pick@lab", new=Tally(successes=16, trials=20), old=Tally(successes=80, trials=100))
    undecided = replace(with_blocks(before_evidence(narrow), [block] * 5), finished=100)
    assert "100 episodes did not decide" in advance(narrow, running(3), undecided, AROUND).reason
    assert advance(narrow, running(3), undecided, replace(AROUND, frozen=True)).status is Status.RUNNING


def test_orders_fit_the_state_and_the_person():
    state = running(1)
    with pytest.raises(SpecError, match="may not approve"):
        carried_out(PLAN, state, evidence(), Order(kind="approve", by="dee"), AROUND)
    once = carried_out(PLAN, state, evidence(), Order(kind="approve", by="ada"), AROUND)
    with pytest.raises(SpecError, match="one person counts once"):
        carried_out(PLAN, once, evidence(), Order(kind="approve", by="ada"), AROUND)
    with pytest.raises(SpecError, match="only for a reason"):
        carried_out(PLAN, state, evidence(), Order(kind="skip", by="ada"), AROUND)
    with pytest.raises(SpecError, match="does not fit"):
        carried_out(PLAN, state, evidence(), Order(kind="resume", by="ada"), AROUND)
    paused = carried_out(PLAN, state, evidence(), Order(kind="pause", by="ada", reason="a look at cell 5"), AROUND)
    assert advance(PLAN, paused, evidence((4, 4), (9, 9)), AROUND) == paused
    skip = Order(kind="skip", by="ada", reason="seen on the bench")
    with pytest.raises(SpecError, match="lacks 2 approvals of stage one"):
        carried_out(PLAN, paused, evidence(), skip, AROUND)
    agreed = replace(paused, approved_by=("bo", "cy"))
    assert carried_out(PLAN, agreed, evidence(), skip, AROUND).stage == 2
    aborted = carried_out(PLAN, paused, evidence(), Order(kind="abort", by="ada"), AROUND)
    assert assignments(PLAN, OLD, aborted, CELLS) == {}
    with pytest.raises(SpecError, match="is over"):
        carried_out(PLAN, aborted, evidence(), Order(kind="pause", by="ada"), AROUND)
    back = carried_out(PLAN, aborted, evidence(), Order(kind="rollback", by="ada"), AROUND)
    assert {one.release for one in assignments(PLAN, OLD, back, CELLS).values()} == {OLD}


def test_blocks_need_both_sides_and_their_cut_does_not_depend_on_outcomes():
    one = Tally(successes=1, trials=2)
    pending = {"a@x": {"new": one}, "b@x": {"new": one, "old": Tally(successes=3, trials=9)}, "c@x": {"old": one}}
    assert [block.stratum for block in closed_blocks(pending)] == ["b@x"]
    found = with_blocks(before_evidence(PLAN), closed_blocks(pending))
    assert (found.sides[0].trials, found.sides[1].trials, found.blocks) == (2, 9, 1)


def test_simulated_rollouts_end_as_they_should():
    """The short form of `benchmarks/rollouts.py`."""
    from benchmarks.rollouts import rollout

    assert rollout(3, -0.5)["status"] is Status.ROLLED_BACK
    equal = rollout(4, 0.0)
    assert equal["status"] is Status.PASSED
    assert equal["episodes"] > 150


def test_random_orders_never_give_a_cell_anything_but_the_two_releases():
    rng = np.random.default_rng(5)
    kinds = ("pause", "resume", "abort", "rollback", "approve", "skip")
    for _ in range(25):
        state = BEGUN
        for step in range(30):
            successes, trials = int(rng.integers(0, 6)), 6
            found = evidence((successes, trials), (5, 6), blocks=int(rng.integers(1, 9)), decisions=int(rng.integers(0, 300)))
            around = replace(AROUND, now_s=100.0 * step, frozen=bool(rng.random() < 0.2), killed="x" if rng.random() < 0.01 else "")
            state = advance(PLAN, state, found, around)
            if rng.random() < 0.3:
                order = Order(kind=kinds[rng.integers(len(kinds))], by=("ada", "bo")[rng.integers(2)], reason="r")
                try:
                    state = carried_out(PLAN, state, found, order, around)
                except SpecError:
                    continue
            told = assignments(PLAN, OLD, state, CELLS)
            new = {name for name, one in told.items() if one.release == NEW}
            assert {one.release for one in told.values()} <= {NEW, OLD}
            if state.status.is_open:
                assert new <= set(state.members)
                assert len(new) < len(CELLS)
