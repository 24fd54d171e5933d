"""A request's callbacks, made safe: a callback that fails is logged and ends no request's answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from model_core.spec.types import DecisionRequest, DepthTokens, Trace

logger = logging.getLogger(__name__)


def part_listener(request: DecisionRequest) -> Callable[[str, DepthTokens | Trace], None] | None:
    """The request's `on_part`, whose failure is not the round's."""
    if request.on_part is None:
        return None
    on_part = request.on_part

    def notify(field: str, value: DepthTokens | Trace) -> None:
        try:
            on_part(field, value)
        except Exception:  # a listener that fails loses its part; the answer continues
            logger.exception("part.not_delivered field=%s", field)

    return notify


def cancellation_of(request: DecisionRequest) -> Callable[[], bool] | None:
    """The request's `is_cancelled`; one that fails cancels nothing."""
    if request.is_cancelled is None:
        return None
    asked = request.is_cancelled

    def ask() -> bool:
        try:
            return asked()
        except Exception:  # whatever a listener does wrong stays its own
            logger.exception("cancellation.unknown")
            return False

    return ask
