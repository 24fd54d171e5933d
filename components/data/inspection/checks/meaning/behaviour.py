"""What an episode does: its outcome, its end, its movement beside that of its instruction, and standing still."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, Fault, Verdict, check, of_episodes
from components.data.inspection.measurements.median import median
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.sentences import plain


@check(
    "outcome_contradicts",
    severity=DEFECT,
    reason="whether it solved its task is said twice and differently",
    fix="correct or remove one of the two",
    source="jashshah999/lerobot-doctor#6",
)
def outcome_contradicts(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Places that say whether an episode solved its task agree, and say yes or no."""

    def judge(e: EpisodeMeasurements) -> str | None:
        said = e.meaning.outcomes
        if unclear := [place for place, value in said.items() if value < 0]:
            return f"{unclear[0]} holds something else than yes or no"
        return (
            ", ".join(f"{place} says {'solved' if v else 'not solved'}" for place, v in said.items()) if len(set(said.values())) > 1 else ""
        )

    return of_episodes(m, lambda e: judge(e) if e.meaning.outcomes else None, "nothing says whether episodes solved their task")


@check(
    "not_solved",
    severity=RISK,
    reason="a demonstration that failed teaches to fail, and its instruction is not what happened",
    fix="leave it out (`only_successful`), or label it as a failure",
    source="google-deepmind/open_x_embodiment#45",
)
def not_solved(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Episodes solved their task, where something says it."""

    def judge(e: EpisodeMeasurements) -> str | None:
        known = [v for v in e.meaning.outcomes.values() if v >= 0]
        return None if not known else "" if any(known) else "it is marked as not solved"

    return of_episodes(m, judge, "nothing says whether episodes solved their task")


@check(
    "end_misplaced",
    severity=RISK,
    reason="readers cut an episode where next.done is set",
    fix="set next.done on the last frame only",
    source="google-deepmind/open_x_embodiment#45",
)
def end_misplaced(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """next.done is set on the last frame, or nowhere."""
    known = any(e.meaning.ends for e in m.episodes)

    def judge(e: EpisodeMeasurements) -> str | None:
        early = [step for step in e.meaning.ends if step < e.frames - 1]
        return None if not known else f"next.done is set at frame {early[0]} of {e.frames}" if early else ""

    return of_episodes(m, judge, "no episode sets next.done")


@check(
    "instruction_against_motion",
    severity=RISK,
    reason="the movement is that of another instruction, so the sentence and the demonstration contradict each other",
    fix="look at the episode, and correct its task",
    source="unitreerobotics/unitree_lerobot#78",
)
def instruction_against_motion(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """An episode moves as the others of its instruction do, and not as those of another."""
    groups: dict[str, list[EpisodeMeasurements]] = {}
    widths = {len(e.meaning.move_D) for e in m.episodes}
    for e in m.episodes:
        groups.setdefault(plain(e.meaning.instruction), []).append(e)
    groups = {name: group for name, group in groups.items() if len(group) >= cfg.inspection.min_per_task}
    missing = f"there are less than two instructions with {cfg.inspection.min_per_task} episodes each"
    if len(groups) < 2 or len(widths) != 1 or widths == {0}:
        return Verdict(of=len(m.episodes), missing=missing)
    motions = {e: _motion(e) for e in m.episodes}
    scale = np.maximum(np.std(np.stack(list(motions.values())), axis=0), 1e-9)
    centres = {name: median([motions[e] for e in group], axis=0) / scale for name, group in groups.items()}
    faults: list[Fault] = []
    looked = 0
    for name, group in groups.items():
        looked += len(group)
        moved = np.stack([motions[e] for e in group]) / scale
        far_of = {other: np.abs(moved - centre).mean(axis=1).tolist() for other, centre in centres.items()}
        for place, e in enumerate(group):
            far = {other: values[place] for other, values in far_of.items()}
            near = min(far, key=lambda one: far[one])
            apart = float(np.abs(centres[near] - centres[name]).mean())
            if near != name and far[near] < 0.35 * far[name] and far[name] > 0.6 * apart and apart > 0.5:
                faults.append(Fault(where=e.episode_id, reason=f"it is asked to {name!r} and moves as the episodes of {near!r}"))
    return Verdict(faults=tuple(faults), looked_at=looked, of=len(m.episodes), missing=missing if looked < len(m.episodes) else "")


def _motion(e: EpisodeMeasurements) -> NDArray[np.float64]:
    """Where the state goes, from where: the last point of the path and the way to it."""
    return np.concatenate([e.meaning.path_16D[-1], e.meaning.move_D]) if len(e.meaning.path_16D) else np.zeros(2 * len(e.meaning.move_D))


@check(
    "idle",
    severity=DEFECT,
    reason="a policy that learns from standing still learns to wait",
    fix="trim the episode",
    source="openvla/openvla#139",
)
def idle(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """The robot stands still in at most a share of the steps."""
    return of_episodes(
        m, lambda e: f"it stands still in {e.meaning.idle:.0%} of the steps" if e.meaning.idle > cfg.max_idle_fraction else "", ""
    )


@check(
    "idle_padding",
    severity=RISK,
    reason="frames before the start and after the end teach to wait",
    fix="trim the episode (`actwright data trim`)",
    source="NVIDIA/Isaac-GR00T#137",
)
def idle_padding(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """Movement begins soon after the start and ends soon before the end."""

    def judge(e: EpisodeMeasurements) -> str:
        head, tail = e.meaning.still_head, e.meaning.still_tail
        limit = max(cfg.inspection.max_still * e.frames, 3)
        return f"{head} frames at the start and {tail} at the end of {e.frames} hold no movement" if max(head, tail) > limit else ""

    return of_episodes(m, judge, "")
