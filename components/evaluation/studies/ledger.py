"""The trials of a study, one JSON line each, chained: a line carries the SHA-256 of the line before and of itself.

The chain begins with the digest of the design. A changed line, a line that was taken out or put in, and a changed design break it at the
first such place. Lines that are missing at the end leave a shorter chain that is whole: they are found by the head (last hash) that the
verdict carries. A chain holds no key: it proves against a head that is known from elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.studies.design import LEDGER, StudyDesign, read_design
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial. side: "candidate" or "champion"; policy: its checkpoint's digest; contract: what it promises. block: 0 the evaluations.

    suite, suite_version: with the versions of simulator and renderer. score: in 0..1. void: counts for nothing, by the design's rule.
    evidence: digest of the step that holds the rollout, with its films.
    """

    block: int
    side: str
    policy: str
    contract: str
    task: str
    seed: int
    suite: str
    suite_version: str
    success: bool
    score: float
    stop_reason: str
    void: bool
    steps: int
    decisions: int
    refusals: int
    detail: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a ledger holds up to its first broken line. problem: "" where nothing is wrong. size: bytes of the lines that hold."""

    trials: tuple[Trial, ...]
    head: str
    problem: str
    size: int
    torn: bool = False


def read_ledger(folder: Path, design: StudyDesign) -> Ledger:
    """Read and check the chain. A last line without its end was being written when the process ended: it is no trial, and no problem."""
    path = folder / LEDGER
    raw = path.read_bytes() if path.exists() else b""
    head, trials, size = design.digest, [], 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return Ledger(trials=tuple(trials), head=head, problem="", size=size, torn=True)
        problem, entry = _checked(line, head)
        if problem:
            return Ledger(trials=tuple(trials), head=head, problem=f"trial {number} of {path}: {problem}", size=size)
        trials.append(from_document(Trial, entry["trial"], where=f"{path}, trial {number}"))
        head, size = str(entry["hash"]), size + len(line)
    return Ledger(trials=tuple(trials), head=head, problem="", size=size)


def _checked(line: bytes, head: str) -> tuple[str, dict[str, Any]]:
    try:
        entry = json.loads(line)
        before, own, trial = entry["before"], entry["hash"], entry["trial"]
    except (ValueError, KeyError, TypeError) as error:
        return f"expected a JSON line with before, hash and trial, got {error}", {}
    if before != head:
        return f"it follows {str(before)[:16]}, and what stands before it is {head[:16]}: a line or the design was changed or taken out", {}
    if own != _hash(head, trial):
        return "it was changed after it was written", {}
    return "", entry


def _hash(before: str, trial: Any) -> str:
    return hashlib.sha256(f"{before}\n{json.dumps(trial, sort_keys=True, separators=(',', ':'))}".encode()).hexdigest()


def extend(folder: Path, trials: Sequence[Trial]) -> Ledger:
    """Let the ledger hold all these trials: those that it has must be the first of them, the others are appended.

    So a study that was stopped continues, and the same trials again change nothing. Raises `DatasetError` for a ledger that was changed, or
    whose trials are others than these.
    """
    design = read_design(folder)
    found = read_ledger(folder, design)
    if found.problem:
        raise DatasetError(f"{found.problem}. Fix: restore the ledger from a copy; a study whose evidence was changed decides nothing")
    for number, (old, new) in enumerate(zip(found.trials, trials, strict=False), start=1):
        if old != new:
            raise DatasetError(
                f"trial {number} of {folder / LEDGER} is {old.side}'s {old.task}, seed {old.seed}, {old.stop_reason}; run again it is "
                f"{new.side}'s {new.task}, seed {new.seed}, {new.stop_reason}. A trial is run once. Fix: find out what changed between the "
                "two runs; to begin again, choose other scenes (evaluate.first_seed), which is another study"
            )
    if found.torn:
        os.truncate(folder / LEDGER, found.size)
    head = found.head
    with (folder / LEDGER).open("ab") as file:
        for trial in trials[len(found.trials) :]:
            document = to_document(trial)
            own = _hash(head, document)
            file.write(json.dumps({"before": head, "hash": own, "trial": document}, sort_keys=True).encode() + b"\n")
            head = own
        file.flush()
        os.fsync(file.fileno())
    return read_ledger(folder, design)


def problem_of(folder: Path, head: str = "") -> str:
    """What is wrong with a study, "" where nothing is. head: the last hash, or its first digits, as the verdict carries it."""
    try:
        design = read_design(folder)
    except DatasetError as error:
        return str(error)
    if not design.digest.startswith(folder.name):
        return f"the design of {folder} was changed: its digest is {design.digest[:16]}, and the study is {folder.name}"
    found = read_ledger(folder, design)
    if found.problem:
        return found.problem
    if head and not found.head.startswith(head.lower()):
        return f"the last hash of {folder / LEDGER} is {found.head[:16]}, not {head[:16]}: trials at its end were taken out or added"
    return ""
