"""What became of the messages of a log, told: counts of every field of every episode as a document, and sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.data.sources.mcap.episodes import EpisodePlan
from components.data.sources.mcap.series import FileSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class Disorder:
    """Messages of one file whose time lay before that of an earlier one, and those that had the time of another."""

    out_of_order: int
    same_time: int

    @staticmethod
    def of(series: FileSeries) -> Disorder:
        """Over all its streams."""
        streams = series.streams.values()
        return Disorder(out_of_order=sum(one.out_of_order for one in streams), same_time=sum(one.same_time for one in streams))


def account_of(plans: Mapping[str, EpisodePlan], refused: Mapping[str, str], disorder: Mapping[str, Disorder]) -> dict[str, Any]:
    """By episode id: what was resampled, dropped and duplicated of each field, what was cut off, and why others were refused."""
    episodes = {
        episode_id: {
            "steps": len(plan),
            "trimmed_s": [round(part, 6) for part in plan.trimmed_s],
            "ended": plan.ended,
            "fields": {name: asdict(count) for name, count in plan.counts.items()},
        }
        for episode_id, plan in plans.items()
    }
    return {"episodes": episodes, "refused": dict(refused), "disorder": {file: asdict(one) for file, one in disorder.items()}}


def notes_of(
    source: str, plans: Mapping[str, EpisodePlan], refused: Mapping[str, str], disorder: Mapping[str, Disorder]
) -> tuple[str, ...]:
    """The account in sentences: totals of every field, then what a person must know of single episodes."""
    told = [f"{source}: episode {episode_id} is left out: {reason}" for episode_id, reason in refused.items()]
    steps = sum(len(plan) for plan in plans.values())
    for name in next(iter(plans.values())).counts if plans else ():
        counts = [plan.counts[name] for plan in plans.values()]
        told.append(
            f"{source}: {name}: {sum(c.exact for c in counts)} of {steps} steps have a message of their time, "
            f"{sum(c.resampled for c in counts)} were resampled, {sum(c.duplicated for c in counts)} repeat the one before; "
            f"{sum(c.dropped for c in counts)} of {sum(c.messages for c in counts)} messages are not used; "
            f"the worst gap is {max(c.worst_gap_s for c in counts):.4g} s"
        )
    told += [f"{source}: episode {episode_id} ends early: {plan.ended}" for episode_id, plan in plans.items() if plan.ended]
    cut_s = sum(sum(plan.trimmed_s) for plan in plans.values())
    if cut_s > 0:
        told.append(f"{source}: {cut_s:.3f} s at beginnings and ends of {len(plans)} episodes are cut off, where a topic was missing")
    if out_of_order := sum(one.out_of_order for one in disorder.values()):
        told.append(f"{source}: {out_of_order} messages had an earlier time than the one before and were sorted")
    if same_time := sum(one.same_time for one in disorder.values()):
        told.append(f"{source}: {same_time} messages had the time of another one, of which only the last is used")
    return tuple(told)
