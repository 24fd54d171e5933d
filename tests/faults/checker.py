"""The judge: reads a driver's log and an audit, and says which invariants were broken. It knows nothing of the workcell.

    driver line  {"t", "chunk_id", "session_id"?, "epoch", "seq", "contract_id", "row", "action": [A], "state": [P]}
    audit note   {"kind": "begin" | "decision" | "executed" | "event" | "end", ...}      (see `audit_notes`)

Everything is recomputed here from those two: which chunk a command came from, when that chunk expires, whether the row
that was answered gives the action that was sent. A command without a chunk id must be a hold, by this file's own idea of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = dict[str, Any]
EPS_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the commissioning of the robot allows, as plain numbers. hold: per dimension a value, or None for "as it was".

    mode: "absolute" or anything else. state_of: place in the state of each action dimension (absolute bodies), -1 for none.
    jump: largest distance of the first row of a chunk from the measured state, per dimension (absolute bodies).
    """

    low: Sequence[float]
    high: Sequence[float]
    hold: Sequence[float | None]
    mode: str = "delta"
    state_of: Sequence[int] = ()
    jump: Sequence[float] = ()
    tolerance: float = 1e-4


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken invariant."""

    invariant: str
    text: str


@dataclass(slots=True)
class Evidence:
    """One episode. lost: (from, until) in the driver's clock, when nothing could have come from the service; t_hold_s after `from`
    the driver must see holds until `until`. clock_s: how well the audit's clock is known in the driver's."""

    driver: list[Line]
    notes: list[Line]
    bounds: Bounds
    t_hold_s: float = math.inf
    lost: list[tuple[float, float]] = field(default_factory=list)
    clock_s: float = 1e-6


def read_driver_log(path: Path) -> list[Line]:
    """Every command in a strict driver's log, oldest first; its remarks (resets, stops) are left out, and a line that is being written."""
    lines = (json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n") and line.strip())
    return [line for line in lines if "action" in line]


def check(evidence: Evidence) -> list[Breach]:
    """Every breach of I1..I6, in the order of the log."""
    begun = next((note for note in evidence.notes if note["kind"] == "begin"), None)
    if begun is None:
        return [Breach("I6", "commands without an audited episode")] if evidence.driver else []
    chunks = {note["chunk"]["chunk_id"]: note for note in evidence.notes if note["kind"] == "decision" and note.get("chunk")}
    found: list[Breach] = []
    previous: Line | None = None
    for line in evidence.driver:
        found += _finite_and_inside(line, evidence.bounds)
        if line.get("chunk_id"):
            found += _of_the_session(line, chunks, evidence.notes, begun)
            found += _in_time(line, chunks, evidence.clock_s)
            found += _first_step(line, previous, evidence.bounds)
        else:
            found += _is_hold(line, previous, evidence.bounds)
        previous = line
    found += _held_after_loss(evidence)
    found += _one_version(evidence.driver, chunks, begun)
    found += _rebuilt(evidence, chunks)
    return found


def broken(evidence: Evidence) -> set[str]:
    """The invariants that were broken."""
    return {breach.invariant for breach in check(evidence)}


def _name(line: Line) -> str:
    return f"t={line['t']:.3f} chunk={line.get('chunk_id') or 'hold'} row={line.get('row')}"


def _of_the_session(line: Line, chunks: dict[str, Line], notes: Sequence[Line], begun: Line) -> list[Breach]:
    note = chunks.get(line["chunk_id"])
    if note is None:
        return [Breach("I1", f"{_name(line)}: no decision of the audit brought this chunk")]
    if note["outcome"] != "installed":
        return [Breach("I1", f"{_name(line)}: its chunk was {note['outcome']}")]
    chunk = note["chunk"]
    found = []
    for key in ("epoch", "seq"):
        if not line[key] == note[key] == chunk[key]:
            found.append(Breach("I1", f"{_name(line)}: {key} {line[key]}, asked as {note[key]}, answered as {chunk[key]}"))
    if note["session_id"] != chunk["session_id"]:
        found.append(Breach("I1", f"{_name(line)}: answered in session {chunk['session_id']}, asked in {note['session_id']}"))
    if not line["contract_id"] == chunk["contract_id"] == begun["contract_id"]:
        found.append(Breach("I1", f"{_name(line)}: contract {chunk['contract_id']}, the episode began with {begun['contract_id']}"))
    newest = max((other["epoch"] for other in notes if other["kind"] == "decision" and other["answered_s"] <= line["t"] + EPS_S), default=0)
    if line["epoch"] < newest and line.get("row", 0) == 0:
        found.append(Breach("I1", f"{_name(line)}: begins a chunk of epoch {line['epoch']} while epoch {newest} is running"))
    return found


def _in_time(line: Line, chunks: dict[str, Line], clock_s: float) -> list[Breach]:
    note = chunks.get(line["chunk_id"])
    if note is None:
        return []
    late_s = line["t"] - (note["t_s"] + note["chunk"]["expires_ms"] / 1e3)
    return [Breach("I2", f"{_name(line)}: {1e3 * late_s:.1f} ms after its chunk expired")] if late_s > clock_s else []


def _finite_and_inside(line: Line, bounds: Bounds) -> list[Breach]:
    action = [float(value) if value is not None else math.nan for value in line["action"]]
    if len(action) != len(bounds.low):
        return [Breach("I3", f"{_name(line)}: {len(action)} values for {len(bounds.low)} dimensions")]
    found = []
    for place, value in enumerate(action):
        slack = bounds.tolerance * (bounds.high[place] - bounds.low[place])
        if not math.isfinite(value):
            found.append(Breach("I3", f"{_name(line)}: dimension {place} is {value}"))
        elif not bounds.low[place] - slack <= value <= bounds.high[place] + slack:
            found.append(
                Breach("I3", f"{_name(line)}: dimension {place} is {value:.4f}, outside {bounds.low[place]}..{bounds.high[place]}")
            )
    return found


def _first_step(line: Line, previous: Line | None, bounds: Bounds) -> list[Breach]:
    is_first = previous is None or previous.get("chunk_id") != line["chunk_id"]
    if bounds.mode != "absolute" or not bounds.jump or not is_first:
        return []
    found = []
    for place, (where, limit) in enumerate(zip(bounds.state_of, bounds.jump, strict=True)):
        if where >= 0 and abs(line["action"][place] - line["state"][where]) > limit * (1 + bounds.tolerance):
            jump = line["action"][place] - line["state"][where]
            found.append(Breach("I3", f"{_name(line)}: first step jumps {jump:.4f} in dimension {place}, {limit} is allowed"))
    return found


def _is_hold(line: Line, previous: Line | None, bounds: Bounds) -> list[Breach]:
    """Zero motion for deltas and velocities; for absolute targets the measured or the last commanded pose. Gripper: as it was."""
    found = []
    for place, value in enumerate(line["action"]):
        wanted = [] if bounds.hold[place] is None else [bounds.hold[place]]
        if bounds.hold[place] is None:
            # "As it was": what was sent before, or, before anything was sent, whatever the body calls its resting value.
            if previous is None:
                continue
            wanted.append(previous["action"][place])
        if bounds.mode == "absolute" and bounds.state_of and bounds.state_of[place] >= 0:
            wanted.append(line["state"][bounds.state_of[place]])
            wanted += [] if previous is None else [previous["action"][place]]
        slack = 10 * bounds.tolerance * (bounds.high[place] - bounds.low[place])
        if not any(abs(value - one) <= slack for one in wanted):
            found.append(Breach("I1", f"{_name(line)}: moves without a chunk: dimension {place} is {value:.4f}, a hold is {wanted}"))
    return found


def _held_after_loss(evidence: Evidence) -> list[Breach]:
    found = []
    for start, end in evidence.lost:
        for line in evidence.driver:
            if start + evidence.t_hold_s < line["t"] < end and line.get("chunk_id"):
                ms = 1e3 * (line["t"] - start)
                found.append(
                    Breach("I4", f"{_name(line)}: still moving {ms:.0f} ms after the loss, {1e3 * evidence.t_hold_s:.0f} are allowed")
                )
    return found


def _one_version(driver: Sequence[Line], chunks: dict[str, Line], begun: Line) -> list[Breach]:
    found = []
    for line in driver:
        note = chunks.get(line.get("chunk_id") or "")
        if note is not None and note["chunk"]["model_version"] != begun["model_version"]:
            text = f"{_name(line)}: of model {note['chunk']['model_version']}, the episode began with {begun['model_version']}"
            found.append(Breach("I5", text))
    return found


def _rebuilt(evidence: Evidence, chunks: dict[str, Line]) -> list[Breach]:
    """Each command has its note, in order, and the noted row of the noted chunk gives the command."""
    executed = [note for note in evidence.notes if note["kind"] == "executed"]
    if len(executed) != len(evidence.driver):
        return [Breach("I6", f"{len(evidence.driver)} commands, {len(executed)} of them in the audit")]
    # While nothing was stretched or bent, a command is its row to the last bit; afterwards it lies between two rows.
    is_exact = all(note.get("scale", 1.0) == 1.0 for note in executed)
    found = []
    for line, note in zip(evidence.driver, executed, strict=True):
        if not _close(note["sent_A"], line["action"]) or (note.get("chunk_id") or "") != (line.get("chunk_id") or ""):
            found.append(Breach("I6", f"{_name(line)}: the audit says {note.get('chunk_id')!r} {note['sent_A']}"))
            continue
        decision = chunks.get(line.get("chunk_id") or "")
        if decision is None:
            continue
        found += _from_its_row(line, note, decision, exact=is_exact)
    return found


def _from_its_row(line: Line, note: Line, decision: Line, *, exact: bool) -> list[Breach]:
    row, rows = line["row"], decision.get("installed_KA") or decision["chunk"]["actions_KA"]
    if not 0 <= row < len(decision["chunk"]["actions_KA"]):
        return [Breach("I6", f"{_name(line)}: its chunk has no such row")]
    if note.get("clipped") or (exact and _close(rows[row], line["action"], 1e-4)):
        return []
    near = [rows[row], rows[max(row - 1, 0)], [0.0] * len(rows[row])]
    low, high = ([pick(one[place] for one in near) for place in range(len(near[0]))] for pick in (min, max))
    is_between = all(a - 1e-4 <= value <= b + 1e-4 for a, value, b in zip(low, line["action"], high, strict=True))
    if exact or not is_between:
        return [Breach("I6", f"{_name(line)}: row {row} was installed as {rows[row]}, {line['action']} was sent")]
    return []


def _close(one: Sequence[float], other: Sequence[float], tolerance: float = 1e-5) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))
