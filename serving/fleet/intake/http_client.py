"""HTTP as the agent needs it: one exchange, or the rest of a file from a byte on.

Every call is bounded in time and size; redirects are not followed.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from model_core.spec.protocol.trust import tls_context
from serving.fleet.intake.problems import UpdateRefused

CHUNK_BYTES = 64 * 1024


class HttpStatus(UpdateRefused):
    """An answer other than 2xx. ``args`` is (code, message, status, begin of the body)."""

    @property
    def status(self) -> int:
        """As it was answered."""
        return self.args[2]

    @property
    def body(self) -> bytes:
        """What came with it, at most 64 KiB."""
        return self.args[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClient:
    """timeout_s: for connecting, and for each read. ca_file: who may sign certificates (None: the system's). headers: sent always."""

    timeout_s: float
    ca_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def exchange(self, url: str, body: bytes | None = None, *, most: int) -> bytes:
        """The body of the answer to a GET, or to a POST of `body`. Raises `UpdateRefused` UNREACHABLE."""
        with self._open(url, body) as answer:
            return b"".join(_bounded(answer, url, most))

    def rest(self, url: str, start: int, most: int) -> Iterator[bytes]:
        """What is left of a file from byte `start` on; a server that knows no ranges gives all of it, of which `start` bytes are left out.

        Raises `UpdateRefused` UNREACHABLE.
        """
        with self._open(url, None, {"Range": f"bytes={start}-"} if start else {}) as answer:
            skip = 0 if answer.status == 206 or not start else start
            for chunk in _bounded(answer, url, most if skip else most - start):
                yield chunk[skip:]
                skip = max(skip - len(chunk), 0)

    def _open(self, url: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, data=body, headers={**self.headers, **(headers or {})})
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            return _opener(url, self.ca_file).open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                body = error.read(CHUNK_BYTES)
            told = body[:300].decode(errors="replace") or error.reason
            raise HttpStatus("UNREACHABLE", f"{_place(url)} answered {error.code}: {told}", error.code, body) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UpdateRefused("UNREACHABLE", f"{_place(url)} does not answer: {error}") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Another place is never asked instead: it would be shown the headers, the token among them."""

    def redirect_request(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """None: the answer that names another place is one that is not 2xx."""


def _opener(url: str, ca_file: Path | None) -> urllib.request.OpenerDirector:
    """Through the environment's proxy, if there is one; never to this computer itself."""
    context = tls_context(url, ca_file) or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # from http nothing leads to https: it trusts no one
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context), _NoRedirects()]
    if urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost"):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _bounded(answer: http.client.HTTPResponse, url: str, most: int) -> Iterator[bytes]:
    got = 0
    while True:
        try:
            chunk = answer.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UpdateRefused("UNREACHABLE", f"{_place(url)} stopped after {got} bytes: {error}") from error
        if not chunk:
            return
        got += len(chunk)
        if got > most:
            raise UpdateRefused("UNREACHABLE", f"{_place(url)} sends more than {most} bytes")
        yield chunk


def _place(url: str) -> str:
    """The address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
