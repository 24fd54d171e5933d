"""How a cell proves who it is, and whom it believes: a bearer token from a file or the environment, TLS with a CA file."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.errors import SpecError

TOKEN_VARIABLE = "ACTWRIGHT_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """token_file: read anew at every connect, so that a renewed token is used; without it the environment's ACTWRIGHT_TOKEN.

    ca_file: certificates that may sign the service's (wss only); None: the system's.
    """

    token_file: Path | None = None
    ca_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """What to send with the handshake; nothing when there is no token. Raises SpecError for a file without one."""
        token = os.environ.get(TOKEN_VARIABLE, "")
        if self.token_file is not None:
            try:
                token = self.token_file.read_text(encoding="utf-8", errors="replace")  # what is no text is no token either
            except OSError as error:
                raise SpecError(f"token file {self.token_file}: {error.strerror}") from error
            if not token.strip():
                raise SpecError(f"token file {self.token_file} is empty")
        token = token.strip()
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise SpecError("the token must be printable ASCII without spaces")  # and is not shown
        return {"Authorization": f"Bearer {token}"} if token else {}

    def tls(self, url: str) -> ssl.SSLContext | None:
        """The context for `url`: None for ws://. Raises SpecError for a CA file that cannot be read."""
        if not url.startswith("wss://"):
            return None
        try:
            return ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise SpecError(f"CA file {self.ca_file}: {error}") from error
