"""What happens next in a rollout, as a pure function of plan, state, evidence and what is around it: `advance`, at each look.

Rolled back by itself: a guard that was exceeded, evidence that the new release is worse, distances in shadow above their limits, a kill
switch on the release. Paused by itself: a stage over its time, a proof that its episodes did not decide, cells that refuse the release, a
candidate in shadow that refuses what the running release answers. A stage is left when it has its minimum of episodes, its proof as the
evidence stands then, and the approvals of the next. Tests look at the evidence of the whole rollout, for it adds up over stages; the
minimum is of the stage alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from model_core.spec.fleet.rollout_plan import MOST_REFUSED, REFUSED, RolloutPlan, Stage
from model_core.statistics.safety import exceeds_at_any_look
from serving.fleet.controller.rollout.cohorts import CellView, members_of
from serving.fleet.controller.rollout.evidence import Evidence, exceeded_guards, in_words, is_shown, was_shown
from serving.fleet.controller.rollout.state import RolloutState, Status, stage_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a look sees beside the evidence. killed: why the release may not run, "" where it may. frozen: no rollout goes on; one that has
    to is rolled back all the same. salt: of this rollout, for its cohorts."""

    cells: Sequence[CellView]
    now_s: float
    salt: str
    killed: str = ""
    frozen: bool = False


def advance(plan: RolloutPlan, state: RolloutState, evidence: Evidence, around: Surroundings) -> RolloutState:
    """The state after a look; the same state where nothing changed."""
    if not state.status.is_open:
        return state
    if against := reason_to_roll_back(plan, state, evidence, around):
        return replace(state, status=Status.ROLLED_BACK, reason=against, stage_since_s=around.now_s)
    if state.status is Status.PAUSED or around.frozen:
        return state
    if waits := reason_to_pause(plan, state, evidence, around):
        return replace(state, status=Status.PAUSED, reason=waits)
    if still_missing(plan, state, evidence):
        return _with_members(plan, state, around)
    return next_stage(plan, state, evidence, around)


def reason_to_roll_back(plan: RolloutPlan, state: RolloutState, evidence: Evidence, around: Surroundings) -> str:
    """Why the old version must come back; "" where nothing speaks for it."""
    if around.killed:
        return f"kill switch: {around.killed}"
    if guards := exceeded_guards(plan, evidence):
        return "; ".join(guards)
    if was_shown(evidence.worse, plan.rollback_alpha):
        return f"shown to be worse at alpha {plan.rollback_alpha:g}: {in_words(evidence)}"
    stage = stage_of(plan, state)
    if stage is None or not stage.shadow or evidence.decisions - state.decisions_before < stage.minimum_decisions:
        return ""
    means = [(name, evidence.distances[name], limit) for name, limit in stage.distances.items() if name in evidence.distances]
    far = [f"{name} {mean:.3g}, allowed {limit:.3g}" for name, mean, limit in means if mean > limit]
    return f"in shadow: {'; '.join(far)}" if far else ""


def reason_to_pause(plan: RolloutPlan, state: RolloutState, evidence: Evidence, around: Surroundings) -> str:
    """Why a person has to look; "" where nothing speaks for it."""
    members = {*state.members, *state.shadows}
    refusing = [cell for cell in around.cells if cell.name in members and cell.refused]
    if len(refusing) > plan.refusing_cells:
        return f"{len(refusing)} cells refuse the release: {refusing[0].name}: {refusing[0].refused}"[:600]
    stage = stage_of(plan, state)
    if stage is None:
        return ""
    if stage.shadow and (refuses := _refuses(plan, stage, evidence)):
        return refuses
    missing = _missing_of(stage, state, evidence)
    if missing and around.now_s - state.stage_since_s > stage.maximum_hours * 3_600.0:
        return f"stage {stage.name} is over its {stage.maximum_hours:g} hours and misses {' and '.join(missing)}"
    proof = stage.proof
    if proof and evidence.sides[0].trials >= proof.maximum_episodes and not is_shown(evidence.proofs[proof.margin], proof.alpha):
        return f"{proof.maximum_episodes} episodes did not decide whether it is not worse by {proof.margin:g}: {in_words(evidence)}"
    return ""


