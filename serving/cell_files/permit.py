"""What a cell may do next: which policy service answers it (permit.json), and when its controller was last heard of (contact.json).

The agent writes both, the cell reads them when an episode begins. permit.json changes only while the agent holds the update lock, so
that no episode ever sees two. Whether an episode may begin is judged by the cell itself: an agent that is dead, frozen or cut off is a
controller that is not heard of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import NotReady
from model_core.spec.files import atomic_write
from model_core.spec.fleet.release import OfflineRule, Override
from serving.cell_files.boot_clock import Moment, age_s

PERMIT, CONTACT = "permit.json", "contact.json"
T = TypeVar("T", "Permit", "Contact")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The service that answers. url: of its sessions (ws://...). release, number: digest, and place in the site's list. bundle_digest,
    contract_id: what the service itself must say that it serves. slot: where the agent keeps it."""

    url: str
    slot: str
    release: str
    number: int
    bundle_digest: str
    contract_id: str
    offline: OfflineRule = OfflineRule()
    override: Override | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """at: when the controller last answered. begun: how many episodes the cell had begun then. blocked: releases that it forbids."""

    at: Moment
    begun: int = 0
    blocked: tuple[str, ...] = ()


def write_permit(folder: Path, permit: Permit) -> None:
    """Replace the permit, on the disk before it is visible."""
    atomic_write(folder / PERMIT, _text(permit))


def write_contact(folder: Path, contact: Contact) -> None:
    """Replace the contact; one that a power cut takes is only older."""
    atomic_write(folder / CONTACT, _text(contact), durable=False)


def read_permit(folder: Path) -> Permit | None:
    """The permit; None where there is none yet. Raises `NotReady` for one that cannot be read: the cell holds."""
    return _read(folder / PERMIT, Permit)


def read_contact(folder: Path) -> Contact | None:
    """The contact; None where the controller never answered. Raises `NotReady` for one that cannot be read."""
    return _read(folder / CONTACT, Contact)


def is_lost(permit: Permit, contact: Contact | None, now: Moment) -> bool:
    """The controller was not heard of for longer than the release allows."""
    return contact is None or age_s(contact.at, now) > permit.offline.after_s


def episodes_left(permit: Permit, contact: Contact | None, now: Moment, begun: int) -> int | None:
    """How many episodes may still begin; None where they are not limited. begun: how many the cell has begun so far."""
    if not is_lost(permit, contact, now):
        return None
    if permit.offline.then != "episodes" or contact is None:
        return 0
    return max(permit.offline.episodes - (begun - contact.begun), 0)


def why_none_begins(permit: Permit, contact: Contact | None, now: Moment, begun: int) -> str:
    """Why no episode may begin; "" where one may."""
    if contact is not None and permit.release in contact.blocked:
        return f"release {permit.release[:16]} is blocked by the controller"
    if episodes_left(permit, contact, now, begun) == 0:
        since = "never answered" if contact is None else f"was last heard of {age_s(contact.at, now):.0f} s ago"
        return f"the controller {since}, and release {permit.release[:16]} allows no further episode without it ({permit.offline.then})"
    return ""


def why_it_must_stop(permit: Permit, contact: Contact | None, now: Moment) -> str:
    """Why a running episode must end in a hold now; "" where it may go on."""
    if permit.offline.then == "stop" and is_lost(permit, contact, now):
        return f"the controller was not heard of for {permit.offline.after_s:g} s, and release {permit.release[:16]} stops without it"
    return ""


def _text(value: object) -> str:
    return json.dumps(to_document(value), indent=1, sort_keys=True) + "\n"


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return from_document(kind, json.loads(path.read_bytes()), where=str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise NotReady(f"{path} cannot be read: {error}. Fix: start the agent of this cell, which writes it again") from error
