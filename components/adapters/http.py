"""HTTP to services of ours and beside us: one request with a deadline, and waiting until a service is ready."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a service answered, whatever its status."""

    url: str
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is one of success (2xx)."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as a JSON document; raises `ValueError` when it is none."""
        return json.loads(self.body)


class NoAnswerError(ConnectionError):
    """No HTTP answer came. `reason` is the cause nearest to the network: an `OSError`, a TLS error or a protocol error."""

    def __init__(self, url: str, reason: BaseException, *, closed: bool = False, not_http: bool = False) -> None:
        super().__init__(f"{url}: {str(reason) or type(reason).__name__}")
        self.url, self.reason = url, reason
        self.closed, self.not_http = closed, not_http  # the peer closed the connection; it answered something that is not HTTP


def request(
    method: str,
    url: str,
    *,
    timeout_s: float = 5.0,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Reply:
    """Send one request and read the whole answer within `timeout_s`. Redirects are not followed.

    tls: how to check an https server; the system's certificates by default. Raises `NoAnswerError`, never for a status.
    """
    import httpx

    deadline = time.monotonic() + timeout_s
    secure = url.startswith("https:")
    context = (tls or ssl.create_default_context()) if secure else False
    content = bytearray()
    try:
        with (
            httpx.Client(timeout=timeout_s, verify=context) as client,
            client.stream(method, url, headers=dict(headers or {}), content=body) as reply,
        ):
            for part in reply.iter_bytes():
                content += part
                if time.monotonic() > deadline:
                    raise NoAnswerError(url, TimeoutError(f"the answer was not complete after {timeout_s:g} s"))
            return Reply(url=url, status=reply.status_code, body=bytes(content))
    except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
        reason = _innermost(error)
        closed = "disconnected without" in str(error) or isinstance(reason, ConnectionResetError)
        not_http = isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError) and not closed
        raise NoAnswerError(url, reason, closed=closed, not_http=not_http) from error


def get(url: str, *, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> Reply:
    """As `request`, with GET."""
    return request("GET", url, timeout_s=timeout_s, headers=headers, tls=tls)


def answers(url: str, *, timeout_s: float = 5.0) -> bool:
    """Whether a GET of `url` is answered with success."""
    try:
        return get(url, timeout_s=timeout_s).ok
    except NoAnswerError:
        return False


class Readiness(Enum):
    """How waiting for a service ended."""

    READY = "ready"
    DIED = "died"
    LATE = "late"


def wait_until_ready(
    is_ready: Callable[[], bool], *, timeout_s: float, is_alive: Callable[[], bool] = lambda: True, poll_s: float = _POLL_S
) -> Readiness:
    """Ask `is_ready` until it is true, the process behind it is not alive any more, or `timeout_s` has passed.

    What `is_ready` raises ends the waiting: a service that will never become ready is recognised there.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_ready():
            return Readiness.READY
        if not is_alive():
            return Readiness.DIED
        time.sleep(poll_s)
    return Readiness.LATE


def _innermost(error: BaseException) -> BaseException:
    """The cause nearest to the network, below httpx's and httpcore's own errors."""
    while True:
        inside = error.args[0] if error.args else None  # where httpcore keeps what it wraps
        below = error.__cause__ or (inside if isinstance(inside, BaseException) else None)
        if below is None:
            return error
        error = below
