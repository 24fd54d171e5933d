"""The fleet's kill list where no controller signs it: the next list after the last one, written whole for services to poll."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from components.artifacts.locks import locked
from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write
from model_core.spec.fleet.kill_list import MOST_RELEASED, Kill, KillList, ReleasedKill, Scope
from model_core.spec.fleet.signatures import opened, sealed, trusted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def read_last(path: Path, key: Ed25519PrivateKey) -> KillList | None:
    """The list that is there, which this key must have signed; None where there is none. Raises WireError for any other."""
    return opened(path.read_bytes(), KillList, trusted(key.public_key())) if path.exists() else None


def next_list(last: KillList | None, kills: Sequence[Kill], released: Sequence[ReleasedKill], *, now_s: float, lease_s: float) -> KillList:
    """What follows `last`: its kills and the new ones, without those that are released. Raises SpecError for a release of no kill. Pure."""
    known = {kill.id: kill for kill in (*(last.kills if last else ()), *kills)}
    for one in released:
        if known.pop(one.id, None) is None:
            raise SpecError(f"no kill {one.id} is in force. Fix: `actwright fleet kill-list FILE --key KEY` shows those that are")
    over = (*(last.released if last else ()), *released)[-MOST_RELEASED:]
    number = 1 if last is None else last.number + 1
    return KillList(number=number, sent_at_s=round(now_s, 3), lease_s=lease_s, kills=tuple(known.values()), released=over)


def sign_next(
    path: Path, key: Ed25519PrivateKey, kills: Sequence[Kill] = (), released: Sequence[ReleasedKill] = (), *, lease_s: float
) -> KillList:
    """Sign the list that follows the one at `path` and put it in its place; two programs that do so lose no kill of each other."""
    with locked(path.with_name(f".{path.name}.lock")):
        found = next_list(read_last(path, key), kills, released, now_s=time.time(), lease_s=lease_s)
        atomic_write(path, sealed(found, key))
    return found


def read_kill(text: str, *, reason: str, by: str, now_s: float) -> Kill:
    """ "fleet", or SCOPE=VALUE. Raises SpecError for another scope, WireError for a scope without its value."""
    scope, _, value = text.partition("=")
    if scope not in get_args(Scope):
        raise SpecError(f"--kill {text}: expected fleet, or digest, model, cell or site with a value, such as cell=cell-3")
    return Kill(id=f"k-{uuid.uuid4().hex[:12]}", scope=cast(Scope, scope), value=value, reason=reason, by=by, at_s=round(now_s, 3))


def read_released(text: str) -> ReleasedKill:
    """ID=NAME,NAME. Raises SpecError for another text, WireError where both are one person."""
    name, _, people = text.partition("=")
    first, _, second = people.partition(",")
    if not (name and first and second):
        raise SpecError(f"--release {text}: expected the id of a kill and the two persons who release it, such as k-12=ann,bob")
    return ReleasedKill(id=name, by=(first, second))
