"""What people ordered through this console, and whether the chain of these lines holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flows.web.http.endpoint import Endpoint
from flows.web.http.operator_log import OperatorLog
from model_core.access import Role
from model_core.spec.errors import DatasetError

_SHOWN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLine:
    """One order. at: UTC, ISO 8601. asked, answer: as JSON. refused: why nothing was done, "" where it was."""

    at: str
    person: str
    role: str
    order: str
    asked: str
    answer: str
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorLines:
    """The newest lines first, of `count`. head: the last hash. problem: where the chain is broken, "" where it holds."""

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
            handle=lambda _: _lines(log),
        ),
    )


def _lines(log: OperatorLog) -> OperatorLines:
    try:
        entries, count, head = log.newest(_SHOWN)
    except DatasetError as error:
        return OperatorLines(lines=(), count=0, head="", problem=str(error))
    told = tuple(
        OperatorLine(
            at=str(entry["at"]),
            person=str(entry["person"]),
            role=str(entry["role"]),
            order=str(entry["order"]),
            asked=json.dumps(entry["asked"]),
            answer=json.dumps(entry["answer"]),
            refused=str(entry["refused"]),
        )
        for entry in entries
    )
    return OperatorLines(lines=told, count=count, head=head, problem="")
