"""How a run looks on the page: one function a section, each from records to HTML text. Everything from outside is escaped."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from components.config.records import Check, EpisodeRow, RunSummary
from components.drawing.charts import Node, Point, curve_chart, interval_bar, lineage_graph
from components.evaluation.gate import IMAGE_SWAP_CHANGE, NOT_ENOUGH

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


def headline(run: RunSummary) -> str:
    """The page's title."""
    return escape(f"Actwright: {run.name}")


def body(run: RunSummary, found: Gathered) -> str:
    """The whole page below its styles."""
    sections = [
        _head(run),
        _tiles(run),
        _films(run, found),
        _evaluation(run),
        _workcells(run, found),
        _verdict(run),
        _training(run, found),
        _data(run, found),
        _lineage(run),
        _timings(run),
        _foot(run, found),
    ]
    return "\n".join(section for section in sections if section)


def _head(run: RunSummary) -> str:
    model = run.model_version
    state, tone = ("promoted to champion", "good") if run.verdict.promote else ("held back", "wait")
    said = f"{escape(model.name)} version {model.version}, {state}"
    kind = f" · actions <b>{escape(model.lineage['policy_kind'])}</b>" if "policy_kind" in model.lineage else ""
    return (
        f'<header><div><div class="brand">Actwright</div><h1>{escape(run.name)}</h1>'
        f'<div class="soft">recipe <b>{escape(run.recipe_name)}</b> · contract <code>{escape(model.contract_id)}</code>{kind}</div></div>'
        f'<div class="pill {tone}">{said}</div></header>'
    )


def _tiles(run: RunSummary) -> str:
    report = run.evaluation
    rate = f"{report.successes}<span> of {report.trials}</span>"
    interval = f"solved on fresh scenes, 95 % interval {_percent(report.interval.low)} to {_percent(report.interval.high)}"
    tiles = [(rate, interval), (f"{run.dataset.episodes:,}", f"demonstrations, {run.dataset.frames:,} frames")]
    tiles.append((f"{run.train.steps:,}", f"training steps, final loss {run.train.final_loss:.3f}"))
    if run.workcells:
        solved, episodes = sum(c.successes for c in run.workcells), sum(c.episodes for c in run.workcells)
        tiles.append((f"{solved}<span> of {episodes}</span>", f"solved by {len(run.workcells)} workcells on the served policy"))
    seconds = sum(stage.seconds for stage in run.stages.values())
    cached = sum(stage.cached for stage in run.stages.values())
    tiles.append((_duration(seconds), f"in {len(run.stages)} stages, {cached} of them found finished"))
    return (
        '<div class="tiles">' + "".join(f'<div class="card tile"><b>{big}</b><span>{small}</span></div>' for big, small in tiles) + "</div>"
    )


def _films(run: RunSummary, found: Gathered) -> str:
    if not found.films:
        return ""
    say = "The camera of one episode a task, in the closed loop. The line is the path that the model said its gripper would take, "
    say += "from the ring to the dot; below each frame the distances that it said, bright is near."
    strips = "".join(f'<div class="film"><img alt="{escape(path.stem)}" src="{_data_uri(path)}"></div>' for path in found.films)
    return _section("What it did", say, strips)


def _evaluation(run: RunSummary) -> str:
    report, floor = run.evaluation, _gate_number(run, "floor")
    rows = []
    for task, score in sorted(report.per_task.items()):
        bar = interval_bar(score.successes, score.trials, score.interval.low, score.interval.high, floor=floor)
        share = _percent(score.successes / score.trials) if score.trials else "no trial"
        interval = f"{_percent(score.interval.low)} to {_percent(score.interval.high)}"
        rows.append([escape(task), f"<b>{share}</b>", f"{score.successes} of {score.trials}", bar, interval])
    table = _table(
        ["task", "solved", "episodes", "0 to 100 %, dashed: the floor" if floor is not None else "0 to 100 %", "95 % interval"], rows
    )
    steps = [row.steps for row in report.episodes if row.success]
    say = "Closed loop on seeds that were never trained on; intervals are Wilson's."
    if steps:
        say += f" A solved episode took {sorted(steps)[len(steps) // 2]} control steps at the median."
    change, needed = report.blindness.get(IMAGE_SWAP_CHANGE), _gate_number(run, "min_image_swap_change")
    if change is not None:
        looks = "" if needed is None else ": it looks" if change >= needed else ": it hardly looks"
        say += f" When the picture was exchanged, {_percent(change)} of the actions changed{looks}."
    return _section("Does it work?", say, f'<div class="card">{table}{_failures(report.episodes)}</div>')


