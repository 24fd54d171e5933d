"""What each operation makes of its parents' episodes. Pure: rows and parameters in, pieces out; no image is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.data.editing.parameters import Labels, Merge, Outcome, Relabel, Select, Split, Trim
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from model_core.spec.documents import from_document
from model_core.spec.errors import DatasetError

Rows = Sequence[EpisodeIndexRow]
OUTCOMES: Mapping[Outcome, bool | None] = {"solved": True, "failed": False, "unknown": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An episode of the edited set: frames `first` to before `end` of episode `index` of parent `parent`, and what `row` states of it."""

    parent: int
    index: int
    first: int
    end: int
    row: EpisodeIndexRow


def pieces_of(operation: str, parameters: Mapping[str, Any], parents: Sequence[Rows]) -> tuple[Piece, ...]:
    """The episodes that an edit makes, in order and numbered from 0. Raises `DatasetError` for parameters that do not fit the parents."""
    if operation not in OPERATIONS:
        raise DatasetError(f"operation {operation!r}: expected one of {', '.join(OPERATIONS)}. Fix: correct the file of the edit")
    kind, apply = OPERATIONS[operation]
    if operation != "merge" and len(parents) != 1:
        raise DatasetError(f"{operation} has {len(parents)} parents, expected one. Fix: merge them first, and edit what that makes")
    made = apply(from_document(kind, dict(parameters), where=operation), parents)
    if not made:
        raise DatasetError(f"{operation} leaves no episode of {sum(len(rows) for rows in parents)}. Fix: widen what it keeps")
    return _numbered(made)


def chosen(row: EpisodeIndexRow, words: Sequence[str]) -> bool:
    """Whether one of the words names an episode: its number ("7"), a range of numbers without its end ("0:50", "50:"), or its id."""
    for word in words:
        first, colon, end = word.partition(":")
        if word == row.episode_id or (word.isdigit() and int(word) == row.index):
            return True
        is_range = bool(colon) and all(not part or part.isdigit() for part in (first, end))
        if is_range and int(first or 0) <= row.index < (int(end) if end else row.index + 1):
            return True
    return False


def _select(given: Select, parents: Sequence[Rows]) -> list[Piece]:
    rows = parents[0]
    for word in given.episodes:
        if not any(chosen(row, (word,)) for row in rows):
            raise DatasetError(f"select: no episode is {word!r}; the set has episodes 0 to {len(rows) - 1}. {_SHOW}")
    for task in given.tasks:
        if not any(task in (row.task, row.instruction) for row in rows):
            raise DatasetError(f"select: no episode has the task {task!r}. {_SHOW}")
    return [_whole(row) for row in rows if _fulfils(row, given) != given.leave_out]


def _fulfils(row: EpisodeIndexRow, given: Select) -> bool:
    return (
        (not given.episodes or chosen(row, given.episodes))
        and (not given.tasks or row.task in given.tasks or row.instruction in given.tasks)
        and (not given.outcome or row.success is OUTCOMES[given.outcome])
        and row.length >= given.min_frames
        and (not given.max_frames or row.length <= given.max_frames)
    )


def _split(given: Split, parents: Sequence[Rows]) -> list[Piece]:
    rows = parents[0]
    groups: dict[str, list[EpisodeIndexRow]] = {}
    for row in rows:
        groups.setdefault(_group(row, given.by), []).append(row)
    if len(groups) < len(given.shares):
        raise DatasetError(
            f"split: {len(groups)} groups by {given.by} cannot be divided into {len(given.shares)} parts. Fix: divide by episode"
        )
    ordered = sorted(groups, key=lambda name: hashlib.sha256(f"{given.seed}\0{name}".encode()).hexdigest())
    ends, reached = [], 0.0
    for share in given.shares.values():
        reached += share
        ends.append(reached * len(rows))
    part_of: dict[str, str] = {}
    before = 0
    for name in ordered:
        middle = before + len(groups[name]) / 2  # a group is of the part in which its middle lies
        part_of[name] = list(given.shares)[next(i for i, end in enumerate(ends) if middle < end or i == len(ends) - 1)]
        before += len(groups[name])
    return [_whole(row) for row in rows if part_of[_group(row, given.by)] == given.part]


