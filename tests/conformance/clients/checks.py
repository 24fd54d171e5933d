"""One JSON line per check, on standard output. Runs in the clients' environment: nothing of this project is there."""

from __future__ import annotations

import json
import time


def report(check: str, passed: bool, detail: str = "") -> None:
    """Say how one check went."""
    print(json.dumps({"check": check, "passed": bool(passed), "detail": detail}), flush=True)  # noqa: T201


def raised(work, *kinds: type[BaseException]) -> str:
    """The text of what `work` raised; "" when nothing of `kinds` was raised."""
    try:
        work()
    except kinds as error:
        return f"{type(error).__name__}: {error}"
    return ""


def timed(work) -> tuple[object, float]:
    """What `work` gave and the milliseconds it took."""
    began = time.perf_counter()
    return work(), 1e3 * (time.perf_counter() - began)
