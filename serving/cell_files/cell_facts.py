"""What a cell says of itself to its agent (cell.json): the agent reports it, and decides nothing by it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model_core.spec.documents import from_document, to_document
from model_core.spec.files import atomic_write

_FILE = "cell.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """task: what it does. limits: digest of its commissioning file, or of the robot's own limits."""

    cell: str
    task: str
    limits: str


def write_facts(folder: Path, facts: CellFacts) -> None:
    """Replace what was said before."""
    atomic_write(folder / _FILE, json.dumps(to_document(facts), sort_keys=True) + "\n", durable=False)


def read_facts(folder: Path) -> CellFacts | None:
    """The newest; None where no cell has started yet, or what is there cannot be read."""
    try:
        return from_document(CellFacts, json.loads((folder / _FILE).read_bytes()))
    except (OSError, ValueError):
        return None
