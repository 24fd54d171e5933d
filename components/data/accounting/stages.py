"""The account of the stages that leave it to their folders: what was recorded, taken in, joined and inspected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.config.data_config import ValidateConfig
from components.data.accounting.tally import Tally
from components.data.lerobot.reader import DatasetReader
from components.data.sources.open import open_raw

_LEFT_OUT = {  # counts in the record of an ingest, and what they are
    "not_successful": "did not solve its task",
    "no_outcome": "its source does not say how it ended",
    "other_tasks": "of a task that is not asked for",
    "copies": "there already",
}


def recorded(record: Mapping[str, Any], dataset: Path, source: str) -> list[dict[str, Any]]:
    """The account of demonstrations: attempts that were kept, failed or were refused by the inspection. source: the scripted expert."""
    tally = Tally("collect")
    for row in DatasetReader(dataset).rows:
        tally.keep(row.provenance.producer, row.length)
    tally.drop(source, "did not solve its task", episodes=int(record.get("failed", 0)))
    for reason in record.get("rejected", {}).values():
        tally.drop(source, reason)
    return tally.rows()


def with_losses(rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An account with what fell away in the recordings before it, whose episodes it counts itself."""
    found = {row["source"]: {**row, "dropped": list(row["dropped"])} for row in rows}
    for row in before:
        if row["dropped"]:
            mine = found.setdefault(row["source"], {**row, "episodes": 0, "frames": 0, "dropped": []})
            mine["dropped"] += row["dropped"]
    return [found[source] for source in sorted(found)]


def taken_in(record: Mapping[str, Any], out: Path, stage: str) -> list[dict[str, Any]]:
    """The account of an ingest ("ingest") or of joining ("join"): by source what was taken in, and without a source what was not."""
    tally = Tally(stage)
    for row in DatasetReader(out / "dataset").rows:
        tally.keep(row.provenance.producer, row.length)
    for name, reason in _LEFT_OUT.items():
        tally.drop("", reason, episodes=int(record.get(name, 0)))
    for _, check in _set_aside(out / "quarantine"):
        tally.drop("", f"set aside: {check}")
    return tally.rows()


def inspected(cfg: ValidateConfig, dataset: Path, out: Path) -> list[dict[str, Any]]:
    """The account of the validation, by source. Raises `GateError` where more of one source fell away than may of all episodes.

    A few recordings that are all bad are a small share of many demonstrations, and would otherwise be left out without a word.
    """
    verdicts = json.loads((out / "valid.json").read_text(encoding="utf-8"))
    checks = dict(_set_aside(out / "quarantine"))
    tally = Tally("validate")
    for row in open_raw(dataset).rows:
        if verdicts.get(row.episode_id):
            tally.keep(row.provenance.producer, row.length)
        else:
            tally.drop(row.provenance.producer, checks.get(row.episode_id, "not judged"), row.length)
    advice = "repair these recordings or leave their set out of `include`; quarantine/ in the folder of the step names each reason"
    tally.check(cfg.max_bad_fraction, setting="validate.max_bad_fraction", advice=advice)
    return tally.rows()


def _set_aside(folder: Path) -> Iterator[tuple[str, str]]:
    """(episode or recording, its first check) of everything that was put into quarantine."""
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        findings = document["findings"] or [{"check": "no reason given"}]
        yield str(document.get("episode_id") or document.get("recording")), str(findings[0]["check"])
