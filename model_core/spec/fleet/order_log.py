"""The log of everything that persons and rules did to a fleet: a chain in which each entry carries the hash of the one before.

The hash is SHA-256 of the entry in canonical JSON, the hash of the entry before included. Who changes, leaves out or moves an entry breaks
the chain there; who cuts off its end does not, so the last hash (the head) is printed by every order, to be kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

BEFORE_FIRST = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One entry. detail: JSON text. number: from 1 without a gap."""

    number: int
    at_s: float
    subject: str
    role: str
    action: str
    detail: str
    previous: str
    hash: str

    @property
    def expected_hash(self) -> str:
        """What its content hashes to."""
        content = [self.number, self.at_s, self.subject, self.role, self.action, self.detail, self.previous]
        return hashlib.sha256(json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def first_problem(found: Iterable[LogEntry], *, previous: str = BEFORE_FIRST, number: int = 0) -> str:
    """What is wrong with a chain that goes on from an entry, in words; "" where nothing is."""
    for entry in found:
        if entry.number != number + 1:
            return f"entry {number + 1} is missing: {entry.number} follows {number}"
        if entry.previous != previous:
            return f"entry {entry.number} does not follow the one before it: expected {previous[:16]}, got {entry.previous[:16]}"
        if entry.hash != entry.expected_hash:
            return f"entry {entry.number} ({entry.action} by {entry.subject}) was changed: it does not give its hash {entry.hash[:16]}"
        number, previous = entry.number, entry.hash
    return ""