def _refuses(plan: RolloutPlan, stage: Stage, evidence: Evidence) -> str:
    """Whether the candidate was shown to refuse more than it may, of what the running release answers, in a test that holds over all looks:
    it is compared with nothing then, and the stage would wait for decisions until its hours are over."""
    limit, found = stage.distances.get(REFUSED, MOST_REFUSED), evidence.refusals
    if not exceeds_at_any_look(found.events, found.episodes, limit, plan.guard_confidence):
        return ""
    shown = f"at {plan.guard_confidence:.0%} more than {limit:.0%}"
    return f"in shadow the candidate refuses {found.events} of {found.episodes} observations that the running release answers, {shown}"


def still_missing(plan: RolloutPlan, state: RolloutState, evidence: Evidence) -> list[str]:
    """What the present stage waits for, in words; empty where it may be left."""
    stage = stage_of(plan, state)
    missing = _missing_of(stage, state, evidence) if stage else []
    lacking = approvals_missing(plan, state)
    return [*missing, lacking] if lacking else missing


def approvals_missing(plan: RolloutPlan, state: RolloutState) -> str:
    """Which approvals the next stage still needs, in words; "" for none."""
    following = plan.stages[state.stage + 1] if state.stage + 1 < len(plan.stages) else None
    lacking = following.approvals - len(state.approved_by) if following else 0
    return f"{lacking} approvals of stage {following.name}" if following and lacking > 0 else ""


def _missing_of(stage: Stage, state: RolloutState, evidence: Evidence) -> list[str]:
    if stage.shadow:
        decisions = stage.minimum_decisions - (evidence.decisions - state.decisions_before)
        count = [f"{decisions} of {stage.minimum_decisions} decisions in shadow"] if decisions > 0 else []
        return [*count, *(f"the distance {name}" for name in stage.distances if name not in evidence.distances)]
    missing: list[str] = []
    episodes = stage.minimum_episodes - (evidence.finished - state.finished_before)
    if episodes > 0:
        missing.append(f"{episodes} of {stage.minimum_episodes} episodes")
    if stage.proof and not is_shown(evidence.proofs[stage.proof.margin], stage.proof.alpha):
        missing.append(f"the proof that it is not worse by {stage.proof.margin:g}")
    return missing


def next_stage(plan: RolloutPlan, state: RolloutState, evidence: Evidence, around: Surroundings) -> RolloutState:
    """The state in the stage that follows, or passed after the last."""
    number = state.stage + 1
    if number >= len(plan.stages):
        return replace(state, status=Status.PASSED, reason=f"every stage was passed: {in_words(evidence)}", stage_since_s=around.now_s)
    entered = replace(
        state,
        stage=number,
        stage_since_s=around.now_s,
        finished_before=evidence.finished,
        decisions_before=evidence.decisions,
        approved_by=(),
        reason=f"stage {plan.stages[number].name} began",
    )
    return _with_members(plan, entered, around)


def _with_members(plan: RolloutPlan, state: RolloutState, around: Surroundings) -> RolloutState:
    """The cells that the stage asks for, of those that are there now and whose site is offered the release. A stage of shadows moves none:
    those that run the new version go on, and its own are chosen among the others, to run what they ran before when it is over."""
    stage = stage_of(plan, state)
    members, shadows = state.members, state.shadows
    former = {*members, *shadows}
    able = [cell for cell in around.cells if cell.is_offered or cell.name in former]
    if stage and stage.shadow:
        others = [cell for cell in able if cell.name not in set(members)]
        shadows = members_of(stage, others, shadows, around.salt)
    elif stage:
        members, shadows = members_of(stage, able, members, around.salt), ()
    return state if (members, shadows) == (state.members, state.shadows) else replace(state, members=members, shadows=shadows)
