"""The trials of a study, one JSON line each, chained: a line carries the SHA-256 of the line before and of itself.

The chain begins with the digest of the design. A changed line, a line that was taken out or put in, and a changed design break it at the
first such place. Lines that are missing at the end leave a shorter chain that is whole: they are found by the head (last hash) that the
verdict carries. A chain holds no key: it proves against a head that is known from elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.chained_lines import chained_hash
from components.evaluation.studies.design import LEDGER, Scene, StudyDesign, read_design
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import DatasetError

TRIAL, AMENDMENT = "trial", "amendment"  # what a line holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial. side: "candidate" or "champion"; policy: its checkpoint's digest; contract: what it promises. block: 0 the evaluations.

    suite, suite_version: with the versions of simulator and renderer. score: what it counts for, in 0..1. progress: how far it came, in
    0..1, where the suite or a person tells. void: counts for nothing, by the design's rule. evidence: digest of the step that holds the
    rollout. video: a file in the study's folder, or in that step. audit: the id of the episode in the cell's audit. turn: 1 or 2 on its
    scene, 0 where each side's trials were run together. blind: under which name a person labelled it. operator: who did. holds, clips,
    drops: control steps that were held, commands that the safety envelope clipped, answers that were dropped.
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
    progress: float = 0.0
    video: str = ""
    audit: str = ""
    turn: int = 0
    blind: str = ""
    operator: str = ""
    holds: int = 0
    clips: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What was changed after the design was locked: shown wherever the study is. reason: one sentence. scenes: further ones, in blocks."""

    reason: str
    by: str = ""
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a ledger holds up to its first broken line. problem: "" where nothing is wrong. size: bytes of the lines that hold.

    amendments: each with the number of trials before it.
    """

    trials: tuple[Trial, ...]
    head: str
    problem: str
    size: int
    torn: bool = False
    amendments: tuple[tuple[int, Amendment], ...] = ()

    @property
    def further_scenes(self) -> tuple[tuple[Scene, ...], ...]:
        """The scenes that each amendment added."""
        return tuple(amendment.scenes for _, amendment in self.amendments)


def read_ledger(folder: Path, design: StudyDesign) -> Ledger:
    """Read and check the chain. A last line without its end was being written when the process ended: it is no trial, and no problem."""
    path = folder / LEDGER
    raw = path.read_bytes() if path.exists() else b""
    head, size, torn, problem = design.digest, 0, False, ""
    trials: list[Trial] = []
    amendments: list[tuple[int, Amendment]] = []
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        torn = not line.endswith(b"\n")
        wrong, entry = ("", {}) if torn else _checked(line, head)
        if torn or wrong:
            problem = f"trial {number} of {path}: {wrong}" if wrong else ""
            break
        where = f"{path}, line {number}"
        if TRIAL in entry:
            trials.append(from_document(Trial, entry[TRIAL], where=where))
        else:
            amendments.append((len(trials), from_document(Amendment, entry[AMENDMENT], where=where)))
        head, size = str(entry["hash"]), size + len(line)
    return Ledger(trials=tuple(trials), head=head, problem=problem, size=size, torn=torn, amendments=tuple(amendments))


def _checked(line: bytes, head: str) -> tuple[str, dict[str, Any]]:
    try:
        entry = json.loads(line)
        before, own, content = entry["before"], entry["hash"], entry[TRIAL if TRIAL in entry else AMENDMENT]
    except (ValueError, KeyError, TypeError) as error:
        return f"expected a JSON line with before, hash and trial, got {error}", {}
    if before != head:
        return f"it follows {str(before)[:16]}, and what stands before it is {head[:16]}: a line or the design was changed or taken out", {}
    if own != chained_hash(head, content):
        return "it was changed after it was written", {}
    return "", entry


def extend(folder: Path, trials: Sequence[Trial]) -> Ledger:
    """Let the ledger hold all these trials: those that it has must be the first of them, the others are appended.

    So a study that was stopped continues, and the same trials again change nothing. Raises `DatasetError` for a ledger that was changed, or
    whose trials are others than these.
    """
    found = whole_ledger(folder)
    for number, (old, new) in enumerate(zip(found.trials, trials, strict=False), start=1):
        if old != new:
            raise DatasetError(
                f"trial {number} of {folder / LEDGER} is {old.side}'s {old.task}, seed {old.seed}, {old.stop_reason}; run again it is "
                f"{new.side}'s {new.task}, seed {new.seed}, {new.stop_reason}. A trial is run once. Fix: find out what changed between the "
                "two runs; to begin again, choose other scenes (evaluate.first_seed), which is another study"
            )
    return append(folder, found, trials[len(found.trials) :])


def whole_ledger(folder: Path) -> Ledger:
    """The ledger of a study; raises `DatasetError` for one that was changed."""
    found = read_ledger(folder, read_design(folder))
    if found.problem:
        raise DatasetError(f"{found.problem}. Fix: restore the ledger from a copy; a study whose evidence was changed decides nothing")
    return found


def append(folder: Path, found: Ledger, entries: Sequence[Trial | Amendment]) -> Ledger:
    """Add trials and amendments after those of `found`, which `whole_ledger` read; they survive this process. Returns the longer ledger.

    Raises `DatasetError` where another process wrote in between.
    """
    path, head, lines = folder / LEDGER, found.head, list[bytes]()
    there = path.stat().st_size if path.exists() else 0
    if there != found.size and not found.torn:
        raise DatasetError(f"{path} has {there} bytes, expected {found.size}: another process wrote to it. Fix: run the study again")
    trials, amendments = list(found.trials), list(found.amendments)
    for entry in entries:
        kind, content = (TRIAL if isinstance(entry, Trial) else AMENDMENT), to_document(entry)
        own = chained_hash(head, content)
        lines.append(json.dumps({"before": head, "hash": own, kind: content}, sort_keys=True).encode() + b"\n")
        head = own
        if isinstance(entry, Trial):
            trials.append(entry)
        else:
            amendments.append((len(trials), entry))
    if found.torn:
        os.truncate(path, found.size)
    with path.open("ab") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    size = found.size + sum(map(len, lines))
    return Ledger(trials=tuple(trials), head=head, problem="", size=size, amendments=tuple(amendments))


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
