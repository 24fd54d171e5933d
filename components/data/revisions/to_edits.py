"""Revisions as edits of a data set: what a person stated becomes a new version by the same operations as every other edit.

left out -> select; kept frames -> trim; words and outcomes -> relabel; points and traces -> the lines of `annotate.corrections`, counted
from the first frame that is kept. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.data.editing.parameters import Labels, Relabel, Select, Trim
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.revisions.state import RevisedEpisode, points_in
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEdits:
    """steps: (operation, parameters), each of what the one before makes. corrections: lines of JSON. left_out: number of episodes."""

    steps: tuple[tuple[str, Select | Trim | Relabel], ...]
    corrections: tuple[str, ...]
    left_out: int


def planned_edits(rows: Sequence[EpisodeIndexRow], stated: Mapping[str, RevisedEpisode], *, only_included: bool) -> PlannedEdits:
    """What these revisions make of a set. only_included: keep what a person chose; else everything that was not left out.

    Raises `DatasetError` for revisions of an episode that the set does not have, or whose number of frames has changed since, and where
    nothing would be kept or nothing changed.
    """
    lengths = {row.episode_id: row.length for row in rows}
    _check_fit(lengths, stated)
    out = [row.episode_id for row in rows if not _is_kept(stated.get(row.episode_id), only_included=only_included)]
    if len(out) == len(rows):
        raise DatasetError("no episode would be kept. Fix: include at least one, or leave fewer out")
    kept = {name: one for name, one in stated.items() if name in lengths and name not in set(out)}
    trims = {name: one.trim for name, one in kept.items() if one.trim not in (None, (0, lengths[name]))}
    labels = {
        name: Labels(instruction=one.instruction, outcome=one.outcome)
        for name, one in kept.items()
        if one.instruction is not None or one.outcome is not None
    }
    steps: list[tuple[str, Select | Trim | Relabel]] = []
    if out:
        names = tuple(row.episode_id for row in rows if row.episode_id not in set(out))
        chosen = Select(episodes=names) if only_included else Select(episodes=tuple(out), leave_out=True)
        steps.append(("select", chosen))
    if trims:
        steps.append(("trim", Trim(keep={name: span for name, span in sorted(trims.items()) if span is not None})))
    if labels:
        steps.append(("relabel", Relabel(episodes=dict(sorted(labels.items())))))
    corrections = tuple(line for name, one in sorted(kept.items()) for line in _corrections(name, one))
    if not steps and not corrections:
        raise DatasetError("nothing was stated that changes the set, so its next version would be itself. Fix: revise an episode first")
    return PlannedEdits(steps=tuple(steps), corrections=corrections, left_out=len(out))


def _is_kept(one: RevisedEpisode | None, *, only_included: bool) -> bool:
    included = None if one is None else one.included
    return included is True if only_included else included is not False


def _check_fit(lengths: Mapping[str, int], stated: Mapping[str, RevisedEpisode]) -> None:
    for name, one in stated.items():
        if name not in lengths:
            raise DatasetError(f"{one.revisions[0].author} revised episode {name}, which the set does not have. {_FIX}")
        other = [revision for revision in one.revisions if revision.frames not in (0, lengths[name])]
        if other:
            raise DatasetError(
                f"episode {name} has {lengths[name]} frames; revision {other[0].number} by {other[0].author} was made of one of "
                f"{other[0].frames}. {_FIX}"
            )


def _corrections(name: str, one: RevisedEpisode) -> list[str]:
    """The lines of `components.data.annotators.corrections`, of frames that are kept."""
    first, end = one.trim or (0, 2**62)
    lines: list[str] = []
    for is_trace, frames in ((False, one.points), (True, one.traces)):
        for (camera, frame), revision in sorted(frames.items()):
            if first <= frame < end:
                points = [list(point) for point in points_in(revision)]
                what = {"trace": points} if is_trace else {"point": points[0] if points else None}
                line = {"episode": name, "camera": camera, "frame": frame - first, **what, "reviewer": revision.author, "at": revision.at}
                lines.append(json.dumps(line, ensure_ascii=False))
    return lines


_FIX = "Fix: undo the revision, or bring back the version of the set that was looked at"
