"""Shard in, rows and errors out: the one interface between what is to be labelled and what runs the annotators.

An engine may work in this process, in several, or on other machines. It gets shards that carry their own data and a job that says by
name what to open, so it needs neither this process's memory nor its disk. Answers may come in any order and in other pieces than the
shards; each row comes back exactly once, labelled or with the reason why not. `accounted` enforces that of every engine.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import JobError, require

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard:
    """Rows that are labelled together. row_ids: unique over everything that one engine is given. columns: one entry per row each."""

    row_ids: tuple[str, ...]
    columns: Columns

    def __post_init__(self) -> None:
        same = all(len(column) == len(self.row_ids) for column in self.columns.values())
        require(bool(self.row_ids) and same, "a shard needs rows, and one entry per row in each column", got=len(self.row_ids))

    def row(self, place: int) -> Shard:
        """One row as a shard of its own."""
        return Shard(row_ids=(self.row_ids[place],), columns={name: column[place : place + 1] for name, column in self.columns.items()})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardAnswer:
    """Labelled rows, and why others have no label. columns: one entry for each of `row_ids`. errors: row id -> reason."""

    row_ids: tuple[str, ...]
    columns: Columns
    errors: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelJob:
    """What labels: `maker` ("module:function") is called with `settings`, a document of plain values, wherever the work is done."""

    maker: str
    settings: Mapping[str, Any]

    def open(self) -> Labeller:
        """The labeller, made in this process. Errors of the maker pass through."""
        module, _, function = self.maker.partition(":")
        return getattr(importlib.import_module(module), function)(self.settings)


class Labeller(Protocol):
    """What an engine runs: it answers a shard, and describes itself by plain values."""

    def description(self) -> Mapping[str, Any]:
        """What the caller must know of it, such as its version."""
        ...

    def label(self, shard: Shard) -> ShardAnswer:
        """Every row of `shard` once: labelled, or with a reason. Raises nothing for a row that it cannot label."""
        ...


class LabellingEngine(Protocol):
    """Where labellers run."""

    def description(self) -> Mapping[str, Any]:
        """`Labeller.description` of the job. Raises what opening the labeller raises, and `JobError` where it cannot be started."""
        ...

    def label(self, shards: Iterable[Shard]) -> Iterator[ShardAnswer]:
        """The answers, as they come. `shards` is read as the work goes on, never far ahead of it."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...


def accounted(engine: LabellingEngine, shards: Iterable[Shard]) -> Iterator[ShardAnswer]:
    """`engine.label`, with proof that rows out are rows in.

    Raises `JobError` for an answer to a row that was not asked or was answered before, and at the end for rows without an answer.
    """
    waiting: set[str] = set()

    def asked() -> Iterator[Shard]:
        for shard in shards:
            twice = waiting.intersection(shard.row_ids)
            if twice or len(set(shard.row_ids)) != len(shard.row_ids):
                raise JobError(f"row {min(twice or shard.row_ids)} is in the shards twice; expected unique row ids")
            waiting.update(shard.row_ids)
            yield shard

    for answer in engine.label(asked()):
        answered = [*answer.row_ids, *answer.errors]
        strange = next((row for row in answered if row not in waiting), None)
        if strange is not None or len(set(answered)) != len(answered):
            raise JobError(
                f"the labelling engine answered row {strange or answered[0]} twice, or it was not asked; nothing of this is kept"
            )
        bad = [name for name, column in answer.columns.items() if len(column) != len(answer.row_ids)]
        if bad:
            raise JobError(f"the labelling engine gave {len(answer.columns[bad[0]])} entries of {bad[0]!r} for {len(answer.row_ids)} rows")
        waiting.difference_update(answered)
        yield answer
    if waiting:
        raise JobError(
            f"the labelling engine lost {len(waiting)} rows, the first {min(waiting)}: expected an answer or a reason for every row. "
            "Fix: run again; what was answered is kept"
        )


def joined(parts: Iterable[ShardAnswer]) -> ShardAnswer:
    """Several answers as one, in their order."""
    parts = list(parts)
    filled = [part for part in parts if part.row_ids]
    names = filled[0].columns if filled else ()
    return ShardAnswer(
        row_ids=tuple(row for part in parts for row in part.row_ids),
        columns={name: np.concatenate([part.columns[name] for part in filled]) for name in names},
        errors={row: reason for part in parts for row, reason in part.errors.items()},
    )
