"""Episodes that get no labels: annotation then only hands on which were found good, and a policy is trained at the level "action".

out/unlabelled.json    the ids of the episodes, in order
out/annotators.json    {"depth": "none", "points": "none"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.config.data_config import NO_LABELS
from components.data.accounting.tally import Tally
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from model_core.spec.files import atomic_write

UNLABELLED = "unlabelled.json"


def hand_on(rows: Sequence[EpisodeIndexRow], out: Path) -> dict[str, Any]:
    """Write which episodes are used, in place of labels; returns the record of the stage."""
    who = {"depth": NO_LABELS, "points": NO_LABELS}
    tally = Tally("annotate")
    for row in rows:
        tally.keep(row.provenance.producer, row.length)
    _write(out / UNLABELLED, [row.episode_id for row in rows])
    _write(out / "annotators.json", who)
    frames = sum(row.length for row in rows)
    return {"episodes": len(rows), "rejected": 0, "frames": frames, "annotators": who, "vqvae": {}, "account": tally.rows()}


def accepted_ids(labels: Path) -> Mapping[str, None]:
    """The ids of the episodes that `hand_on` wrote, in order."""
    return dict.fromkeys(json.loads((labels / UNLABELLED).read_text(encoding="utf-8")))


def _write(path: Path, document: object) -> None:
    atomic_write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
