"""The kill list of a fleet: what is stopped now, by whom, and which two persons released what was stopped before.

One signed document (`signatures.sealed`) holds everything, so that a service that missed others knows all from the newest. Its number
grows with each list that is signed, also where nothing changed: a list that was seen before proves nothing about now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from model_core.spec.errors import WireError, require
from model_core.spec.fleet.documents import FORM, KINDS, Document, Name, Seconds, Text, Word

MOST_KILLS = 256
MOST_RELEASED = 1024
LONGEST_VALUE = 200
Scope = Literal["digest", "model", "cell", "site", "fleet"]


class Kill(Document, frozen=True, kw_only=True):
    """One stop. value: a bundle's or release's digest, a model ("NAME" or "NAME/3"), a cell, a site; "" for the fleet."""

    id: Name
    scope: Scope
    value: Word = ""
    reason: Word = ""
    by: Word = ""
    at_s: Seconds = 0.0

    def __post_init__(self) -> None:
        is_all = self.scope == "fleet"
        require(len(self.value) <= LONGEST_VALUE, f"a kill's value has at most {LONGEST_VALUE} characters", error=WireError)
        require(
            bool(self.value) != is_all, f"a kill of scope {self.scope} {'names nothing' if is_all else 'needs a value'}", error=WireError
        )

    def concerns(self, target: KillTarget, cell: str) -> bool:
        """Whether it stops this cell at this service. cell: "" for a caller without a session, whom no kill of a cell concerns."""
        match self.scope:
            case "digest":
                return self.value in target.digests
            case "model":
                return names_model(self.value, target.model)
            case "cell":
                return self.value == cell
            case "site":
                return self.value == target.site
            case "fleet":
                return True

    @property
    def explained(self) -> str:
        """For the cell and its operator."""
        who = f" by {self.by}" if self.by else ""
        what = self.scope if self.scope == "fleet" else f"{self.scope} {self.value}"
        return f"stopped by an operator ({what}{who}){': ' + self.reason if self.reason else ''}"


class ReleasedKill(Document, frozen=True, kw_only=True):
    """A kill that is over. by: the two principals who released it, who are never the same."""

    id: Name
    by: tuple[Word, Word]

    def __post_init__(self) -> None:
        first, second = self.by
        require(
            bool(first) and bool(second) and first != second, f"kill {self.id} was released by {first!r} and {second!r}", error=WireError
        )


class KillList(Document, frozen=True, kw_only=True):
    """Everything that is stopped. number: grows with each list. lease_s: for how long after it came a service may rely on it."""

    number: Annotated[int, Meta(ge=1, le=2**53)]
    sent_at_s: Seconds
    lease_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    kills: Annotated[tuple[Kill, ...], Meta(max_length=MOST_KILLS)] = ()
    released: Annotated[tuple[ReleasedKill, ...], Meta(max_length=MOST_RELEASED)] = ()
    note: Text = ""
    form: Literal[1] = FORM


KINDS[KillList] = "kill-list"


class KillTarget(Document, frozen=True, kw_only=True):
    """What a service is, as far as kills can name it. digests: of the bundle and of the release that holds it."""

    model: Word = ""
    digests: tuple[str, ...] = ()
    site: Word = ""


def names_model(value: str, version: str) -> bool:
    """Whether a kill of a model stops a version of one ("NAME/3"): it names the model, or this version alone."""
    return value in {version, version.rpartition("/")[0] or version}


def check_successor(known: KillList | None, new: KillList) -> None:
    """Raise `WireError` unless `new` may follow `known`: a larger number, and what was stopped is stopped, or released by two."""
    if known is None:
        return
    if new.number <= known.number:
        raise WireError(f"kill list {new.number} is not newer than {known.number}, which is in force")
    listed = {kill.id for kill in new.kills} | {one.id for one in new.released}
    if missing := [kill.id for kill in known.kills if kill.id not in listed]:
        raise WireError(
            f"kill list {new.number} leaves out kill {missing[0]}, which no two persons released. Fix: list it, or name the two who did"
        )


def find_kill(kills: Iterable[Kill], target: KillTarget, cell: str) -> Kill | None:
    """The first kill that stops this cell at this service."""
    return next((kill for kill in kills if kill.concerns(target, cell)), None)


def written_kills(kills: Iterable[Kill]) -> list[dict[str, object]]:
    """Kills as JSON values."""
    return [msgspec.to_builtins(kill) for kill in kills]


def read_kills(document: object) -> list[Kill]:
    """The inverse of `written_kills`. Raises `WireError` for anything else."""
    try:
        return msgspec.convert(document, list[Kill], strict=True)
    except msgspec.ValidationError as error:
        raise WireError(f"kills: {error}") from error
