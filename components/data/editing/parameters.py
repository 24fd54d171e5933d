"""The parameters of each operation, as they stand in the file of an edit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model_core.spec.documents import Number
from model_core.spec.errors import require

Outcome = Literal["", "solved", "failed", "unknown"]
Grouping = Literal["episode", "task", "cell", "producer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Episodes that fulfil every condition that is given; with `leave_out` all others.

    episodes: numbers ("7"), ranges without their end ("0:50") or episode ids. tasks: instructions or names of tasks. outcome: whether
    they solved their task. min_frames, max_frames: length; 0: any.
    """

    episodes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    outcome: Outcome = ""
    min_frames: int = 0
    max_frames: int = 0
    leave_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a division by hash: the same for the same episodes, seed and shares, whatever their order.

    part: which one. shares: part -> its share of the episodes; together 1. by: what stays together.
    """

    part: str
    shares: Mapping[str, Number]
    by: Grouping = "episode"
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.part in self.shares, f"part must be one of {', '.join(self.shares)}", got=self.part)
        require(all(share > 0 for share in self.shares.values()), "every share must be above 0", got=dict(self.shares))
        total = sum(self.shares.values())
        require(math.isclose(total, 1, abs_tol=1e-9), "the shares must be 1 together", got=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Frames from the ends of every episode. keep: episode id -> (first, end) for those that are cut otherwise; `end` is left out."""

    head: int = 0
    tail: int = 0
    keep: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def __post_init__(self) -> None:
        require(self.head >= 0 and self.tail >= 0, "head and tail must be numbers of frames from 0", got=(self.head, self.tail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What is stated of one episode from now on; None leaves a field as it is."""

    instruction: str | None = None
    task: str | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Other words for episodes. instructions: sentence -> new sentence, of every episode that has it. episodes: episode id -> labels."""

    instructions: Mapping[str, str] = field(default_factory=dict[str, str])
    episodes: Mapping[str, Labels] = field(default_factory=dict[str, Labels])

    def __post_init__(self) -> None:
        empty = [old for old, new in self.instructions.items() if not new.strip()]
        require(not empty, "an instruction must have words, it is what the policy is told", got=empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The episodes of all parents, one parent after the other.

    once: "PARENT/ID" of each episode whose contents an earlier parent has too; it is given once. renamed: "PARENT/ID" -> new id, where an
    earlier parent has another episode of that id. PARENT is the number of the parent, from 0.
    """

    once: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A folder that was rebuilt from what a recorder left. result: digest of the new folder's contents. path: where it is, from the edit.

    given_up: what could not be kept. restored: what was made again, and from which evidence. episodes, frames: of the result.
    """

    result: str
    path: str
    episodes: int
    frames: int
    restored: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
