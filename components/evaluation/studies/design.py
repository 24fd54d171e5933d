"""What is fixed of a comparison before its pairs are run: one document, named by its digest, that is never written twice.

studies/<first 16 digits of the digest>/design.json
                                        trials.jsonl   the ledger (`ledger.py`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.spec.contract import digest_of
from model_core.spec.documents import LATER, from_document, identity_document, to_document
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

DESIGN, LEDGER = "design.json", "trials.jsonl"
VOID_RULE = "a trial whose simulator failed (env_error) is void and voids its pair; nothing else is"
BLOCKS = "randomized complete blocks"  # of `assignment`
ROBOT_RULE = (
    "a trial is void, and voids its pair, when the robot or its cell failed (env_error), the cell's process broke (crash), it took longer "
    "than the design's timeout (timeout), or this program ended while it ran (interrupted); nothing else is, and no person chooses. A "
    "refusal and a safe stop are failures"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One initial condition: both policies meet it. seed: of the simulated scene; with a real robot the number of the layout."""

    task: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDesign:
    """The comparison of a candidate with a champion.

    candidate, champion: checkpoint digests (of served policies: of their bundles). tasks: of the champion. rules: of both evaluations
    (suite, version, horizon ...). gate: the recipe's section (claim, test, margin, confidence, maximum of pairs, block). first_seed: of the
    evaluations, which are the first block; blocks go on from there. metric, void_rule: what a trial counts for ("success", or "score":
    stage progress in 0..1), and when it counts for nothing.

    assignment: `BLOCKS` where scenes are shuffled in each block, and the order of both sides on each scene is drawn, from `seed`; else each
    side's trials were run together. scenes: all that are planned, in blocks. setting: "simulation" or "robot". rubric: what a person who
    labels is asked. timeout_s: of one trial, 0 for none. evaluated_before: the candidate's evaluation was finished before this was locked.
    """

    candidate: str
    champion: str
    tasks: tuple[str, ...]
    gate: Mapping[str, Any]
    rules: Mapping[str, Any]
    first_seed: int
    metric: str = "success"
    void_rule: str = VOID_RULE
    version: int = field(default=1)
    assignment: str = field(default="", metadata=LATER)
    seed: int = field(default=0, metadata=LATER)
    scenes: tuple[Scene, ...] = field(default=(), metadata=LATER)
    setting: str = field(default="simulation", metadata=LATER)
    rubric: str = field(default="", metadata=LATER)
    timeout_s: float = field(default=0.0, metadata=LATER)
    evaluated_before: bool = field(default=False, metadata=LATER)

    @property
    def digest(self) -> str:
        """SHA-256 of the design: what the chain of its trials begins with."""
        return digest_of(identity_document(self))


def lock(studies: Path, design: StudyDesign) -> Path:
    """Write the design down, once; returns the study's folder. Raises `DatasetError` when another design stands there."""
    folder = studies / design.digest[:16]
    path = folder / DESIGN
    if not path.exists():
        atomic_write(path, json.dumps(to_document(design), indent=1, sort_keys=True) + "\n")
    found = read_design(folder)
    if found.digest != design.digest:
        raise DatasetError(f"{path} was changed since it was locked: expected digest {design.digest[:16]}, got {found.digest[:16]}")
    return folder


def is_locked(studies: Path, design: StudyDesign) -> bool:
    """Whether this design was written down before."""
    return (studies / design.digest[:16] / DESIGN).exists()


def read_design(folder: Path) -> StudyDesign:
    """The design of a study; raises `DatasetError` when it cannot be read."""
    path = folder / DESIGN
    try:
        return from_document(StudyDesign, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected the design of a study, got {error}. Fix: restore it from a copy") from error
