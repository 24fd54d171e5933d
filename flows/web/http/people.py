"""Who is asking: a bearer token in the header, or a session that a browser opened with a token or, on loopback, with a name.

A session is a random id in a cookie that scripts cannot read and other sites cannot send. The token stays in the memory of this process,
for orders to the fleet's controller, and reaches no file and no browser. A revoked or expired token ends its sessions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flows.web.http.endpoint import Person
from model_core.access import ANYBODY, Caller, Denial, Role, Tokens
from model_core.spec.settings import text

COOKIE = "actwright-console"
LIFE_S = 12 * 3600.0
_MOST_SESSIONS = 1000
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    caller: Caller
    name: str
    used_at_s: float
    token: str = field(repr=False)


class People:
    """The sessions of one console. tokens: None where every caller of this machine may do everything. clock: monotonic seconds."""

    def __init__(self, tokens: Tokens | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens, self._clock = tokens, clock
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    @property
    def needs_token(self) -> bool:
        """A person has to show a token first."""
        return self._tokens is not None

    def enter(self, token: str, name: str) -> Person | Denial:
        """Open a session. name: by which others know the person; with a token its subject counts. Raises SpecError for a long name."""
        name = text("name", name.strip(), longest=_LONGEST_NAME) if name.strip() else ""
        caller = ANYBODY
        if self._tokens is not None:
            admitted = self._tokens.admit(f"Bearer {token}", Role.OBSERVE)
            if isinstance(admitted, Denial):
                return admitted
            caller, name = admitted, admitted.subject
        else:
            token = ""
        key = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.pop(min(self._sessions, key=lambda one: self._sessions[one].used_at_s))
            self._sessions[key] = _Session(caller=caller, name=name or caller.subject, used_at_s=self._clock(), token=token)
        return Person(name=name or caller.subject, role=caller.role, session=key)

    def leave(self, session: str) -> Person | None:
        """End a session; whose it was. One that is not known, or is over, is none."""
        found = self._session(session)
        with self._lock:
            self._sessions.pop(session, None)
        return None if found is None else Person(name=found.name, role=found.caller.role)

    def who(self, cookie: str | None, header: str | None, needed: Role) -> Person | Denial:
        """The person behind a request, if the role is enough for `needed`."""
        if self._tokens is not None and header is not None:
            admitted = self._tokens.admit(header, needed)
            if isinstance(admitted, Denial):
                return admitted
            return Person(name=admitted.subject, role=admitted.role, token=header.partition(" ")[2].strip())
        found = self._session(cookie or "")
        if found is None:
            if self._tokens is None:
                return Person(name=ANYBODY.subject, role=ANYBODY.role)
            return Denial(status=401, reason="no session and no token: sign in, or send the header 'Authorization: Bearer <token>'")
        if not found.caller.role.allows(needed):
            return Denial(status=403, reason=f"{found.name!r} has the role {found.caller.role}, this needs {needed}")
        return Person(name=found.name, role=found.caller.role, session=cookie or "", token=found.token)

    def _session(self, key: str) -> _Session | None:
        with self._lock:
            found, now = self._sessions.get(key), self._clock()
            if found is None:
                return None
            is_over = now - found.used_at_s > LIFE_S or (self._tokens is not None and not self._tokens.still_valid(found.caller))
            if is_over:
                del self._sessions[key]
                return None
            self._sessions[key] = replace(found, used_at_s=now)
            return found
