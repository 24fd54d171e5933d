"""The pen of each cell: one person draws and edits at a time, and everyone sees who. A pen that is not used returns by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flows.web.http.endpoint import Person, Refused
from model_core.access import Role

PEN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PenHolder:
    """Who has the pen of a cell; "" for no person. left_s: until it returns, if it is not used."""

    name: str = ""
    left_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    name: str
    key: str
    until_s: float


class Pens:
    """The pens of one console. clock: monotonic seconds. Safe from any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def holder(self, cell: str) -> PenHolder:
        """Who has it."""
        with self._lock:
            held = self._current(cell)
            return PenHolder() if held is None else PenHolder(name=held.name, left_s=round(held.until_s - self._clock(), 1))

    def has(self, cell: str, person: Person) -> bool:
        """Whether this person, in this browser, has it."""
        with self._lock:
            held = self._current(cell)
            return held is not None and held.key == _key(person)

    def take(self, cell: str, person: Person, *, over: bool = False) -> PenHolder:
        """Take it, or keep it for longer. over: take it from the person who has it, as an admin. Raises Refused (409, 403)."""
        with self._lock:
            held = self._current(cell)
            if held is not None and held.key != _key(person):
                if not over:
                    raise Refused(
                        f"{held.name} has the pen. Fix: ask for it, or wait {held.until_s - self._clock():.0f} s without use", 409
                    )
                if not person.role.allows(Role.ADMIN):
                    raise Refused(f"{person.name!r} has the role {person.role}; taking a pen over needs {Role.ADMIN}", 403)
            self._held[cell] = _Held(name=person.name, key=_key(person), until_s=self._clock() + PEN_S)
        return self.holder(cell)

    def give_back(self, cell: str, person: Person) -> PenHolder:
        """Let others have it; of another's pen nothing changes."""
        with self._lock:
            held = self._current(cell)
            if held is not None and held.key == _key(person):
                del self._held[cell]
        return self.holder(cell)

    def _current(self, cell: str) -> _Held | None:
        held = self._held.get(cell)
        return held if held is not None and held.until_s > self._clock() else None


def _key(person: Person) -> str:
    return person.session or f"token:{person.name}"
