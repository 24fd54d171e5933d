"""What revisions come to: of each episode what counts now. Pure; undone revisions stay in the file and count for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from components.data.revisions.change import (
    Caused,
    Dismissed,
    Include,
    Instructed,
    Judged,
    Outcome,
    Point,
    Pointed,
    Revision,
    Traced,
    Trimmed,
    Undone,
)
from model_core.spec.errors import SpecError

FrameOf = tuple[str, int]  # camera and frame


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisedEpisode:
    """What is stated of one episode; None where nothing is. revisions: those that count, oldest first. undone: how many do not."""

    included: bool | None = None
    trim: tuple[int, int] | None = None
    outcome: Outcome | None = None
    causes: tuple[str, ...] = ()
    note: str = ""
    instruction: str | None = None
    dismissed: bool = False
    points: Mapping[FrameOf, Revision] = field(default_factory=dict[FrameOf, Revision])
    traces: Mapping[FrameOf, Revision] = field(default_factory=dict[FrameOf, Revision])
    revisions: tuple[Revision, ...] = ()

    @property
    def is_sorted(self) -> bool:
        """Whether a person looked at what went wrong: a cause, a decision to include or leave out, or that it needs nothing."""
        return bool(self.causes) or self.included is not None or self.dismissed

    @property
    def length(self) -> int | None:
        """Frames that are kept; None where nothing is cut."""
        return None if self.trim is None else self.trim[1] - self.trim[0]


def undone(revisions: Sequence[Revision]) -> frozenset[int]:
    """Numbers of the revisions that do not count. An undo only names an earlier one, so the last word is found from the end."""
    found: set[int] = set()
    for revision in reversed(revisions):
        if isinstance(revision.change, Undone) and revision.number not in found:
            found.add(revision.change.revision)
    return frozenset(found)


def revised(revisions: Sequence[Revision]) -> dict[str, RevisedEpisode]:
    """Episode id -> what counts; of two revisions of the same thing the later one."""
    without = undone(revisions)
    made: dict[str, RevisedEpisode] = {}
    for revision in revisions:
        if revision.number not in without and not isinstance(revision.change, Undone):
            made[revision.episode] = _with(made.get(revision.episode, RevisedEpisode()), revision)
    return made


def _with(before: RevisedEpisode, revision: Revision) -> RevisedEpisode:
    now = replace(before, revisions=(*before.revisions, revision))
    match revision.change:
        case Include(included=included):
            return replace(now, included=included)
        case Trimmed(first=first, end=end):
            return replace(now, trim=(first, end))
        case Judged(outcome=outcome):
            return replace(now, outcome=outcome)
        case Caused(causes=causes, note=note):
            return replace(now, causes=causes, note=note)
        case Instructed(instruction=instruction):
            return replace(now, instruction=instruction)
        case Dismissed():
            return replace(now, dismissed=True)
        case Pointed(camera=camera, frame=frame):
            return replace(now, points={**now.points, (camera, frame): revision})
        case Traced(camera=camera, frame=frame):
            return replace(now, traces={**now.traces, (camera, frame): revision})
    return now


def check(revision: Revision, earlier: Sequence[Revision]) -> None:
    """Raise `SpecError` where a new revision does not fit its episode or the revisions before it."""
    change, where = revision.change, f"revision of episode {revision.episode}"
    if isinstance(change, Undone):
        named = next((one for one in earlier if one.number == change.revision), None)
        if named is None or named.episode != revision.episode:
            raise SpecError(f"{where}: it has no revision {change.revision} to undo. Fix: `actwright episodes revisions` lists them")
        if change.revision in undone(earlier):
            raise SpecError(f"{where}: revision {change.revision} is undone already. Fix: undo the revision that undid it, or leave it")
    reached = change.end if isinstance(change, Trimmed) else change.frame + 1 if isinstance(change, Pointed | Traced) else 0
    if revision.frames and reached > revision.frames:
        raise SpecError(f"{where}: frame {reached - 1}, and the episode has frames 0 to {revision.frames - 1}. Fix: name one of them")


def points_in(revision: Revision) -> tuple[Point, ...]:
    """The points of a revision of a frame, in pixels; () for one that says that there is none."""
    change = revision.change
    if isinstance(change, Traced):
        return change.points
    return (change.point,) if isinstance(change, Pointed) and change.point is not None else ()


def authors(episodes: Iterable[RevisedEpisode]) -> tuple[str, ...]:
    """Everyone whose revision counts, by name."""
    return tuple(sorted({revision.author for one in episodes for revision in one.revisions}))
