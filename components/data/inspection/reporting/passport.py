"""The passport of a data set: what it is, whose, under which licence, with which known faults and label errors, of which versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.files import dataset_digest
from components.config.data_config import ValidateConfig
from components.config.records import Progress
from components.data.annotators.simulator_truth import are_truth
from components.data.inspection.checks.verdict import DEFECT, RISK, UNKNOWN
from components.data.inspection.measurements.record import SetMeasurements
from components.data.inspection.measurements.store import measuring_code
from components.data.inspection.reporting.inspect import measure
from components.data.inspection.reporting.report import InspectionReport, inspect_measurements
from components.data.lerobot.reader import DatasetReader
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import DatasetError

VERSION = 1
LABEL_ERROR = "label_error.json"  # beside finished labels; a set that was published with its labels may carry it in meta/
NOT_STATED, NOT_MEASURED = "not stated", "not measured"


def make_passport(
    folder: Path,
    store: Path | None,
    progress: Progress,
    *,
    cfg: ValidateConfig | None = None,
    embodiment: EmbodimentSpec | None = None,
    labels: Path | None = None,
) -> dict[str, Any]:
    """The passport of a LeRobot folder as plain JSON. Counts and faults are of the rows and pictures, not of what meta/ states.

    labels: a finished annotation of it, or what a second person's labels said (`actwright episodes label-agreement`). Raises `DatasetError`
    where it is neither, or of other episodes.
    """
    measured = measure(folder, store, progress, embodiment=embodiment)
    report = inspect_measurements(measured, cfg or ValidateConfig())
    return {
        "passport": VERSION,
        "what": _what(measured),
        "whose": _whose(measured),
        "licence": _licence(measured),
        "faults": _faults(report),
        "label_error": _label_error(folder, labels),
        "versions": {
            "content": dataset_digest(folder),
            "format": measured.origin.version if measured.origin else NOT_STATED,
            "measuring_code": measuring_code(),
            "rules": len(report.results),
        },
    }


def _what(m: SetMeasurements) -> dict[str, Any]:
    return {
        "name": m.name,
        "robot": (m.origin.robot if m.origin else "") or NOT_STATED,
        "embodiment": m.embodiment.name if m.embodiment else NOT_STATED,
        "rate_hz": m.fps,
        "episodes": len(m.episodes),
        "frames": m.frames,
        "hours": round(m.frames / m.fps / 3600, 4) if m.fps else 0.0,
        "cameras": list(m.cameras),
        "vectors": {name: len(vector) for e in m.episodes[:1] for name, vector in sorted(e.vectors.items())},
        "tasks": list(m.sentences.values()),
        "splits": {name: list(part) for name, part in (m.origin.splits if m.origin else {}).items()},
    }


def _whose(m: SetMeasurements) -> dict[str, Any]:
    producers = dict(m.origin.producers) if m.origin else {}
    return {"producers": producers or NOT_STATED, "has_data_card": bool(m.origin and m.origin.has_card)}


def _licence(m: SetMeasurements) -> dict[str, str]:
    stated = m.origin.licence if m.origin else ""
    return {"stated": stated or NOT_STATED, "where": m.origin.licence_place if m.origin and stated else ""}


def _faults(report: InspectionReport) -> dict[str, Any]:
    def of(outcome: str) -> dict[str, Any]:
        return {
            result.check.id: {
                "places": len(result.verdict.faults),
                "looked_at": result.verdict.looked_at,
                "of": result.verdict.of,
                "unit": result.verdict.unit,
                "first": result.verdict.faults[0].reason if result.verdict.faults else result.verdict.missing,
            }
            for result in report.of(outcome)
        }

    return {
        "defects": of(DEFECT),
        "risks": of(RISK),
        "unknown": of(UNKNOWN),
        "set_aside": sorted(where for where in report.set_aside if where),
    }


def _label_error(folder: Path, labels: Path | None) -> dict[str, Any]:
    """How far the labels of the set are from the truth, as annotation wrote it down, or why that is not known."""
    if labels is not None and labels.is_file():
        places = [labels]
    else:
        places = [folder / LABEL_ERROR, folder / "meta" / LABEL_ERROR] if labels is None else [_labels_of(folder, labels) / LABEL_ERROR]
    for place in places:
        if place.is_file():
            found = json.loads(place.read_text(encoding="utf-8"))
            return dict(found) if isinstance(found, Mapping) else {"estimate": NOT_STATED}
    if labels is None:
        return {"estimate": NOT_MEASURED, "why": "no labels were named; --labels names a finished annotation of this set"}
    who = json.loads((labels / "annotators.json").read_text(encoding="utf-8"))
    if are_truth(who):
        return {
            "estimate": NOT_MEASURED,
            "why": "the labels are the simulator's own truth, so there is nothing to compare them with",
            **who,
        }
    return {"estimate": NOT_MEASURED, "why": "an older version made these labels; annotate again to measure it", **who}


def _labels_of(folder: Path, labels: Path) -> Path:
    """`labels`, where they are a finished annotation of episodes of `folder`."""
    provenance = labels / "provenance.json"
    if not provenance.is_file() or not (labels / "annotators.json").is_file():
        raise DatasetError(f"{labels} is no finished annotation: it has no provenance.json. Fix: name data/annotate")
    labelled = json.loads(provenance.read_text(encoding="utf-8"))["episodes"]
    if strangers := sorted(labelled.keys() - {row.episode_id for row in DatasetReader(folder).rows}):
        raise DatasetError(
            f"{labels} labels {len(strangers)} episodes that {folder.name} does not have, for example {strangers[0]}. "
            "Fix: name the labels of this set"
        )
    return labels


def passport_markdown(passport: Mapping[str, Any]) -> str:
    """The passport for people."""
    what, faults = passport["what"], passport["faults"]
    lines = [f"# Passport of {what['name']}", "", "## What", ""]
    lines += [f"- {name.replace('_', ' ')}: {_said(value)}" for name, value in what.items() if name != "name"]
    lines += ["", "## Whose", "", *(f"- {name.replace('_', ' ')}: {_said(value)}" for name, value in passport["whose"].items())]
    where = f" ({passport['licence']['where']})" if passport["licence"]["where"] else ""
    lines += ["", "## Licence", "", f"{passport['licence']['stated']}{where}", "", "## Faults", ""]
    for kind in ("defects", "risks", "unknown"):
        lines += [f"### {kind.capitalize()}", ""]
        lines += [_fault_line(name, one) for name, one in faults[kind].items()] or ["none"]
        lines.append("")
    lines += ["## Label error", "", *(f"- {name}: {_said(value)}" for name, value in passport["label_error"].items())]
    lines += ["", "## Versions", "", *(f"- {name.replace('_', ' ')}: {value}" for name, value in passport["versions"].items()), ""]
    return "\n".join(lines)


def _fault_line(name: str, one: Mapping[str, Any]) -> str:
    places = f"{one['places']} places, " if one["places"] else ""
    return f"- `{name}`: {places}evidence of {one['looked_at']} of {one['of']} {one['unit']}. {one['first']}"


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or NOT_STATED
    if isinstance(value, list):
        return ", ".join(str(part) for part in value) or NOT_STATED
    return str(value)
