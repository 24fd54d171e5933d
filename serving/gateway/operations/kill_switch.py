"""What is stopped at this service, who may release it, and what holds while it hears nothing: the kill switch and its lease.

    orders   kills that an operator gave to this service itself; two different principals release them, where there are tokens
    list     the fleet's signed kill list, polled or pushed; what it names is released where it was ordered, never here

Each list renews the lease. When that has run out, the offline rule of the release is in force: "finish" the running episodes and
begin no other, "stop" at once, or begin so many further "episodes" first. A service that is given no key of a fleet has no lease.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_core.spec.errors import SpecError, WireError
from model_core.spec.files import atomic_write
from model_core.spec.fleet.kill_list import (
    MOST_KILLS,
    Kill,
    KillList,
    KillTarget,
    Scope,
    check_successor,
    find_kill,
    read_kills,
    written_kills,
)
from model_core.spec.fleet.release import OfflineRule, described_rule
from model_core.spec.fleet.signatures import opened, read_public, trusted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

logger = logging.getLogger(__name__)

SECOND_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTies:
    """How this service belongs to a fleet. keys: who may sign kill lists. state: a file that keeps what is stopped over restarts.

    offline: of the release; in force when nothing was heard for its `after_s`, and never before the lease of the last list has run out.
    """

    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    site: str = ""
    release: str = ""
    offline: OfflineRule = field(default_factory=lambda: OfflineRule(after_s=1.0))
    state: Path | None = None


@dataclass(slots=True)
class _AskedRelease:
    subject: str
    digest: str
    at: float
    ids: frozenset[str]


@dataclass(slots=True)
class KillSwitch:
    """The kills in force. Lives on the event loop. clock: monotonic seconds; wall: seconds since 1970, for the record only."""

    ties: FleetTies = field(default_factory=FleetTies)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    orders: dict[str, Kill] = field(default_factory=dict)
    fleet_list: KillList | None = None
    began_offline: set[str] = field(default_factory=set)
    _message: bytes = b""
    _heard_at: float | None = None
    _asked: _AskedRelease | None = None

    def __post_init__(self) -> None:
        if self.ties.state is not None and self.ties.state.exists():
            self._restore(self.ties.state)
        if self.ties.keys:
            self._heard_at = self.clock()  # a start counts as contact: the first list has one lease's time to come

    @property
    def in_force(self) -> Sequence[Kill]:
        """Every kill, the fleet's first."""
        return (*(() if self.fleet_list is None else self.fleet_list.kills), *self.orders.values())

    def stopped(self, model: str, bundle_digest: str, cell: str) -> str:
        """Why this cell gets no answer of this model; "" while it does."""
        kills = self.in_force
        found = find_kill(kills, self.target(model, bundle_digest), cell) if kills else None
        return "" if found is None else found.explained

    def target(self, model: str, bundle_digest: str) -> KillTarget:
        """What this service is, as kills name it."""
        digests = tuple(digest for digest in (bundle_digest, self.ties.release) if digest)
        return KillTarget(model=model, digests=digests, site=self.ties.site)

    # --- orders at this service -----------------------------------------------------------------------------------------

    def order(self, scope: Scope, value: str, reason: str, by: str) -> Kill:
        """Stop something here. Raises `WireError` for a scope without its value, and when too many are in force."""
        if len(self.orders) >= MOST_KILLS:
            raise WireError(f"{MOST_KILLS} kills are in force here, the most that are kept. Fix: release some")
        kill = Kill(id=f"k-{uuid.uuid4().hex[:16]}", scope=scope, value=value, reason=reason[:200], by=by[:200], at_s=round(self.wall(), 3))
        self.orders[kill.id] = kill
        self._save()
        return kill

    def release(self, subject: str, digest: str) -> str:
        """One principal releases every order at this service. Returns "" when they are released, else what is still missing.

        digest: of the token, "" where the service has none and therefore cannot tell two callers apart: then one is enough. The same
        principal counts once, whatever token it shows; a kill that was ordered after the first has asked needs both again.
        """
        if not self.orders:
            return ""
        first, now = self._asked, self.clock()
        is_second = first is not None and now - first.at <= SECOND_WITHIN_S and set(self.orders) <= first.ids
        if digest and not is_second:
            self._asked = _AskedRelease(subject, digest, now, frozenset(self.orders))
            return f"{subject!r} asks to release; a second principal has to within {SECOND_WITHIN_S:g} s"
        if digest and first is not None and (subject == first.subject or digest == first.digest):
            return f"{subject!r} has asked already; the second has to be another person"
        self.orders.clear()
        self._asked = None
        self._save()
        return ""

    # --- the fleet's list -----------------------------------------------------------------------------------------------

    def accept(self, message: bytes) -> KillList | None:
        """Take a signed list in; None for the one that is in force, again. Raises `WireError` for any other that may not follow it."""
        if not self.ties.keys:
            raise WireError("this service belongs to no fleet. Fix: start it with --fleet FILE, which names the key that signs kill lists")
        if message == self._message:
            return None
        new = opened(message, KillList, self.ties.keys)
        known = self.fleet_list
        check_successor(known, new)
        self.fleet_list, self._message, self._heard_at = new, message, self.clock()
        self.began_offline.clear()
        if known is None or (known.kills, known.released) != (new.kills, new.released):
            self._save()  # a renewal alone is not worth a write: an older list of equal content lets nothing go
        return new

    @property
    def lease_s(self) -> float:
        """How long a list may be relied on, as the last one said."""
        return 10.0 if self.fleet_list is None else self.fleet_list.lease_s

    def lease_left_s(self) -> float | None:
        """Seconds until the offline rule is in force; None without a fleet."""
        return None if self._heard_at is None else max(self._heard_at + self._patience_s - self.clock(), 0.0)

    @property
    def _patience_s(self) -> float:
        return max(self.lease_s, self.ties.offline.after_s)

    @property
    def is_offline(self) -> bool:
        """The lease has run out."""
        return self.lease_left_s() == 0.0

    def offline_stop(self) -> str:
        """Why nothing is answered now; "" while the rule lets episodes go on."""
        return f"the fleet was not heard for {self._patience_s:g} s (offline rule: stop)" if self._rules("stop") else ""

    def offline_episode(self, episode: str) -> str:
        """Why this new episode may not begin; "" while it may, which is counted."""
        if not self.is_offline:
            return ""
        rule = self.ties.offline
        if rule.then == "episodes" and (episode in self.began_offline or len(self.began_offline) < rule.episodes):
            self.began_offline.add(episode)
            return ""
        tail = f", {rule.episodes} episodes were begun since" if rule.then == "episodes" else ""
        return f"the fleet was not heard for {self._patience_s:g} s (offline rule: {rule.then}{tail}); no new episode begins"

    def _rules(self, kind: str) -> bool:
        return self.is_offline and self.ties.offline.then == kind

    def document(self) -> dict[str, Any]:
        """For operators: what is stopped, the fleet's list, and the lease."""
        return {
            "kills": written_kills(self.in_force),
            "list_number": 0 if self.fleet_list is None else self.fleet_list.number,
            "lease_left_s": self.lease_left_s(),
            "offline_rule": described_rule(self.ties.offline),
            "release_asked_by": "" if self._asked is None else self._asked.subject,
        }

    # --- over restarts --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Keep it on the disk; one that takes nothing delays no stop: it is in force in memory, and the log says that it is there alone."""
        if self.ties.state is None:
            return
        orders = written_kills(self.orders.values())
        try:
            atomic_write(self.ties.state, json.dumps({"orders": orders, "list": self._message.decode()}, indent=1))
        except OSError:
            logger.exception("kills.unwritten file=%s; what is stopped now is lost with this process", self.ties.state)

    def _restore(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.orders = {kill.id: kill for kill in read_kills(found["orders"])}
            if found["list"]:
                self._message = found["list"].encode()
                self.fleet_list = opened(self._message, KillList, self.ties.keys)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"kill state: {path} cannot be read: {error}. Fix: look at what was stopped, then move the file away"
            raise SpecError(text) from error


def kill_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """The public key (PEM) that signs a fleet's kill lists, by its id. Raises SpecError for a file that holds none."""
    try:
        return trusted(read_public(path.read_text(encoding="utf-8"), str(path)))
    except OSError as error:
        raise SpecError(f"kill key: {path} cannot be read: {error.strerror}") from error
