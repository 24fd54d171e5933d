"""One endpoint of the console's API as data: who may call it, what it takes, what it gives, and the function that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from model_core.access import Role
from model_core.spec.errors import ActwrightError

MOST_BODY_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who calls. name: shown to others and written into logs. session: of this browser; "" for a program that has none. token: as it was
    shown here, for the fleet's controller, which knows persons by it; "" on a console without tokens."""

    name: str
    role: Role
    session: str = ""
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. path: the parts of the address; query, body: as the endpoint declares them (None where it declares none)."""

    person: Person
    path: Mapping[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An answer that is not JSON. etag: "" where the content may change under the same address; else it is kept for good."""

    data: bytes
    media_type: str
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """An answer that goes on: each document is sent as one server-sent event. stream: called once for each reader."""

    stream: Callable[[], AsyncIterator[object]]


Answer: TypeAlias = object


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address and method. path: with {names}. query, body: dataclasses that are read strictly. answer: what it gives: a dataclass,
    `Content` or `Events` (then `event` is the dataclass of each). handle: runs in a thread; it may read files and databases.
    """

    method: str
    path: str
    does: str
    role: Role
    answer: Any
    handle: Callable[[Call], Answer]
    query: type | None = None
    body: type | None = None
    event: type | None = None
    most_body_bytes: int = MOST_BODY_BYTES
    is_news: Callable[[Call], bool] = lambda _: True

    @property
    def is_order(self) -> bool:
        """It changes something, which the operators' log tells. is_news: whether a call does, for what pages send every few seconds."""
        return self.method != "GET"


class Refused(ActwrightError):  # noqa: N818
    """The console does not do what was asked. args: the sentence, and the HTTP status."""

    @property
    def status(self) -> int:
        """400 unless another one was given."""
        return int(self.args[1]) if len(self.args) > 1 else 400

    def __str__(self) -> str:
        return str(self.args[0])


def not_found(what: str, fix: str) -> Refused:
    """A `Refused` with status 404. fix: what to do, without "Fix: "."""
    return Refused(f"{what} is not here. Fix: {fix}", 404)
