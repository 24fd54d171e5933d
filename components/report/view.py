"""What the page shows: from a run's records, and the files that its stages left, to the values that the templates name."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.config.judging.verdict import ERROR_RATIO, IMAGE_SWAP_CHANGE, Check
from components.config.records import Dropped, EvalReport, RunSummary
from components.drawing.charts import Node, Point, curve_chart, interval_bar, lineage_graph

_MIME = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What the stages left beside their records. curve: points as dicts with "step". quarantined: (episode, reasons).

    audit: folder of what the workcells recorded of every decision.
    """

    films: tuple[Path, ...] = ()
    examples: tuple[Path, ...] = ()
    curve: tuple[Mapping[str, Any], ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    audit: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)


def page_values(run: RunSummary, found: Gathered) -> dict[str, Any]:
    """Every name that the templates use. Charts are markup of ours; everything else is escaped by the templates."""
    return {
        "run": run,
        "model": run.model_version,
        "tiles": _tiles(run),
        "films": [_image(path) for path in found.films],
        "examples": [_image(path) for path in found.examples],
        "evaluation": _evaluation(run),
        "checks": _checks(run),
        "audit": found.audit,
        "training": _training(run, found),
        "quarantined": found.quarantined,
        "account": [{"row": row, "dropped": [(fallen_away(one), one.reason) for one in row.dropped]} for row in run.account],
        "lineage": Markup(_lineage(run)),
        "timings": _timings(run),
        "addresses": found.addresses,
        "recipe": json.dumps(run.recipe, indent=1, sort_keys=True),
    }


def fallen_away(dropped: Dropped) -> str:
    """How much it was, in words."""
    counts = {"episode": dropped.episodes, "frame": dropped.frames}
    return ", ".join(f"{count:,} {name if count == 1 else name + 's'}" for name, count in counts.items() if count)


def _tile(value: object, meaning: str, total: int | None = None) -> dict[str, object]:
    return {"value": value, "meaning": meaning, "total": total}


def _evaluation_tile(report: EvalReport) -> dict[str, object]:
    if report.open_loop:
        frames = f"{report.open_loop['frames']:,.0f} held-out frames"
        return _tile(f"{report.open_loop[ERROR_RATIO]:.2f}", f"of the mean action's error on {frames}, open loop")
    interval = f"solved on fresh scenes, 95 % interval {percent(report.interval.low)} to {percent(report.interval.high)}"
    return _tile(report.successes, interval, report.trials)


def _tiles(run: RunSummary) -> list[dict[str, object]]:
    """The numbers at a glance."""
    tiles = [
        _evaluation_tile(run.evaluation),
        _tile(f"{run.dataset.episodes:,}", f"demonstrations, {run.dataset.frames:,} frames"),
        _tile(f"{run.train.steps:,}", f"training steps, final loss {run.train.final_loss:.3f}"),
    ]
    if run.workcells:
        solved, episodes = sum(c.successes for c in run.workcells), sum(c.episodes for c in run.workcells)
        tiles.append(_tile(solved, f"solved by {len(run.workcells)} workcells on the served policy", episodes))
    cached = sum(stage.cached for stage in run.stages.values())
    seconds = sum(stage.seconds for stage in run.stages.values())
    return [*tiles, _tile(duration(seconds), f"in {len(run.stages)} stages, {cached} of them found finished")]


def _evaluation(run: RunSummary) -> dict[str, Any]:
    report, floor = run.evaluation, _gate_number(run, "floor")
    tasks = [
        {
            "task": task,
            "share": score.successes / score.trials if score.trials else None,
            "successes": score.successes,
            "trials": score.trials,
            "low": score.interval.low,
            "high": score.interval.high,
            "bar": Markup(interval_bar(score.successes, score.trials, score.interval.low, score.interval.high, floor=floor)),
        }
        for task, score in sorted(report.per_task.items())
    ]
    steps = sorted(row.steps for row in report.episodes if row.success)
    failed = [row for row in report.episodes if not row.success]
    change, needed = report.blindness.get(IMAGE_SWAP_CHANGE), _gate_number(run, "min_image_swap_change")
    return {
        "tasks": tasks,
        "has_floor": floor is not None,
        "median_steps": steps[len(steps) // 2] if steps else None,
        "image_change": change,
        "depends_on_image": None if change is None or needed is None else change >= needed,
        "failed": failed,
        "open_loop": [
            ("all, mean" if name == ERROR_RATIO else name.removesuffix(f"/{ERROR_RATIO}"), ratio)
            for name, ratio in report.open_loop.items()
            if ERROR_RATIO in name
        ],
        "reasons": Counter(row.stop_reason for row in failed).most_common(),
    }


def _checks(run: RunSummary) -> list[dict[str, object]]:
    verdict = run.verdict
    checks = verdict.checks or tuple(Check(name="reason", passed=verdict.promote, reason=reason) for reason in verdict.reasons)
    return [{"name": c.name, "passed": c.passed, "reason": c.reason, "undecided": c.stands in ("open", "not enough")} for c in checks]


def _training(run: RunSummary, found: Gathered) -> dict[str, Any]:
    curves = _curves(found.curve)
    charts: list[dict[str, object]] = []
    if curves["loss"]:
        window = max(2, len(curves["loss"][next(iter(curves["loss"]))]) // 60)
        charts.append({"title": "Loss", "svg": Markup(curve_chart(curves["loss"], title="loss", smooth=window))})
    if curves["rest"]:
        charts.append({"title": "Its parts", "svg": Markup(curve_chart(curves["rest"], title="parts of the loss", smooth=8))})
    held_out = {key.removeprefix("validation_"): value for key, value in sorted(run.train.metrics.items())}
    return {"charts": charts, "held_out": [(k, percent(v) if "accuracy" in k else f"{v:.3g}") for k, v in held_out.items()]}


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Point]]]:
    """The loss with the validation loss, of each embodiment too where there are several, and the parts of the loss (at most five)."""
    series: dict[str, list[Point]] = {}
    for line in lines:
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float):
                series.setdefault(key, []).append((float(line["step"]), float(value)))
    by_embodiment = sorted(key for key in series if key.startswith(("loss/", "validation_loss/")))
    loss = {words(key): series.pop(key) for key in ("loss", "validation_loss", *by_embodiment) if key in series}
    named = {words(key.removeprefix("loss_")): points for key, points in series.items() if key.startswith("loss_")}
    return {"loss": loss, "rest": dict(sorted(named.items())[:5])}


