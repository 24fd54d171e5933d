"""The kinds of change that a revision makes, as they stand in the file; one revision makes one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from model_core.spec.documents import Number, from_document, to_document
from model_core.spec.errors import SpecError, require
from model_core.spec.types import TRACE_MAX_POINTS

# why an attempt failed: the one vocabulary of pages, commands and exports, with what each word means
CAUSES: Mapping[str, str] = {
    "missed_grasp": "the gripper closed beside the object",
    "dropped": "the object was lost after it was held",
    "wrong_object": "another object than the instruction names was acted on",
    "wrong_place": "the object was put where the instruction does not say",
    "target_not_reached": "the motion ended before the goal",
    "collision": "the robot or what it held hit something",
    "stuck": "the robot did not move on, or moved without effect",
    "early_end": "the attempt was ended before it could succeed",
    "person_acted": "a person had to act in the place of the policy",
    "bad_view": "a camera was covered, dark, blurred or moved",
    "bad_reset": "the scene was not as an attempt begins",
    "late_answers": "answers of the policy came too late",
    "refused": "the policy service or the cell refused to act",
    "limits": "limits of the cell changed or stopped the motion",
    "hardware": "a fault of robot, gripper, camera or network",
    "wrong_label": "the attempt was right, what is stated of it is not",
    "other": "none of these; a note says what",
}
Outcome = Literal["solved", "failed", "unknown"]
Point = tuple[Number, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Include:
    """Whether the episode is of the next data set; None: not decided."""

    included: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """The frames that are kept: `first` to before `end`."""

    first: int
    end: int

    def __post_init__(self) -> None:
        require(0 <= self.first < self.end, "frames first to before end are kept, at least one", got=(self.first, self.end))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How the attempt came out."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Caused:
    """Why it failed: words of `CAUSES`, all that hold; none takes them back. note: for people."""

    causes: tuple[str, ...]
    note: str = ""

    def __post_init__(self) -> None:
        strangers = [word for word in self.causes if word not in CAUSES]
        require(not strangers, f"causes must be of {', '.join(CAUSES)}", got=strangers)
        require(len(set(self.causes)) == len(self.causes), "each cause is named once", got=self.causes)
        require("other" not in self.causes or bool(self.note.strip()), "the cause other needs a note that says what it was")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructed:
    """What the policy is told: the words that describe what was done."""

    instruction: str

    def __post_init__(self) -> None:
        require(bool(self.instruction.strip()), "an instruction must have words, it is what the policy is told", got=self.instruction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointed:
    """Where the gripper is in one frame of one camera, in pixels of the recorded image. None: it is not in the image."""

    camera: str
    frame: int
    point: Point | None

    def __post_init__(self) -> None:
        _check_frame(self.camera, self.frame, () if self.point is None else (self.point,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The trace of one frame of one camera: 1 to 5 points in pixels of the recorded image, the first where the gripper is."""

    camera: str
    frame: int
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        require(1 <= len(self.points) <= TRACE_MAX_POINTS, f"a trace has 1 to {TRACE_MAX_POINTS} points", got=len(self.points))
        _check_frame(self.camera, self.frame, self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """An earlier revision of the same place does not count any more. An undone `Undone` lets it count again."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissed:
    """What went wrong needs nothing: it leaves the queue of failures."""

    note: str = ""


Change = Include | Trimmed | Judged | Caused | Instructed | Pointed | Traced | Undone | Dismissed
KINDS: Mapping[str, type[Any]] = {
    "include": Include,
    "trim": Trimmed,
    "outcome": Judged,
    "causes": Caused,
    "instruction": Instructed,
    "point": Pointed,
    "trace": Traced,
    "undo": Undone,
    "dismiss": Dismissed,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One change of one episode. number: its place in the file, from 0. frames: how many the episode had for its author, 0 if not known.

    author: a person. at: ISO 8601 with its zone. tool: what it was made with.
    """

    number: int
    episode: str
    change: Change
    author: str
    at: str
    tool: str
    frames: int = 0

    def __post_init__(self) -> None:
        require(bool(self.episode and self.author.strip() and self.tool), "a revision names its episode, author and tool", got=self.author)
        try:
            is_dated = datetime.fromisoformat(self.at).tzinfo is not None
        except ValueError:
            is_dated = False
        require(is_dated, "at must be a time with its zone, such as 2026-11-02T09:30:00Z", got=self.at)

    @property
    def kind(self) -> str:
        """The name of its kind of change."""
        return _NAMES[type(self.change)]


def revision_of(number: int, entry: Mapping[str, Any]) -> Revision:
    """The revision of a line. Raises `SpecError` naming what is wrong."""
    where, rest = f"revision {number}", {name: value for name, value in entry.items() if name not in KINDS}
    named = [name for name in KINDS if name in entry]
    if len(named) != 1:
        raise SpecError(f"{where}: expected one of {', '.join(KINDS)}, got {', '.join(named) or 'none'}. Fix: make one change a revision")
    made = from_document(KINDS[named[0]], entry[named[0]], where=f"{where}, {named[0]}")
    return from_document(_Head, rest, where=where).with_change(number, made)


def entry_of(revision: Revision) -> dict[str, Any]:
    """What the line of a revision holds."""
    rest = {"episode": revision.episode, "author": revision.author, "at": revision.at, "tool": revision.tool, "frames": revision.frames}
    return {**rest, revision.kind: to_document(revision.change)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """A line without its change."""

    episode: str
    author: str
    at: str
    tool: str
    frames: int = 0

    def with_change(self, number: int, change: Change) -> Revision:
        return Revision(
            number=number, episode=self.episode, change=change, author=self.author, at=self.at, tool=self.tool, frames=self.frames
        )


def _check_frame(camera: str, frame: int, points: tuple[Point, ...]) -> None:
    require(bool(camera), "a point names its camera")
    require(frame >= 0, "frames are counted from 0", got=frame)
    require(all(math.isfinite(value) for point in points for value in point), "points must be finite numbers", got=points)
