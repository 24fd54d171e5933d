"""A run of the loop as one page for people and one document for programs: report.html and summary.json.

The page stands alone: styles, charts and images are inside it, nothing is fetched. Equal runs give equal pages. This module
gathers what a run left on disk, `view` turns it into values, and templates/*.html lay them out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config.records import Interval, RunSummary, TaskScore
from components.report.view import Gathered, brief, duration, page_values, percent, words
from model_core.spec.documents import to_document
from model_core.spec.files import atomic_write

AUDIT = "undigested/audit"  # of the workcells' step, where it kept one
_TEMPLATES = Path(__file__).with_name("templates")


def write_report(run: RunSummary, out: Path, *, addresses: Mapping[str, str] | None = None) -> Path:
    """Write out/report.html and out/pictures, and return the page's path.

    addresses: what to look at next -> where, such as {"MLflow": "http://127.0.0.1:5000"}. Missing images or curves are left out; the
    numbers come from `run` alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    gathered = gather(run, dict(addresses or {}))
    _copy_images(gathered, out / "pictures")
    atomic_write(out / "report.html", render(run, gathered))
    return out / "report.html"


def render(run: RunSummary, gathered: Gathered) -> str:
    """The page as HTML text; every value from outside is escaped."""
    return render_template("page.html", page_values(run, gathered))


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """One of our templates as HTML text; every value but charts of ours is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "duration": duration, "words": words, "brief": brief}
    return environment.get_template(name).render(values)


def write_summary(run: RunSummary, out: Path) -> Path:
    """Write out/summary.json, and return its path."""
    atomic_write(out / "summary.json", json.dumps(summary(run), indent=1) + "\n")
    return out / "summary.json"


def summary(run: RunSummary) -> dict[str, Any]:
    """The run as a plain document; intervals are [low, high]. train.run_id is the tracker's id where it is known, else ours."""
    score = TaskScore(successes=run.evaluation.successes, trials=run.evaluation.trials, interval=run.evaluation.interval)
    return {
        "name": run.name,
        "recipe": run.recipe_name,
        "stages": {
            name: {"seconds": round(stage.seconds, 3), "cached": stage.cached, "digest": stage.digest} for name, stage in run.stages.items()
        },
        "dataset": {
            "version": run.dataset.version,
            "episodes": run.dataset.episodes,
            "frames": run.dataset.frames,
            "quarantined": run.dataset.quarantined,
            "producers": dict(run.dataset.producers),
            "account": [to_document(row) for row in run.account],
            "notes": list(run.notes),
        },
        "train": {
            "run_id": run.tracker_run_id or run.train.run_id,
            "name": run.train.run_id,
            "steps": run.train.steps,
            "final_loss": run.train.final_loss,
        },
        "evaluation": {
            **_score(score),
            "per_task": {task: _score(found) for task, found in sorted(run.evaluation.per_task.items())},
            **({"open_loop": dict(run.evaluation.open_loop)} if run.evaluation.open_loop else {}),
        },
        "verdict": {
            **to_document(run.verdict),
            "decision": "promote" if run.verdict.promote else "hold",
            "outcome": run.verdict.decided,
        },
        "model_version": to_document(run.model_version),
        "workcells": [to_document(row) for row in run.workcells],
    }


def gather(run: RunSummary, addresses: Mapping[str, str]) -> Gathered:
    """Read what the stages left in their folders: films, examples, the curve, quarantined episodes."""
    folders = {stage: Path(path) for stage, path in run.paths.items()}
    evaluated, trained, validated = folders.get("evaluate"), folders.get("train"), folders.get("validate")
    audit = folders["workcells"] / AUDIT if "workcells" in folders else None
    return Gathered(
        films=_images(evaluated, "film"),
        examples=_images(evaluated, "undigested/examples"),
        curve=tuple(_lines(trained / "metrics.jsonl")) if trained else (),
        quarantined=tuple(_quarantined(validated / "quarantine")) if validated else (),
        audit=str(audit) if audit is not None and audit.is_dir() else "",
        addresses=addresses,
    )


def _score(score: TaskScore) -> dict[str, Any]:
    return {"successes": score.successes, "trials": score.trials, "interval": _pair(score.interval)}


def _pair(interval: Interval) -> list[float]:
    return [round(interval.low, 6), round(interval.high, 6)]


def _images(folder: Path | None, below: str) -> tuple[Path, ...]:
    return tuple(sorted(path for path in (folder / below).glob("*") if path.suffix in (".png", ".gif", ".jpg"))) if folder else ()


def _copy_images(gathered: Gathered, folder: Path) -> None:
    for path in (*gathered.films, *gathered.examples):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / path.name)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _quarantined(folder: Path) -> list[tuple[str, str]]:
    """(episode, reasons as one sentence) of every quarantined episode."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append((document["episode_id"], "; ".join(finding["reason"] for finding in document["findings"])))
    return found