def _failures(episodes: Sequence[EpisodeRow]) -> str:
    failed = [row for row in episodes if not row.success]
    if not failed:
        return '<p class="soft" style="margin:12px 0 0">No episode failed.</p>'
    counts = ", ".join(f"{count} {escape(_words(reason))}" for reason, count in Counter(row.stop_reason for row in failed).most_common())
    rows = [[escape(row.task), str(row.seed), escape(_words(row.stop_reason)), str(row.steps), escape(row.detail)] for row in failed]
    table = _table(["task", "seed", "ended by", "steps", "detail"], rows)
    return f'<details style="margin-top:14px"><summary>{len(failed)} failed: {counts}</summary>{table}</details>'


def _workcells(run: RunSummary, found: Gathered) -> str:
    if not run.workcells:
        return ""
    rows = []
    for cell in run.workcells:
        state = (
            f'<span class="bad">{escape(cell.refused_to_move)}</span>'
            if cell.refused_to_move
            else f"<b>{cell.successes}</b> of {cell.episodes}"
        )
        numbers = [f"{cell.decisions:,}", str(cell.refusals), str(cell.holds), f"{cell.p50_ms:.1f}", f"{cell.p99_ms:.1f}"]
        rows.append([escape(cell.cell), escape(cell.task), state, *numbers])
    heads = ["cell", "task", "solved", "decisions", "refusals", "holds", "p50 ms", "p99 ms"]
    say = "Robots in processes of their own that asked the packaged service for every chunk of actions. "
    say += "Times are from asking to having a chunk."
    look = f"<p>Every decision is on record: <code>actwright audit list {escape(found.audit)}</code></p>" if found.audit else ""
    return _section("On the workcells", say, f'<div class="card">{_table(heads, rows)}</div>{look}')


def _verdict(run: RunSummary) -> str:
    checks = run.verdict.checks or tuple(Check(name="reason", passed=run.verdict.promote, reason=r) for r in run.verdict.reasons)
    rows = [[_mark(check), escape(check.reason), f'<span class="mono soft">{escape(check.name)}</span>'] for check in checks]
    against = (
        f"against the champion <code>{escape(run.verdict.champion[:12])}</code>"
        if run.verdict.champion
        else "without a champion to compare with"
    )
    say = f"The gate judged the candidate <code>{escape(run.verdict.candidate[:12])}</code> {against}. Every criterion must hold."
    decision = '<b class="good">Promote.</b>' if run.verdict.promote else '<b class="wait">Hold.</b>'
    return _section("The verdict", f"{decision} {say}", f'<div class="card">{_table(["", "criterion", "name"], rows)}</div>')


def _mark(check: Check) -> str:
    if check.passed:
        return '<b class="good">✓</b>'
    return '<b class="wait">?</b>' if check.reason.startswith(NOT_ENOUGH) else '<b class="bad">✗</b>'


def _training(run: RunSummary, found: Gathered) -> str:
    curves = _curves(found.curve)
    charts = []
    if curves["loss"]:
        window = max(2, len(curves["loss"][next(iter(curves["loss"]))]) // 60)
        charts.append(f'<div class="card"><h3>Loss</h3>{curve_chart(curves["loss"], title="loss", smooth=window)}</div>')
    if curves["rest"]:
        charts.append(f'<div class="card"><h3>Its parts</h3>{curve_chart(curves["rest"], title="parts of the loss", smooth=8)}</div>')
    sheets = "".join(f'<figure><img alt="{escape(p.stem)}" src="{_data_uri(p)}"></figure>' for p in found.examples)
    say = f"Run <code>{escape(run.train.run_id)}</code>, {escape(run.train.ended_because)} after {run.train.steps:,} steps."
    held_out = {key.removeprefix("validation_"): value for key, value in sorted(run.train.metrics.items())}
    told = ", ".join(f"{escape(_words(k))} {_percent(v) if 'accuracy' in k else f'{v:.3g}'}" for k, v in held_out.items())
    say += f" On frames that were held out: {told}." if told else ""
    return _section("How it learned", say, f'<div class="two">{"".join(charts)}</div>{sheets}')


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Point]]]:
    """The loss with what validation said of it, and the parts of the loss (at most five)."""
    series: dict[str, list[Point]] = {}
    for line in lines:
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float):
                series.setdefault(key, []).append((float(line["step"]), float(value)))
    loss = {_words(key): series.pop(key) for key in ("loss", "validation_loss") if key in series}
    named = {_words(key.removeprefix("loss_")): points for key, points in series.items() if key.startswith("loss_")}
    return {"loss": loss, "rest": dict(sorted(named.items())[:5])}


