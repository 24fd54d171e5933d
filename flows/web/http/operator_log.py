"""What people ordered through the console, in one chained file: who, when, what, and what came of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from components.artifacts.chained_lines import ChainedLines
from flows.web.http.endpoint import Call, Endpoint
from model_core.spec.documents import to_document
from model_core.spec.errors import ActwrightError

logger = logging.getLogger(__name__)

OPERATORS = "console/operators.jsonl"  # below the home
_LONGEST_ANSWER = 2000  # characters of JSON


class OperatorLog:
    """The log of one home; several consoles may write it. path: of the file."""

    def __init__(self, path: Path) -> None:
        self._lines = ChainedLines(path, "actwright console operators")

    @staticmethod
    def of_home(home: Path) -> OperatorLog:
        """The log of a home."""
        return OperatorLog(home.resolve() / OPERATORS)

    def note(self, endpoint: Endpoint, call: Call, *, answer: object = None, refused: str = "") -> None:
        """Add a line. Never raises: a stop is carried out also where its line cannot be written."""
        told = to_document(answer)
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "person": call.person.name,
            "role": str(call.person.role),
            "order": f"{endpoint.method} {endpoint.path.format(**call.path)}"[:300],
            "asked": to_document(call.body),
            "answer": told if len(json.dumps(told)) <= _LONGEST_ANSWER else {},
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
