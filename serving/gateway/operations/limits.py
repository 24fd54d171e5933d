"""The bounds of one gateway, checked when they are made: a wrong one stops the start and is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.settings import known_keys, real, whole

_WHOLE = {
    "max_sessions": 1,
    "max_batch": 1,
    "max_queue": 1,
    "max_bad_messages": 1,
    "max_outbox": 1,
    "max_session_bytes": 4096,
    "max_restarts": 0,
    "max_kept_answers": 1,
    "replaced_per_s": 1,
}
_SHORTEST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one gateway. Times in seconds.

    max_batch: rows of the engine's round. max_queue: requests that wait for it. hung_s: a block that runs longer makes the
    service unready and has the engine replaced. lease_s: a session that says nothing for so long is closed; what a cell may
    rely on without news. state_ttl_s: how long a last answer is kept for re-sends and drafts. reserve_share: part of the
    measured capacity that sessions may reserve. warm_up_s: time that measuring may take before readiness; 0 measures nothing
    (and then nothing is served at a cheaper level). window_s: older measurements are forgotten. min_interval_ms: announced
    shortest time between two requests of a cell, 0 for none. replaced_per_s: requests that a cell may replace before they were
    answered; beyond that it is refused and read more slowly. max_kept_answers: answers kept for the idempotency keys of
    POST /v1/act.
    """

    max_sessions: int = 64
    max_batch: int = 16
    max_queue: int = 64
    hello_timeout_s: float = 5.0
    hung_s: float = 30.0
    max_bad_messages: int = 16
    lease_s: float = 30.0
    state_ttl_s: float = 120.0
    max_session_bytes: int = 2**20
    max_outbox: int = 64
    send_timeout_s: float = 10.0
    reserve_share: float = 0.75
    warm_up_s: float = 10.0
    window_s: float = 60.0
    min_interval_ms: float = 0.0
    replaced_per_s: int = 40
    max_restarts: int = 5
    max_kept_answers: int = 256

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _WHOLE:
                whole(item.name, value, low=_WHOLE[item.name])
            elif item.name == "reserve_share":
                real(item.name, value, above=0.0, high=1.0)
            elif item.name in {"warm_up_s", "min_interval_ms"}:
                real(item.name, value, high=3600.0 if item.name == "warm_up_s" else 60_000.0)
            else:
                real(item.name, value, low=_SHORTEST, high=86_400.0)

    @staticmethod
    def from_json(document: object) -> Limits:
        """Read limits; raises SpecError naming an unknown key or a wrong value."""
        given: Mapping[str, Any] = known_keys("limits", document, (item.name for item in fields(Limits)))
        return Limits(**given)

    @staticmethod
    def from_text(text: str) -> Limits:
        """Read limits from JSON; an empty text means all defaults."""
        if not text.strip():
            return Limits()
        try:
            document = json.loads(text)
        except ValueError as error:
            raise SpecError(f"limits: this is not JSON: {error}") from error
        return Limits.from_json(document)
