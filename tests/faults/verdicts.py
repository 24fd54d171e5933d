"""Which test speaks for which fault and invariant, and what came of it: `reports/faults.json`, and its table.

@covers("F7", I1="a late answer is never paired with a newer question", I2="nothing is executed past its expiry")
def test_...

python -m tests.faults.verdicts        prints fault x invariant from the report; exit 1 if anything failed
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "reports" / "faults.json"
INVARIANTS = {
    "I1": "no command without a chunk id of this session, epoch, seq, contract and model",
    "I2": "no action is sent after its expiry",
    "I3": "every commanded value is finite and inside the commissioning limits, first step included",
    "I4": "within T_hold of any loss the driver sees hold or zero",
    "I5": "nothing switches version inside an episode",
    "I6": "every executed action can be rebuilt from the audit log, or the episode was refused",
    "I7": "memory, files and sessions are bounded",
    "I8": "server faults need no client restart; client faults touch nobody else",
    "I9": "no robot runs an unverified or half-written release, and none is left without a working one",
}
FAULTS = {
    "F1": "kill -9 in mid-request",
    "F2": "server frozen 0.2, 2, 60 s",
    "F3": "silent server, handshake only",
    "F4": "half-open TCP, both directions",
    "F5": "latency ramp, bimodal, spike",
    "F6": "first inference 20x slower",
    "F7": "late, duplicate, reordered, replayed",
    "F8": "same request twice",
    "F9": "1 Mbit/s, 5% loss, 8 MB frames",
    "F10": "corrupt bytes",
    "F11": "object dtype, shape lies",
    "F12": "wrong pictures",
    "F13": "old or frozen senses",
    "F14": "NaN, Inf, 1e9, wrong shape",
    "F15": "malformed reasoning",
    "F16": "contract drift",
    "F17": "version changes between chunks",
    "F18": "update in an episode",
    "F19": "lock held for hours, its holder dies",
    "F20": "wrong, old, mixed, half release",
    "F21": "registry and controller down 30 days",
    "F22": "wall clock steps, suspend",
    "F23": "token expires, revoked, missing",
    "F24": "kill switch, fleet unreachable",
    "F25": "32 robots, one abusive",
    "F26": "overload 2x capacity",
    "F27": "engine dies, hangs, out of memory",
    "F28": "10k sessions aborted",
    "F29": "audit disk full, slow, dead",
    "F30": "shadow hangs or answers garbage",
    "F31": "driver rejects, e-stop",
    "F32": "agent killed, paused; watchdog",
    "F33": "bad steering",
    "F34": "probes differ on this hardware",
    "F35": "fuzz without credentials, GET",
    "F36": "protocol versions differ",
    "F37": "configuration abuse",
}


def covers(fault: str, **claims: str) -> pytest.MarkDecorator:
    """Say that a test proves `claims` (invariant -> what exactly) under `fault`."""
    assert fault in FAULTS, fault
    assert claims, "name at least one invariant"
    assert set(claims) <= set(INVARIANTS), claims
    return pytest.mark.faults(fault, claims)


def record(test: str, marks: Iterable[pytest.Mark], passed: bool, detail: str) -> None:
    """Put the outcome of `test` into the report, in place of its earlier one. Safe between pytest's workers."""
    rows = [
        {"fault": mark.args[0], "invariant": invariant, "passed": passed, "detail": f"{claim}{detail}", "test": test}
        for mark in marks
        for invariant, claim in mark.args[1].items()
    ]
    REPORT.parent.mkdir(exist_ok=True)
    with (REPORT.parent / ".faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = [row for row in read() if row.get("test") != test]
        part = REPORT.with_suffix(".part")
        part.write_text(json.dumps(sorted(kept + rows, key=_order), indent=1) + "\n")
        os.replace(part, REPORT)


def read() -> list[dict[str, object]]:
    """The report as it is; empty when there is none."""
    return json.loads(REPORT.read_text()) if REPORT.exists() else []


def table(rows: list[dict[str, object]]) -> str:
    """Fault x invariant: how many tests passed of how many, a dot where the fault does not concern the invariant."""
    lines = [f"{'':5}{'':38}" + "".join(f"{name:>7}" for name in INVARIANTS)]
    for fault, title in FAULTS.items():
        cells = []
        for invariant in INVARIANTS:
            here = [bool(row["passed"]) for row in rows if (row["fault"], row["invariant"]) == (fault, invariant)]
            mark = "." if not here else f"ok {len(here)}" if all(here) else f"{sum(here)}/{len(here)} !"
            cells.append(f"{mark:>7}")
        lines.append(f"{fault:5}{title:38}" + "".join(cells))
    failed = [row for row in rows if not row["passed"]]
    lines += [f"FAILED {row['fault']} {row['invariant']}: {row['detail']} ({row['test']})" for row in failed]
    lines.append(f"{len(rows) - len(failed)} of {len(rows)} claims hold; {len({row['fault'] for row in rows})} of {len(FAULTS)} faults")
    return "\n".join(lines)


def _order(row: dict[str, object]) -> tuple[int, str, str]:
    return int(str(row["fault"])[1:]), str(row["invariant"]), str(row["test"])


if __name__ == "__main__":
    found = read()
    sys.stdout.write(table(found) + "\n")
    sys.exit(0 if found and all(row["passed"] for row in found) else 1)
