"""What people ordered through this console, and whether the chain of these lines holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flows.web.http.endpoint import Endpoint
from flows.web.http.operator_log import OperatorLog
from model_core.access import Role
from model_core.spec.errors import DatasetError, require

_MOST_LINES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLine:
    """One order. number: of its line, from 1. at: UTC, ISO 8601. asked, answer: as JSON. refused: why nothing was done, "" where it was."""

    number: int
    at: str
    person: str
    role: str
    order: str
    asked: str
    answer: str
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsQuery:
    """before: only lines that stand before the one of this number, for older ones; 0 for the newest."""

    before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLines:
    """At most 1,000 lines, the newest first, of `count`. head: the last hash. problem: where the chain is broken, "" where it holds."""

    lines: tuple[OperatorLine, ...]
    count: int
    head: str
    problem: str


def operator_endpoints(log: OperatorLog) -> Sequence[Endpoint]:
    """The log."""
    return (
        Endpoint(
            method="GET",
            path="/api/operators",
            does="What people ordered, newest first, with a check of the chain",
            role=Role.OBSERVE,
            answer=OperatorLines,
            query=OperatorsQuery,
            handle=lambda call: _lines(log, call.query.before),
        ),
    )


def _lines(log: OperatorLog, before: int) -> OperatorLines:
    require(before >= 0, "before: expected the number of a line, or 0 for the newest", got=before)
    try:
        entries, count, head = log.newest(_MOST_LINES, before)
    except DatasetError as error:
        return OperatorLines(lines=(), count=0, head="", problem=str(error))
    told = tuple(
        OperatorLine(
            number=number,
            at=str(entry["at"]),
            person=str(entry["person"]),
            role=str(entry["role"]),
            order=str(entry["order"]),
            asked=json.dumps(entry["asked"]),
            answer=json.dumps(entry["answer"]),
            refused=str(entry["refused"]),
        )
        for number, entry in entries
    )
    return OperatorLines(lines=told, count=count, head=head, problem="")
