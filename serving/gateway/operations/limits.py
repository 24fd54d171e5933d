"""The bounds of one gateway, checked when they are created: a wrong one is named and prevents the start."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError
from model_core.spec.settings import real, whole

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
class GatewayLimits:
    """Bounds of one gateway. Times in seconds.

    max_batch: rows of the engine's round. max_queue: requests that may wait for it. hung_s: a block that runs longer makes the
    service unready and has the engine replaced. lease_s: a session without any message for so long is closed; how long a cell
    may continue without news. max_outbox: messages in a client's send queue. state_ttl_s: how long a last answer is kept for
    re-sends and drafts. reserve_share: part of the measured capacity that sessions may reserve. warm_up_s: time that measuring
    may take before readiness; 0 measures nothing (and then no cheaper level is served). window_s: older measurements are dropped.
    min_interval_ms: announced shortest time between two requests of a cell, 0 for none. replaced_per_s: requests that a cell may
    replace before they were answered; beyond that it is refused, and its messages are read more slowly. max_kept_answers: answers
    kept for the idempotency keys of POST /v1/act.
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
    def from_json(document: object) -> GatewayLimits:
        """Read limits; raises SpecError naming an unknown key or a wrong value."""
        return from_document(GatewayLimits, document, where="limits")

    @staticmethod
    def from_text(text: str) -> GatewayLimits:
        """Read limits from JSON; an empty text means all defaults."""
        if not text.strip():
            return GatewayLimits()
        try:
            document = json.loads(text)
        except ValueError as error:
            raise SpecError(f"limits: this is not JSON: {error}") from error
        return GatewayLimits.from_json(document)
