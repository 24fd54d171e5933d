"""A policy service as a person addresses it: its two URLs, the credentials to show, and what it answers over HTTP."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.adapters.http import NoAnswerError, get
from model_core.spec.errors import NotReady, SpecError
from model_core.spec.protocol.trust import bearer, distrust, tls_context

SESSION_PATH = "/v1/session"
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrl:
    """One service by its two addresses."""

    http: str
    session: str

    @staticmethod
    def of(text: str, *, before: str = "") -> ServiceUrl:
        """Read an address as a person types it. Raises SpecError stating what to type instead; before: what is typed in front of it."""
        parts = urlsplit(text if "://" in text else f"//{text}")
        typed = f"{before}http://{parts.netloc or text}"
        if "://" not in text:
            raise SpecError(f"{text!r} lacks its http://; type: {typed}")
        if parts.scheme not in _SCHEMES:
            raise SpecError(f"{text!r}: the scheme must be one of {', '.join(_SCHEMES)}, such as {typed}")
        try:
            port = parts.port
        except ValueError as error:
            raise SpecError(f"{text!r}: {error}; an address looks like http://127.0.0.1:3000") from error
        if not parts.hostname or parts.path.rstrip("/") not in ("", SESSION_PATH) or parts.query:
            raise SpecError(
                f"{text!r} is not the address of a service; it looks like http://{parts.hostname or '127.0.0.1'}:{port or 3000}"
            )
        ws = _SCHEMES[parts.scheme]
        return ServiceUrl(http=f"{'https' if ws == 'wss' else 'http'}://{parts.netloc}", session=f"{ws}://{parts.netloc}{SESSION_PATH}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCredentials:
    """What to show and whom to trust. token: bearer token, "" for none. ca_file: who may sign its certificate (None: the system's)."""

    token: str = ""
    ca_file: Path | None = None
    timeout_s: float = 10.0

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        return bearer(self.token)

    def tls(self, url: str) -> ssl.SSLContext | None:
        """The context for `url`; None without TLS. Raises SpecError for a CA file that cannot be read."""
        return tls_context(url, self.ca_file)


def fetch(url: str, credentials: ServiceCredentials) -> bytes:
    """What a GET of `url` gives. Raises NotReady, which states what to do, for any other answer and for none."""
    try:
        reply = get(url, timeout_s=credentials.timeout_s, headers=credentials.headers, tls=credentials.tls(url))
    except NoAnswerError as error:
        if error.closed and url.startswith("http://"):
            raise NotReady(f"{url}: the connection was closed without an answer; where the service speaks TLS, type https://") from error
        if error.not_http:
            raise NotReady(f"{url} does not speak HTTP ({type(error.reason).__name__}); is this an actwright service?") from error
        raise NotReady(f"no service answers at {url} ({_why(error.reason)}); start a service with `actwright serve`") from error
    if reply.ok:
        return reply.body
    content = _first_line(reply.body[:300].decode(errors="replace"))
    if reply.status in (401, 403):
        raise NotReady(f"{url} answered {reply.status}: {content}; give a token (--token-file, or ACTWRIGHT_TOKEN)")
    raise NotReady(f"{url} answered {reply.status} ({content}); is this an actwright service?")


def _first_line(text: str) -> str:
    """What a service that is not ours answers, in a few words: a page of HTML helps no reader."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "a page of HTML" if line.startswith("<") else line[:120]


def _why(reason: BaseException) -> str:
    text = str(reason) or type(reason).__name__
    if isinstance(reason, ssl.SSLCertVerificationError):
        return distrust(reason)
    if "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS; type http:// in place of https://"
    return text