def _data(run: RunSummary, found: Gathered) -> str:
    data = run.dataset
    facts = [
        ("version", f"<code>{escape(data.version)}</code>"),
        ("episodes", f"{data.episodes:,}"),
        ("frames", f"{data.frames:,} ({data.train_frames:,} for training, {data.validation_frames:,} for validation)"),
        ("recorded by", "<br>".join(f"{escape(who)}: {count:,}" for who, count in sorted(data.producers.items())) or "unknown"),
        ("quarantined", f"{data.quarantined:,}"),
        (
            "labels by",
            "<br>".join(f"{escape(k)}: <code>{escape(_brief(v))}</code>" for k, v in sorted(data.annotators.items())) or "nobody",
        ),
    ]
    table = _table([], [[f'<span class="soft">{name}</span>', value] for name, value in facts])
    if found.quarantined:
        rows = [[f"<code>{escape(name)}</code>", escape(reason)] for name, reason in found.quarantined]
        reasons = _table(["episode", "reason"], rows)
        table += f'<details open style="margin-top:14px"><summary>Quarantined episodes and why</summary>{reasons}</details>'
    return _section(
        "What it learned from", f"Data set <b>{escape(data.name)}</b>, frozen and versioned.", f'<div class="card">{table}</div>'
    )


def _lineage(run: RunSummary) -> str:
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
    graph = lineage_graph([by_key[key] for key in order], edges)
    say = "Everything needed to make this version again. Digests name contents: equal digests are equal things."
    return _section("Where it comes from", say, f'<div class="card">{graph}</div>')


def _timings(run: RunSummary) -> str:
    longest = max((stage.seconds for stage in run.stages.values()), default=0.0) or 1.0
    rows = []
    for name, stage in run.stages.items():
        kind = "bar cached" if stage.cached else "bar"
        bar = f'<div class="{kind}" style="width:{100 * stage.seconds / longest:.1f}%"></div>'
        state = '<span class="tag">found finished</span>' if stage.cached else ""
        rows.append(
            [escape(name), f"{_duration(stage.seconds)}", state, bar, f'<span class="mono soft">{escape(stage.digest[:12])}</span>']
        )
    table = _table(["stage", "time", "", "", "digest"], rows, widths=(120, 96, 120, None, 120))
    return _section(
        "How long it took", "A stage whose inputs, settings and code did not change is not done again.", f'<div class="card">{table}</div>'
    )


def _foot(run: RunSummary, found: Gathered) -> str:
    recipe = escape(json.dumps(run.recipe, indent=1, sort_keys=True))
    next_steps = "".join(f"<li>{escape(what)}: <code>{escape(where)}</code></li>" for what, where in sorted(found.addresses.items()))
    look = f"<p>Where to look next:</p><ul>{next_steps}</ul>" if next_steps else ""
    return f'<footer>{look}<details><summary>The resolved recipe</summary><pre class="card">{recipe}</pre></details></footer>'


def _section(title: str, say: str, content: str) -> str:
    return f'<section><h2>{title}</h2><p class="say">{say}</p>{content}</section>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int | None] = ()) -> str:
    """Rows of ready HTML."""
    columns = "".join(f'<col style="width:{w}px">' if w else "<col>" for w in widths)
    head = "<tr>" + "".join(f"<th>{h}</th>" for h in heads) + "</tr>" if heads else ""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{columns and f'<colgroup>{columns}</colgroup>'}{head}{lines}</table>"


def _data_uri(path: Path) -> str:
    return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _gate_number(run: RunSummary, name: str) -> float | None:
    """What the recipe's gate declares under `name`, where the recipe document has it."""
    gate = run.recipe.get("gate")
    number = gate.get(name) if isinstance(gate, Mapping) else None
    return float(number) if isinstance(number, int | float) else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def _brief(version: str) -> str:
    """A bare digest is cut to what people compare."""
    return version[:16] if len(version) == 64 else version


def _labels_detail(annotators: Mapping[str, str]) -> str:
    named = sorted({version.split("?")[0] for version in annotators.values() if len(version) != 64})
    return ", ".join(named) or "nobody"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", " ")
