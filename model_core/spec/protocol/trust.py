"""How a client identifies itself, and whom it trusts: bearer tokens, TLS contexts, messages on a refused certificate. No socket."""

from __future__ import annotations

import ssl
from pathlib import Path

from model_core.spec.errors import SpecError

_TLS = ("https://", "wss://")
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def checked_token(text: str, named: str) -> str:
    """The token that a file or a variable holds, "" for none. named: where it stands. Raises SpecError, which does not show it."""
    token = text.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise SpecError(f"{named}: a token is one line of printable ASCII without spaces; what is there is none (and is not shown)")
    return token


def bearer(token: str) -> dict[str, str]:
    """What goes with every request; nothing where there is no token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """The context for `url`, None without TLS. ca_file: who may sign the service's certificate (None: the system's). Raises SpecError."""
    if not url.startswith(_TLS):
        return None
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:  # an SSLError too: the file is no certificate
        raise SpecError(f"CA file {ca_file} holds no certificate in PEM that can be read: {error}") from error


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Why a service's certificate is not trusted, and what to do. Dialling again does not help."""
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is for another name ({error.verify_message}); call it by the name that it was made for"
    return f"its certificate is not trusted here ({error.verify_message}); name who signed it with --ca-file"
