"""An independent reader of what a cell left behind: its driver's log and its audit files, held against each other.

Shares no code with what wrote them, nor with the product's own readers: JSON lines, the `mcap` library, and the rules of docs/audit.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mcap.reader import make_reader

WHOLE = {"success", "max_steps", "refused"}  # how an episode ends that nothing cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """An episode as the driver logged it. commands: those that were answers of the policy, and moved. breach: what it refused and ended the
    episode for, "" for nothing. from_s, to_s: on the monotonic clock."""

    seed: int
    from_s: float
    to_s: float
    commands: Sequence[Mapping[str, Any]]
    breach: str = ""
    late: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one cell's records say. ended: how many episodes ended in which way; faulted: those that ended otherwise than whole while
    `excused` says so. late: commands that the driver rejected, because they came to it after their time (a cell process the machine had
    stopped between its own check and the driver's). cut, changed, lost: findings, each a sentence."""

    episodes: int = 0
    commands: int = 0
    records: int = 0
    versions: frozenset[str] = frozenset()
    ended: Mapping[str, int] = field(default_factory=dict[str, int])
    faulted: int = 0
    late: int = 0
    cut: Sequence[str] = ()
    changed: Sequence[str] = ()
    lost: Sequence[str] = ()


def driven(log: Path) -> list[Driven]:
    """The episodes in a driver's log in which it was given commands, oldest first."""
    found: list[Driven] = []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    starts = [number for number, line in enumerate(lines) if line.get("event") == "reset"]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        breach = next((number for number in range(start, end) if lines[number].get("event") == "breach"), None)
        executed = lines[start:end] if breach is None else lines[start : breach - 1]  # it logs a command, and then that it refuses it
        moves = [line for line in executed if "event" not in line and line["chunk_id"]]
        why = "" if breach is None else "; ".join(lines[breach]["found"])
        times = {"from_s": lines[start]["t"], "to_s": lines[end - 1]["t"]}
        late = sum(line.get("event") == "rejected" and line["late_s"] > 0 for line in lines[start:end])
        found.append(Driven(seed=lines[start]["seed"], commands=moves, breach=why, late=late, **times))
    return found


def audited(file: Path) -> list[dict[str, Any]]:
    """The records of an audit file, in order, with the hash of each under "hash"."""
    with file.open("rb") as stream:
        messages = make_reader(stream, validate_crcs=True).iter_messages(log_time_order=False)
        return [
            {**json.loads(message.data), "hash": hashlib.sha256(message.data).hexdigest()}
            for _, channel, message in messages
            if channel.topic.startswith("/actwright/")
        ]


def read(name: str, log: Path, audit: Path, excused: Iterable[tuple[float, float]]) -> Read:
    """Read everything of one cell. excused: spans on the monotonic clock in which a fault was done to its policy service itself."""
    spans, files = list(excused), sorted(audit.glob("**/[0-9]*-*.mcap"))
    drives = driven(log)
    cut, changed, lost = list[str](), list[str](), list[str]()
    ended: dict[str, int] = {}
    versions: set[str] = set()
    faulted = records = 0
    tip = "0" * 64
    if len(files) != len(drives):
        lost.append(f"{name}: the driver began {len(drives)} episodes, {len(files)} are audited")
    for drive, file in zip(drives, files, strict=False):
        where = f"{name}, {file.name}"
        notes = audited(file)
        records += len(notes)
        lost += [f"{where}: {why}" for why in (*_chain(notes, tip), *_missing(drive, notes))]
        tip = notes[-1]["hash"]
        versions |= {str(note["model_version"]) for note in notes if "model_version" in note}
        changed += [f"{where}: {why}" for why in _changes(drive, notes)]
        reason = next((str(note["stop_reason"]) for note in notes if note["kind"] == "end"), "no end")
        ended[reason] = ended.get(reason, 0) + 1
        if reason in WHOLE:
            continue
        if not drive.breach and any(from_s <= drive.to_s and drive.from_s <= to_s for from_s, to_s in spans):
            faulted += 1
        else:
            cut.append(f"{where}: it ended with {reason} {drive.breach}".rstrip())
    return Read(
        episodes=len(drives),
        commands=sum(len(drive.commands) for drive in drives),
        records=records,
        versions=frozenset(versions),
        ended=ended,
        faulted=faulted,
        late=sum(drive.late for drive in drives),
        cut=cut,
        changed=changed,
        lost=lost,
    )


def _chain(notes: Sequence[Mapping[str, Any]], tip: str) -> Iterator[str]:
    """Every record names the one before it, the first one the last of the file before, and the last one counts all of them."""
    if notes[0]["before"]["tip"] != tip:
        yield "it does not follow the file before it"
    for number, (before, note) in enumerate(pairwise(notes), start=1):
        if (note["n"], note["previous"]) != (number, before["hash"]):
            yield f"record {note['n']} does not follow record {before['n']}"
            return
    seal = notes[-1]
    counted = {"decisions": "decision", "executed": "executed"}
    if seal["kind"] != "seal" or not seal["complete"] or seal["counts"]["lost_records"]:
        yield "it was not closed as complete"
    elif any(seal["counts"][name] != sum(note["kind"] == kind for note in notes) for name, kind in counted.items()):
        yield "its own counts differ from its records"


def _missing(drive: Driven, notes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The commands that the driver was given are those that the audit says were sent, one by one."""
    given = [(line["chunk_id"], line["row"]) for line in drive.commands]
    said = [(note["chunk_id"], note["row"]) for note in notes if note["kind"] == "executed" and note["chunk_id"]]
    if drive.seed != notes[0]["seed"]:
        yield f"it is of seed {notes[0]['seed']}, and the driver was reset with {drive.seed}"
    elif given != said:
        yield f"the driver was given {len(given)} commands of the policy, {len(said)} are audited, or in another order"


def _changes(drive: Driven, notes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One model version, bundle and contract, by both."""
    for name in ("model_version", "contract_id"):
        values = {str(one[name]) for one in (*drive.commands, *notes) if one.get(name)}
        if len(values) > 1:
            yield f"{name} is {' and '.join(sorted(values))}"
    bundles = {str(note["bundle_digest"]) for note in notes if note.get("bundle_digest")}
    if len(bundles) > 1:
        yield f"bundle_digest is {' and '.join(sorted(one[:12] for one in bundles))}"