def _group(row: EpisodeIndexRow, by: str) -> str:
    return {"episode": row.episode_id, "task": row.task, "cell": row.provenance.cell, "producer": row.provenance.producer}[by]


def _trim(given: Trim, parents: Sequence[Rows]) -> list[Piece]:
    rows = parents[0]
    _refuse_unknown("trim", given.keep, rows)
    made: list[Piece] = []
    for row in rows:
        first, end = given.keep.get(row.episode_id, (given.head, row.length - given.tail))
        if not 0 <= first < end <= row.length:
            raise DatasetError(
                f"trim: episode {row.episode_id} has {row.length} frames, frames {first} to before {end} cannot be kept. "
                "Fix: cut less, or leave the episode out with `actwright data select`"
            )
        made.append(Piece(parent=0, index=row.index, first=first, end=end, row=replace(row, length=end - first)))
    return made


def _relabel(given: Relabel, parents: Sequence[Rows]) -> list[Piece]:
    rows = parents[0]
    _refuse_unknown("relabel", given.episodes, rows)
    for sentence in given.instructions:
        if not any(row.instruction == sentence for row in rows):
            raise DatasetError(f"relabel: no episode has the instruction {sentence!r}. {_SHOW}")
    return [replace(_whole(row), row=_labelled(row, given)) for row in rows]


def _labelled(row: EpisodeIndexRow, given: Relabel) -> EpisodeIndexRow:
    mine = given.episodes.get(row.episode_id, Labels())
    instruction = mine.instruction if mine.instruction is not None else given.instructions.get(row.instruction, row.instruction)
    # a set without names of tasks has its sentences there
    named = instruction if row.task == row.instruction else row.task
    success = row.success if mine.outcome is None else OUTCOMES[mine.outcome]
    return replace(row, instruction=instruction, task=mine.task if mine.task is not None else named, success=success)


def _merge(given: Merge, parents: Sequence[Rows]) -> list[Piece]:
    made: list[Piece] = []
    for parent, rows in enumerate(parents):
        for row in rows:
            place = f"{parent}/{row.episode_id}"
            if place not in given.once:
                named = replace(row, episode_id=given.renamed.get(place, row.episode_id))
                made.append(Piece(parent=parent, index=row.index, first=0, end=row.length, row=named))
    return made


def _whole(row: EpisodeIndexRow) -> Piece:
    return Piece(parent=0, index=row.index, first=0, end=row.length, row=row)


def _numbered(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    made: list[Piece] = []
    ids: set[str] = set()
    start = 0
    for index, piece in enumerate(pieces):
        if piece.row.episode_id in ids:
            raise DatasetError(
                f"two episodes are named {piece.row.episode_id}; one of them could not be told from the other. Fix: rename one"
            )
        ids.add(piece.row.episode_id)
        made.append(replace(piece, row=replace(piece.row, index=index, number=index, start=start)))
        start += piece.row.length
    return tuple(made)


def _refuse_unknown(operation: str, ids: Mapping[str, Any], rows: Rows) -> None:
    if unknown := sorted(ids.keys() - {row.episode_id for row in rows}):
        raise DatasetError(f"{operation}: no episode is named {unknown[0]!r}. {_SHOW}")


_SHOW = "Fix: `actwright data show` lists episodes and tasks"
OPERATIONS: Mapping[str, tuple[Any, Callable[[Any, Sequence[Rows]], list[Piece]]]] = {
    "select": (Select, _select),
    "split": (Split, _split),
    "trim": (Trim, _trim),
    "relabel": (Relabel, _relabel),
    "merge": (Merge, _merge),
}
