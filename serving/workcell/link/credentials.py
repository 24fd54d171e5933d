"""How a cell authenticates itself and the service: a bearer token from a file or the environment, TLS with a CA file."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from model_core.spec.errors import SpecError
from model_core.spec.protocol.messages import MAX_MESSAGE_BYTES
from model_core.spec.protocol.trust import bearer, checked_token, tls_context

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "ACTWRIGHT_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """token_file: read at every connect, so that a renewed token is used; without it `token`, else the environment's ACTWRIGHT_TOKEN.

    ca_file: certificates that may sign the service's (wss only); None: the system's.
    """

    token: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """What to send with the handshake; nothing when there is no token. Raises SpecError for a file without one."""
        token = self.token or os.environ.get(TOKEN_VARIABLE, "")
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8", errors="replace")  # what is no text is no token either
            except OSError as error:
                raise SpecError(f"token file {self.token_file}: {error.strerror}") from error
            if not token.strip():
                raise SpecError(f"token file {self.token_file} is empty")
        return bearer(checked_token(token, TOKEN_VARIABLE if self.token_file is None else f"token file {self.token_file}"))

    def tls(self, url: str) -> ssl.SSLContext | None:
        """The context for `url`: None for ws://. Raises SpecError for a CA file that cannot be read."""
        return tls_context(url, self.ca_file)


def checked_credentials(url: str, token_file: Path | None, ca_file: Path | None) -> Credentials:
    """Credentials whose files were looked at: one that is not there is a wrong command line, not a service that does not answer.

    Raises SpecError. Logs a warning where the token goes over an unencrypted line.
    """
    credentials = Credentials(token_file=token_file, ca_file=ca_file)
    place = urlsplit(url)
    if credentials.headers() and place.scheme == "ws" and place.hostname not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("token.unprotected: %s is not encrypted, anybody on the way can read the token; use wss://", place.netloc)
    credentials.tls(url)
    return credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a link goes, and how it shows who it is. url: "ws://host:port/v1/session" or "wss://..."."""

    url: str
    credentials: Credentials
    tls: ssl.SSLContext | None

    @staticmethod
    def of(url: str, credentials: Credentials) -> Destination:
        """Raises SpecError for a CA file that cannot be read."""
        return Destination(url=url, credentials=credentials, tls=credentials.tls(url))

    def dial(self) -> connect:
        """A connection that is not open yet."""
        return connect(
            self.url,
            additional_headers=self.credentials.headers(),
            ssl=self.tls,
            open_timeout=None,  # the core's own deadline covers connecting and greeting together
            close_timeout=0.2,
            ping_interval=None,  # heartbeats are messages of ours: they prove that the service lives, not only its socket
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        )


def reason_of(error: BaseException, url: str) -> str:
    """Why no service answers at `url`, for a person."""
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return "it does not speak TLS. Fix: start it with --cert and --key; ws:// is for a service on this very machine"
    if isinstance(error, InvalidMessage) and url.startswith("ws://"):
        return "it does not answer in HTTP; where it speaks TLS, call wss://"
    return f"{type(error).__name__}: {error}"
