"""Who became champion, in which order: one entry each time, numbered from 1 for each model without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

How = Literal["gate", "person", "rollback", "withdrawn", "taken over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionEntry:
    """From this entry on `version` is champion of `model`, until the next entry.

    number: the fencing number; it only grows, and one caller has each. version: None from here on no version is champion. replaced: the
    champion before, None where there was none. checkpoint_digest: of the version, so that a registry that began again is noticed.
    how: by whose decision; "taken over" from a registry that kept none of these entries, "withdrawn" by a person or with a deleted version.
    reason: one sentence. recorded_at: UTC, ISO 8601; "" before it is recorded.
    """

    model: str
    number: int
    version: int | None
    replaced: int | None
    how: How
    checkpoint_digest: str = ""
    reason: str = ""
    recorded_at: str = ""


def version_to_roll_back_to(history: Sequence[ChampionEntry]) -> int | None:
    """The version that the champion replaced when it was promoted, so that a second rollback goes one further back; None where it
    replaced none. history: oldest first."""
    if not history or history[-1].version is None:
        return None
    now = history[-1].version
    return next((one.replaced for one in reversed(history) if one.version == now and one.how != "rollback"), None)
