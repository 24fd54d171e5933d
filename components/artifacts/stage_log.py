"""Each finished stage as a run of the tracker: its config, its numbers, its record and its images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.config.ports import Metric, Tracker
from model_core.spec.documents import identity_document, to_document

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """A stage that was just made. key: of its step. out: the folder of its files."""

    stage: str
    key: str
    recipe: str
    config: object
    record: Mapping[str, Any]
    out: Path


def log_stage(tracker: Tracker, run: StageRun) -> None:
    """Record a stage as the run `key`: a stage that was killed and made again is one run."""
    stage, recipe, out = run.stage, run.recipe, run.out
    params = identity_document(run.config)
    tracker.start_run(
        f"{stage} {recipe}", params if isinstance(params, Mapping) else {}, {"stage": stage, "recipe": recipe}, run_id=run.key
    )
    plain = to_document(run.record)
    tracker.log_metrics([Metric(name, value, 0) for name, value in numbers(plain)])
    tracker.log_text("record.json", json.dumps(plain, indent=1, sort_keys=True))
    if plain.get("account"):
        log_account(tracker, plain["account"])
    for name, folder in (("film", out / "film"), ("examples", out / "undigested" / "examples")):
        for image in sorted(folder.glob("*.png")):
            tracker.log_image(f"{name}/{image.name}", image)
    tracker.finish()


def log_account(tracker: Tracker, rows: Sequence[Mapping[str, Any]]) -> None:
    """The account of the data, or a part of it: as a text, and as metrics "account/<stage>/<source>/episodes" and so on."""
    tracker.log_text("account.json", json.dumps(list(rows), indent=1, sort_keys=True))
    tracker.log_metrics([Metric(name, value, 0) for row in rows for name, value in _of_row(row) if len(name) <= _LONGEST_NAME])


def _of_row(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    # a source is a name from outside: the tracker takes letters, digits and these signs
    source = re.sub(r"[^A-Za-z0-9_ .:-]", "_", row["source"]) or "all sources"
    for kind in ("episodes", "frames"):
        yield f"account/{row['stage']}/{source}/{kind}", float(row[kind])
        yield f"account/{row['stage']}/{source}/dropped_{kind}", float(sum(lost[kind] for lost in row["dropped"]))


def numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a record with the path that leads to it; rows and texts are left out."""
    for name, value in record.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from numbers(value, f"{path}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and len(path) <= _LONGEST_NAME:
            yield path, float(value)
