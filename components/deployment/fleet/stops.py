"""Stopping cells at a policy service and letting them go: the drill, which measures how long a hold takes, and the release."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from components.adapters.http import NoAnswerError, Reply, request
from components.deployment.service_address import ServiceCredentials, ServiceUrl
from model_core.spec.errors import NotReady

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What a drill found. held_after_s: cell -> seconds from the order to the cell's word that it holds.

    idle: cells that ran no episode, so that nothing moved. absent: not connected here. silent: gave no word within `lease_s`.
    """

    lease_s: float
    held_after_s: dict[str, float]
    idle: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Every given cell is connected, and each that moved held within the lease."""
        return not self.absent and not self.silent and all(s <= self.lease_s for s in self.held_after_s.values())

    @property
    def p50_s(self) -> float | None:
        """Median over the cells that moved; None without one."""
        return median(self.held_after_s.values()) if self.held_after_s else None

    @property
    def max_s(self) -> float | None:
        """The slowest of them."""
        return max(self.held_after_s.values(), default=None)


def drill(
    url: str, cells: Sequence[str], credentials: ServiceCredentials, *, reason: str, sleep: Callable[[float], None] = time.sleep
) -> Drill:
    """Kill each of these cells for real and wait until it says that it holds, at most for the lease of its session.

    The kills stay in force: two principals release them, and at each cell a person resumes it. Raises NotReady, with what to do, where the
    service does not answer or does not allow it.
    """
    base = ServiceUrl.of(url).http
    for cell in cells:
        order = {"scope": "cell", "value": cell, "reason": reason}
        _checked(_ask("POST", f"{base}/v1/admin/kill", credentials, order), "admin")
    found = _stops(base, credentials)
    lease_s = float(found["session_lease_s"])
    give_up_at = time.monotonic() + lease_s
    while _missing(found, cells) and time.monotonic() < give_up_at:
        sleep(_POLL_S)
        found = _stops(base, credentials)
    told = {one["cell"]: one for one in found["stops"] if one["cell"] in cells}
    idle = tuple(cell for cell in cells if cell in told and told[cell]["idle"])
    return Drill(
        lease_s=lease_s,
        held_after_s={cell: one["held_after_s"] for cell, one in told.items() if cell not in idle and one["held_after_s"] is not None},
        idle=idle,
        absent=tuple(cell for cell in cells if cell not in told),
        silent=_missing(found, cells),
    )


def release(url: str, credentials: ServiceCredentials) -> tuple[bool, str]:
    """Release what was ordered at a service, as one principal of two. Returns whether it is released, and what is missing.

    Raises NotReady where the service does not answer or does not allow it.
    """
    reply = _ask("POST", f"{ServiceUrl.of(url).http}/v1/admin/resume", credentials, {})
    if reply.status in (202, 409):
        return False, str(reply.json().get("reason", ""))
    _checked(reply, "admin")
    return True, ""


def _stops(base: str, credentials: ServiceCredentials) -> Any:
    return _checked(_ask("GET", f"{base}/v1/kills", credentials, None), "observe")


def _missing(found: Any, cells: Sequence[str]) -> tuple[str, ...]:
    """Cells that were moving when they were told, and have not said that they hold."""
    return tuple(one["cell"] for one in found["stops"] if one["cell"] in cells and not one["idle"] and one["held_after_s"] is None)


def _ask(method: str, url: str, credentials: ServiceCredentials, order: Any) -> Reply:
    body = None if order is None else json.dumps(order).encode()
    try:
        return request(method, url, timeout_s=credentials.timeout_s, headers=credentials.headers, body=body, tls=credentials.tls(url))
    except NoAnswerError as error:
        raise NotReady(f"no service answers at {url} ({error.reason}); start a service with `actwright serve`") from error


def _checked(reply: Reply, role: str) -> Any:
    if reply.status in (401, 403):
        raise NotReady(f"{reply.url} answered {reply.status}. Fix: give a token with the role {role} (--token-file, or ACTWRIGHT_TOKEN)")
    if not reply.ok:
        raise NotReady(f"{reply.url} answered {reply.status}: {reply.body[:300].decode(errors='replace')}")
    return reply.json()
