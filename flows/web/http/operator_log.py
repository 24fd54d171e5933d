"""What people ordered through the console, and when they came and went, in one chained file: who, when, what, and what came of it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from components.artifacts.chained_lines import ChainedLines
from flows.web.http.endpoint import Call, Endpoint, Person
from model_core.spec.documents import to_document
from model_core.spec.errors import ActwrightError

logger = logging.getLogger(__name__)

OPERATORS = "console/operators.jsonl"  # below the home
_LONGEST_ANSWER = 2000  # characters of JSON
_ATTEMPTS, _ATTEMPT_EVERY_S = 20, 180.0  # refused attempts to sign in that are written at once, and one more each


class OperatorLog:
    """The log of one home; several consoles may write it. path: of the file. clock: monotonic seconds."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = ChainedLines(path, "actwright console operators")
        self._attempts = _Attempts(clock)

    @staticmethod
    def of_home(home: Path) -> OperatorLog:
        """The log of a home."""
        return OperatorLog(home.resolve() / OPERATORS)

    def note(self, endpoint: Endpoint, call: Call, *, answer: object = None, refused: str = "") -> None:
        """Add a line. Never raises: a stop is carried out also where its line cannot be written."""
        told = to_document(answer)
        if len(json.dumps(told)) > _LONGEST_ANSWER:
            told = {}
        self._add(call.person, f"{endpoint.method} {endpoint.path.format(**call.path)}", to_document(call.body), told, refused)

    def note_coming(self, person: Person, address: str) -> None:
        """Add the line of a person who signed in from `address`. Never raises."""
        self._add(person, "sign in", {"from": address[:100]}, {})

    def note_going(self, person: Person, address: str) -> None:
        """Add the line of a person who signed out. Never raises."""
        self._add(person, "sign out", {"from": address[:100]}, {})

    def note_attempt(self, name: str, address: str, refused: str) -> None:
        """Add the line of a sign-in that was refused. name: as the caller called itself. Never raises.

        Guessing cannot fill the log: 20 lines at once, then one in three minutes; each tells how many were left out before it.
        """
        if (left_out := self._attempts.taken()) is not None:
            self._add(None, "sign in", {"name": name[:80], "from": address[:100], "left_out_before": left_out}, {}, refused)

    def _add(self, person: Person | None, order: str, asked: object, answer: object, refused: str = "") -> None:
        entry: Mapping[str, object] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "person": "" if person is None else person.name,
            "role": "" if person is None else str(person.role),
            "order": order[:300],
            "asked": asked,
            "answer": answer,
            "refused": refused[:300],
        }
        try:
            self._lines.append(lambda _: [entry])
        except (ActwrightError, OSError):
            logger.exception("operator_log.unwritten order=%s person=%s", entry["order"], entry["person"])

    def newest(self, count: int, before: int = 0) -> tuple[Sequence[tuple[int, dict[str, object]]], int, str]:
        """The last lines before line `before` (0: of all), each with its number from 1, newest first; how many lines there are, and the
        last hash. Raises DatasetError where the chain is broken."""
        entries = self._lines.entries
        end = min(before - 1, len(entries)) if before else len(entries)
        return [(number, entries[number - 1]) for number in range(end, max(0, end - count), -1)], len(entries), self._lines.head


class _Attempts:
    """How many refused attempts may still be written: `_ATTEMPTS` at once, then one every `_ATTEMPT_EVERY_S`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._room, self._counted_at_s, self._left_out = float(_ATTEMPTS), clock(), 0

    def taken(self) -> int | None:
        """None where this one is left out; else how many were left out since the last one that was not."""
        with self._lock:
            now = self._clock()
            self._room = min(float(_ATTEMPTS), self._room + (now - self._counted_at_s) / _ATTEMPT_EVERY_S)
            self._counted_at_s = now
            if self._room < 1.0:
                self._left_out += 1
                return None
            self._room -= 1.0
            before, self._left_out = self._left_out, 0
            return before
