"""Refusal codes as HTTP status codes."""

from __future__ import annotations

from collections.abc import Mapping

from model_core.spec.types import RefusalCode

CLIENT_GONE = 499  # the client has disconnected and does not read this response
STATUS_OF: Mapping[RefusalCode, int] = {
    RefusalCode.CONTRACT: 409,
    RefusalCode.DECODE: 400,
    RefusalCode.NONFINITE: 422,
    RefusalCode.UNSAFE: 422,
    RefusalCode.PARSE: 422,
    RefusalCode.STALE_OBS: 409,
    RefusalCode.STALE_EPOCH: 409,
    RefusalCode.DEADLINE: 504,
    RefusalCode.OVERLOAD: 429,
    RefusalCode.NOT_READY: 503,
    RefusalCode.INTERNAL: 500,
    RefusalCode.TOO_LARGE: 413,
    RefusalCode.AUTH: 401,
    RefusalCode.LEASE: 409,
    RefusalCode.DRAINING: 503,
    RefusalCode.KILLED: 503,
    RefusalCode.CANCELLED: 409,
}
