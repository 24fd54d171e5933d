"""Bearer tokens with roles. Only SHA-256 digests of tokens are held, compared or written.

    observe    read: contract, models, status, metrics
    operate    act: sessions, /v1/act, the dialects; drain
    admin      stop: kill, and resume after it

A table is JSON, {sha256 of the token: {"subject": ..., "role": ..., "expires_at": seconds since 1970 or null}}, in a file or
in the environment. Without one the service answers every caller, and therefore must be bound to loopback.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError
from model_core.spec.settings import real, text

logger = logging.getLogger(__name__)

TOKENS_VARIABLE = "ACTWRIGHT_TOKENS"
TOKENS_FILE_VARIABLE = "ACTWRIGHT_TOKENS_FILE"
_EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
_SCHEMES = ("bearer", "api-key")  # the second is what the openpi client sends
_LONGEST_HEADER = 4096


class Role(enum.StrEnum):
    """What a token allows; each role may do what the ones before it may."""

    OBSERVE = "observe"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Whether this role is enough for something that needs `needed`."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The holder of a token. digest: of the token, "" for the caller that needs none. expires_at: seconds since 1970."""

    subject: str
    role: Role
    expires_at: float | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a caller is refused. status: 401 for an unknown caller, 403 for a known one without the needed role."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableEntry:
    subject: str
    role: Role
    expires_at: float | None = None

    def __post_init__(self) -> None:
        text("subject", self.subject, longest=256)
        if self.expires_at is not None:
            real("expires_at", self.expires_at, high=1e12)


ANYBODY = Caller(subject="loopback", role=Role.ADMIN)


def token_digest(token: str) -> str:
    """SHA-256 of a token, as a token table holds it. Raises SpecError for an empty token."""
    return hashlib.sha256(text("token", token, longest=_LONGEST_HEADER).encode()).hexdigest()


def read_table(document: object) -> dict[str, Caller]:
    """A table of callers by token digest. Raises SpecError naming the entry that is wrong; it never repeats a whole digest."""
    if not isinstance(document, Mapping) or not document:
        raise SpecError("tokens: expected a map {sha256 of a token: {subject, role, expires_at}} with at least one entry")
    table = {}
    for digest, entry in document.items():
        name = f"tokens[{str(digest)[:8]}...]"
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise SpecError(f"{name}: expected the SHA-256 of a token, 64 lower-case hex digits (never the token itself)")
        if digest == _EMPTY_DIGEST:
            raise SpecError(f"{name}: this is the digest of the empty token; make a token, for example with `openssl rand -hex 32`")
        given = from_document(_TableEntry, entry, where=name)
        table[digest] = Caller(subject=given.subject, role=given.role, expires_at=given.expires_at, digest=digest)
    return table


class Tokens:
    """The current token table. A table in a file is read again when the file changes; an invalid one leaves the last valid one in force.

    skew_s: tolerated difference of clocks at an expiry. clock: seconds since 1970.
    """

    def __init__(
        self, table: Mapping[str, Caller], *, path: Path | None = None, skew_s: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._table, self._path, self._skew_s, self._clock = dict(table), path, skew_s, clock
        self._stamp = _stamp(path)
        self._looked_at = clock()

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> Tokens | None:
        """The table that the environment names, or None where it names none. Raises SpecError for one that cannot be used."""
        inline, file = environment.get(TOKENS_VARIABLE), environment.get(TOKENS_FILE_VARIABLE)
        if inline is not None and file is not None:
            raise SpecError(f"{TOKENS_VARIABLE} and {TOKENS_FILE_VARIABLE} are both set; give one of them")
        if file is not None:
            return Tokens.from_file(Path(text(TOKENS_FILE_VARIABLE, file)))
        return None if inline is None else Tokens(read_table(_parsed(TOKENS_VARIABLE, inline)))

    @staticmethod
    def from_file(path: Path, *, clock: Callable[[], float] = time.time) -> Tokens:
        """The table in a JSON file."""
        try:
            content = path.read_text()
        except OSError as error:
            raise SpecError(f"the token file {path} cannot be read: {error.strerror}") from error
        return Tokens(read_table(_parsed(str(path), content)), path=path, clock=clock)

    def admit(self, header: str | None, needed: Role) -> Caller | Denial:
        """The caller who sends this Authorization header, if its role is enough for `needed`."""
        token = _token_in(header)
        if token is None:
            return Denial(status=401, reason="no token: send the header 'Authorization: Bearer <token>'")
        self._refresh()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found: Caller | None = None
        for known, caller in self._table.items():  # all of them, in constant time each: the duration reveals nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            return Denial(status=401, reason="the token is not known here")
        if self._is_over(found):
            return Denial(status=401, reason=f"the token of {found.subject!r} has expired; ask for a new one")
        if not found.role.allows(needed):
            return Denial(status=403, reason=f"{found.subject!r} has the role {found.role}, this needs {needed}")
        return found

    def still_valid(self, caller: Caller) -> bool:
        """Whether an admitted caller would be admitted again: not expired, not revoked."""
        self._refresh()
        current = self._table.get(caller.digest)
        return current is not None and not self._is_over(current) and current.role.allows(caller.role)

    def _is_over(self, caller: Caller) -> bool:
        return caller.expires_at is not None and self._clock() > caller.expires_at + self._skew_s

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or abs(now - self._looked_at) < 1.0:
            return
        self._looked_at = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._table = read_table(_parsed(str(self._path), self._path.read_text()))
        except (OSError, SpecError) as error:
            logger.error("tokens.unreadable file=%s error=%s; the last valid table stays in force", self._path, error)  # noqa: TRY400
        else:
            logger.info("tokens.read file=%s entries=%d", self._path, len(self._table))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_this_machine(host: str) -> bool:
    """Whether a `Host` header is a name of loopback, or 0.0.0.0, by which clients reach it too. A foreign name that was pointed at this
    machine (DNS rebinding) is not."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name == "0.0.0.0"


def is_foreign_origin(origin: str | None, host: str | None, scheme: str = "") -> bool:
    """Whether the `Origin` header of a request names another site than its `Host`; programs send none. scheme: where it counts too."""
    if origin is None:
        return False
    found, separator, place = origin.partition("://")
    return not separator or place != host or (bool(scheme) and found != scheme)


def check_binding(host: str, tokens: Tokens | None) -> None:
    """Raise SpecError when a service without tokens would be reachable from elsewhere."""
    if tokens is None and not is_loopback(host):
        raise SpecError(
            f"host: {host!r} is reachable from other machines, and no tokens are configured; set {TOKENS_FILE_VARIABLE} "
            f"or {TOKENS_VARIABLE}, or bind to 127.0.0.1"
        )


def _token_in(header: str | None) -> str | None:
    if header is None or len(header) > _LONGEST_HEADER:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    return token if scheme.lower() in _SCHEMES and token else None


def _parsed(name: str, content: str) -> object:
    try:
        return json.loads(content)
    except ValueError as error:
        # Not the parser's own message: it may quote what it could not read.
        raise SpecError(f"{name}: this is not JSON; expected {{sha256 of a token: {{subject, role, expires_at}}}}") from error


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        return None if path is None else ((found := path.stat()).st_mtime_ns, found.st_size)
    except OSError:
        return None