def _lineage(run: RunSummary) -> str:
    """The graph from demonstrations to the registered version, as SVG."""
    data, model, train = run.dataset, run.model_version, run.train
    commit = model.lineage.get("code_commit", "")
    packed = run.stages["package"].digest[:16] if "package" in run.stages else ""
    nodes = [
        Node(key="raw", kind="demonstrations", name=f"{data.episodes + data.quarantined} recorded", detail=(data.parents or ("",))[0][:16]),
        Node(key="labels", kind="labels", name="depth and trace", detail=_labels_detail(data.annotators)),
        Node(key="data", kind="data set version", name=data.name, detail=data.version[:16]),
        Node(key="run", kind="training run", name=f"{train.steps} steps", detail=train.run_id[:26]),
        Node(key="code", kind="code", name="commit", detail=commit[:16] + ("+changes" if commit.endswith("+changes") else "") or "unknown"),
        Node(key="recipe", kind="recipe", name=run.recipe_name, detail=train.recipe_digest[:16]),
        Node(key="examined", kind="evaluation", name=f"{run.evaluation.successes} of {run.evaluation.trials} solved", detail="fresh seeds"),
        Node(key="checkpoint", kind="checkpoint", name="weights and contract", detail=train.checkpoint_digest[:16]),
        Node(key="cells", kind="workcells", name=f"{len(run.workcells)} cells", detail="record for the next run"),
        Node(key="bento", kind="package", name="service", detail=model.bento or packed or "not packed"),
        Node(key="model", kind=model.alias, name=f"{model.name} {model.version}", detail=model.contract_id, accent=True),
        Node(
            key="verdict", kind="verdict", name="promote" if run.verdict.promote else "hold", detail=f"{len(run.verdict.checks)} criteria"
        ),
    ]
    order = ["raw", "labels", "data", "run", "cells", "code", "recipe", "checkpoint", "bento", "model", "verdict", "examined"]
    edges = [("raw", "labels"), ("labels", "data"), ("data", "run"), ("run", "checkpoint"), ("code", "recipe"), ("recipe", "run")]
    edges += [("checkpoint", "examined"), ("examined", "verdict"), ("verdict", "model"), ("model", "bento"), ("bento", "cells")]
    edges += [("cells", "raw")]
    by_key = {node.key: node for node in nodes}
    return lineage_graph([by_key[key] for key in order], edges)


def _timings(run: RunSummary) -> list[dict[str, object]]:
    longest = max((stage.seconds for stage in run.stages.values()), default=0.0) or 1.0
    return [
        {
            "stage": name,
            "seconds": stage.seconds,
            "cached": stage.cached,
            "percent_of_longest": 100 * stage.seconds / longest,
            "digest": stage.digest[:12],
        }
        for name, stage in run.stages.items()
    ]


def _image(path: Path) -> dict[str, str]:
    return {"name": path.stem, "uri": f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"}


def _gate_number(run: RunSummary, name: str) -> float | None:
    """What the recipe's gate declares under `name`, where the recipe document has it."""
    gate = run.recipe.get("gate")
    number = gate.get(name) if isinstance(gate, Mapping) else None
    return float(number) if isinstance(number, int | float) else None


def percent(share: float) -> str:
    """A share as whole percent."""
    return f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def brief(version: str) -> str:
    """A bare digest is cut to what people compare."""
    return version[:16] if len(version) == 64 else version


def _labels_detail(annotators: Mapping[str, str]) -> str:
    named = sorted({version.split("?")[0] for version in annotators.values() if len(version) != 64})
    return ", ".join(named) or "none"


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ").replace("/", " ")
