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
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

DESIGN, LEDGER = "design.json", "trials.jsonl"
VOID_RULE = "a trial whose simulator failed (env_error) is void and voids its pair; nothing else is"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDesign:
    """The comparison of a candidate with a champion.

    candidate, champion: checkpoint digests. tasks: of the champion. rules: of both evaluations (suite, version, horizon ...). gate: the
    recipe's section (claim, test, margin, confidence, maximum of pairs, block). first_seed: of the evaluations, which are the first block;
    blocks go on from there. metric, void_rule: what a trial counts for, and when it counts for nothing.
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

    @property
    def digest(self) -> str:
        """SHA-256 of the design: what the chain of its trials begins with."""
        return digest_of(to_document(self))


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


def read_design(folder: Path) -> StudyDesign:
    """The design of a study; raises `DatasetError` when it cannot be read."""
    path = folder / DESIGN
    try:
        return from_document(StudyDesign, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected the design of a study, got {error}. Fix: restore it from a copy") from error
