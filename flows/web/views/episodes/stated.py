"""What people state of episodes: revisions, their undo, and the data set version that they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.data.revisions.book import Author, RevisionBook, Subject
from components.data.revisions.change import CAUSES, KINDS
from components.data.revisions.state import undone
from flows.pipeline.episodes.library import EpisodeLibrary
from flows.pipeline.episodes.versions import NewVersion, make_version
from flows.platform.wiring import Platform
from flows.web.http.endpoint import Call, Endpoint, Refused, not_found
from flows.web.views.episodes.table import find
from model_core.access import Role
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError

_TOOL = "console"
_MOST_EPISODES = 1000  # of one order


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseRow:
    """A word of the vocabulary and what it means."""

    name: str
    means: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseList:
    """Why attempts fail, in the order of the page's keys."""

    causes: tuple[CauseRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedRow:
    """One revision. kind: of its change, whose document is `change`. is_undone: it does not count."""

    number: int
    author: str
    at: str
    tool: str
    kind: str
    change: Mapping[str, Any]
    is_undone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StateOrder:
    """State the same of episodes of one place. changes: kind of change -> its document (`components.data.revisions.change`)."""

    place: str
    episodes: tuple[str, ...]
    changes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoOrder:
    """Let a revision of a place count no more."""

    place: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedDone:
    """The revisions that were made."""

    revisions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionOrder:
    """Make a data set version of what was stated of a place. only_included: keep only what a person included."""

    place: str
    name: str
    why: str
    only_included: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDone:
    """The version. edits: its files, the last one is the set. corrections: for `annotate.corrections` ("")."""

    edits: tuple[str, ...]
    corrections: str
    episodes: int
    left_out: int
    digest: str


def stated_rows(book: RevisionBook, episode: str) -> tuple[StatedRow, ...]:
    """The revisions of one episode, oldest first."""
    without = undone(book.revisions)
    return tuple(
        StatedRow(
            number=one.number,
            author=one.author,
            at=one.at,
            tool=one.tool,
            kind=one.kind,
            change=to_document(one.change),
            is_undone=one.number in without,
        )
        for one in book.revisions
        if one.episode == episode
    )


def stated_endpoints(platform: Platform, library: EpisodeLibrary) -> Sequence[Endpoint]:
    """Stating, undoing, making a version, and the vocabulary of causes."""

    def state(call: Call) -> StatedDone:
        order: StateOrder = call.body
        if not 1 <= len(order.episodes) <= _MOST_EPISODES:
            raise SpecError(f"body: 1 to {_MOST_EPISODES} episodes at a time, got {len(order.episodes)}")
        strangers = sorted(set(order.changes) - set(KINDS) | {"undo"} & set(order.changes))
        if strangers:
            raise SpecError(f"body: {strangers[0][:40]!r} is no change that can be stated; expected one of {', '.join(KINDS)}")
        changes = [from_document(KINDS[name], document, where=name) for name, document in order.changes.items()]
        found = [find(library, order.place, name) for name in order.episodes]
        subjects = [Subject(episode=one.row.episode_id, frames=one.row.length) for one in found]
        place = found[0].place
        made = library.book(place).add(subjects, changes, Author(name=call.person.name, tool=_TOOL))
        library.tell_revisions(place)
        return StatedDone(revisions=tuple(one.number for one in made))

    def undo(call: Call) -> StatedDone:
        place = _place(library, call.body.place)
        made = library.book(place).undo(call.body.revision, Author(name=call.person.name, tool=_TOOL))
        library.tell_revisions(place)
        return StatedDone(revisions=(made.number,))

    causes = CauseList(causes=tuple(CauseRow(name=name, means=means) for name, means in CAUSES.items()))
    return (
        Endpoint(
            method="GET", path="/api/causes", does="The vocabulary of causes", role=Role.OBSERVE, answer=CauseList, handle=lambda _: causes
        ),
        Endpoint(
            method="POST", path="/api/revisions", does="State something of episodes", role=Role.OPERATE, answer=StatedDone, handle=state,
            body=StateOrder,
        ),
        Endpoint(
            method="POST", path="/api/revisions/undo", does="Let a revision count no more", role=Role.OPERATE, answer=StatedDone,
            handle=undo, body=UndoOrder,
        ),
        Endpoint(
            method="POST", path="/api/versions", does="Make a data set version of what was stated", role=Role.OPERATE, answer=VersionDone,
            handle=lambda call: _version(platform, library, call), body=VersionOrder,
        ),
    )  # fmt: skip


def _version(platform: Platform, library: EpisodeLibrary, call: Call) -> VersionDone:
    order: VersionOrder = call.body
    if not order.why.strip():
        raise Refused("why: a version needs its reason, for people who read its lineage. Fix: write a sentence")
    if "/" in order.name or order.name.endswith((".yaml", ".yml", ".json")):
        raise Refused("name: expected a name of letters, digits and . + - _, no path. Fix: choose another one")
    wanted = NewVersion(name=order.name, why=order.why, who=call.person.name, only_included=order.only_included)
    made = make_version(platform, _place(library, order.place), wanted)
    return VersionDone(
        edits=tuple(str(path) for path in made.edits),
        corrections=str(made.corrections or ""),
        episodes=int(made.told["episodes"]),
        left_out=made.left_out,
        digest=str(made.told["digest"]),
    )


def _place(library: EpisodeLibrary, key: str) -> Any:
    """The place of a key alone: a browser names no path."""
    found = [place for place, _, _ in library.index.places() if place.key == key]
    if not found:
        raise not_found(f"place {key[:20]!r}", "choose one of the table")
    return found[0]
