"""The gate of a data set: every episode gets a verdict, bad ones are set aside with their reasons, too many stop the flow.

Three layers. What concerns the whole set (stale statistics, mixed-up columns) stops at once. What can't be read
(truncated or missing video) sets the episode aside. Everything that is a number per frame or per episode is put into two
tables and held against declared rules by Great Expectations (`components.adapters.great_expectations`).

    out/valid.json               {episode id: true or false}
    out/quarantine/<id>.json     the findings of each episode that is not used
    out/undigested/data_docs/    pages for people, readable without a network
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.adapters.great_expectations import Breach, Rule, evaluate_rules
from components.artifacts.files import dataset_digest, write_text_atomically
from components.config.recipe import ValidateConfig
from components.config.records import Finding, Progress
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics
from model_core.spec.contract import VectorSpec
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.types import Episode

FRAMES, EPISODES = "frames", "episodes"
DOCS = "undigested/data_docs"


def validate(cfg: ValidateConfig, dataset: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Check every episode of `dataset`. Raises `GateError` when the set itself is inconsistent or too many episodes are bad."""
    reader = DatasetReader(dataset)
    broken = dataset_findings(reader)
    if broken:
        raise GateError(f"data set {dataset.name} cannot be used: " + "; ".join(f"{f.check}: {f.reason}" for f in broken))
    findings, frame_rows, episode_rows = _look(cfg, reader, progress)
    if episode_rows:
        import pandas as pd

        tables = {
            FRAMES: pd.DataFrame({k: np.concatenate([r[k] for r in frame_rows]) for k in frame_rows[0]}),
            EPISODES: pd.DataFrame(episode_rows),
        }
        progress.update(len(reader), len(reader), "great expectations")
        breaches = evaluate_rules(tables, rules(cfg, reader), out / DOCS if cfg.data_docs else None)
        findings += [_finding(b) for b in breaches]
    return _conclude(cfg, reader, dataset, findings, out)


# --- the whole set -----------------------------------------------------------------------------------------------------


def dataset_findings(reader: DatasetReader) -> list[Finding]:
    """What is wrong with the set itself, whatever its episodes hold."""

    def finding(check: str, reason: str) -> Finding:
        return Finding(check=check, where=reader.root.name, reason=reason)

    if reader.table.num_rows != reader.frames or len(reader) != int(reader.info["total_episodes"]):
        counted = f"{len(reader)} episodes and {reader.table.num_rows} frames"
        promised = f"{reader.info['total_episodes']} and {reader.frames}"
        return [
            finding(
                "counts", f"the files hold {counted}, info.json promises {promised}; the set is incomplete. Do: write or fetch it again"
            )
        ]
    found = [finding("stale_statistics", f"{reason}. Do: write the data set again") for reason in stale_statistics(reader)[:1]]
    index_N = reader.column("index")
    if not np.array_equal(index_N, np.arange(len(index_N))):
        found.append(finding("index", "the frame index does not count 0, 1, 2 ...; files are missing or in the wrong order"))
    return found + [finding("column_aliasing", reason) for reason in _aliased(reader)]


def _aliased(reader: DatasetReader) -> list[str]:
    columns = {k: reader.column(k) for k in (layout.STATE, layout.ACTION, layout.TCP) if k in reader.features}
    names = sorted(columns)
    same = [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if columns[a].shape == columns[b].shape and columns[a].any() and np.array_equal(columns[a], columns[b])
    ]
    return [f"{a} and {b} hold the same numbers in every frame; one was written in place of the other" for a, b in same]


# --- one episode ---------------------------------------------------------------------------------------------------------


def _look(
    cfg: ValidateConfig, reader: DatasetReader, progress: Progress
) -> tuple[list[Finding], list[dict[str, Any]], list[dict[str, Any]]]:
    findings: list[Finding] = []
    frames: list[dict[str, NDArray[Any]]] = []
    episodes: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for row in reader.rows:
        progress.update(row.index, len(reader), "looking at episodes")
        try:
            episode = reader.episode(row.index, depth=False)
            task_index_T = reader.column("task_index")[row.start : row.start + row.length]
        except DatasetError as error:
            findings.append(Finding(check="unreadable", where=row.episode_id, reason=str(error)))
            continue
        missing = _missing_cameras(reader, episode)
        if missing:
            findings.append(Finding(check="camera_missing", where=row.episode_id, reason=f"no pictures of {', '.join(missing)}"))
            continue
        evidence = _evidence(episode)
        if evidence in seen:
            reason = f"holds the same pictures and actions as {seen[evidence]}; counting it twice would inflate the data"
            findings.append(Finding(check="duplicate", where=row.episode_id, reason=reason))
            continue
        seen[evidence] = row.episode_id
        frame_row = _frame_row(reader, episode, task_index_T)
        frames.append(frame_row)
        episodes.append(_episode_row(reader, episode, frame_row))
    reader.close()
    return findings, frames, episodes


def _missing_cameras(reader: DatasetReader, episode: Episode) -> list[str]:
    wanted = [c.name for c in reader.embodiment.cameras] if reader.embodiment else list(reader.cameras)
    return [name for name in wanted if name not in episode.images]


def _evidence(episode: Episode) -> str:
    total = hashlib.sha256(np.ascontiguousarray(episode.actions_TA).tobytes())
    for name in sorted(episode.images):
        total.update(np.ascontiguousarray(episode.images[name]).tobytes())
    return total.hexdigest()


def _frame_row(reader: DatasetReader, episode: Episode, task_index_T: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    length = len(episode)
    known = len(reader.instructions)
    texts = [reader.instructions[i] if 0 <= i < known else f"task index {i} of a table of {known}" for i in task_index_T]
    row: dict[str, NDArray[Any]] = {
        "episode_id": np.full(length, episode.episode_id, dtype=object),
        "instruction": np.array(texts, dtype=object),
        "period_s": np.diff(episode.timestamps_T, prepend=episode.timestamps_T[0] - 1.0 / reader.fps),
    }
    for name, values in (("state", episode.proprio_TP), ("action", episode.actions_TA), ("executed", episode.executed_TA)):
        row |= {f"{name}.{dim}": values[:, dim].astype(np.float64) for dim in range(values.shape[1])}
    for name, frames_THW3 in episode.images.items():
        row[f"brightness.{name}"] = frames_THW3.mean(axis=(1, 2, 3))
    return row


def _episode_row(reader: DatasetReader, episode: Episode, frame_row: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"episode_id": episode.episode_id, "frames": len(episode), "instruction": episode.instruction}
    told_T = np.abs(np.nan_to_num(episode.executed_TA)).max(axis=1) > 0.05 if episode.executed_TA.size else np.zeros(len(episode), bool)
    for name, frames_THW3 in episode.images.items():
        row[f"frozen_frames.{name}"] = _longest_frozen(frames_THW3, told_T)
    row["gripper_visible"] = _gripper_visible(episode)
    row["clipped"] = _clipped(episode.actions_TA, reader.embodiment.action if reader.embodiment else None)
    return row


def _longest_frozen(frames_THW3: NDArray[np.uint8], told_T: NDArray[np.bool_]) -> int:
    """Most pictures in a row that equal the one before while the arm was told to move."""
    same_T = (frames_THW3[1:] == frames_THW3[:-1]).all(axis=(1, 2, 3)) & told_T[:-1]
    longest = run = 0
    for same in same_T:
        run = run + 1 if same else 0
        longest = max(longest, run)
    return longest


def _gripper_visible(episode: Episode) -> float:
    """Share of frames in which the gripper's tip lies inside the first camera's picture; 1 where that is not known."""
    name = next(iter(episode.images), "")
    if episode.tcp_T3 is None or name not in episode.geometry:
        return 1.0
    geometry = episode.geometry[name]
    u_T, v_T, z_T = geometry.project(episode.tcp_T3).T
    inside_T = (u_T >= -0.5) & (u_T < geometry.width - 0.5) & (v_T >= -0.5) & (v_T < geometry.height - 0.5) & (z_T > 0)
    return float(inside_T.mean())


def _clipped(actions_TA: NDArray[np.float32], spec: VectorSpec | None) -> float:
    """Share of frames in which every action dimension stands at a limit: a controller that only knows full speed."""
    if spec is None or not actions_TA.size:
        return 0.0
    near_A = 1e-3 * (spec.high - spec.low)
    return float(((actions_TA <= spec.low + near_A) | (actions_TA >= spec.high - near_A)).all(axis=1).mean())


# --- rules and verdicts ----------------------------------------------------------------------------------------------------


def rules(cfg: ValidateConfig, reader: DatasetReader) -> list[Rule]:
    """What is expected of every frame and every episode of this set."""
    made: list[Rule] = []

    def rule(table: str, check: str, kind: str, column: str, meaning: str, low: float | None = None, high: float | None = None) -> None:
        values = reader.instructions if kind == "among" else ()
        made.append(Rule(table=table, check=check, kind=kind, column=column, meaning=meaning, low=low, high=high, values=values))

    period = 1.0 / reader.fps
    jitter = cfg.max_timestamp_jitter_s
    rule(
        FRAMES,
        "timestamps",
        "between",
        "period_s",
        f"one frame every {period:.4g} s (jitter {jitter:g} s)",
        period - jitter,
        period + jitter,
    )
    rule(FRAMES, "unknown_task", "among", "instruction", "the instruction is in the task table")
    for name, spec in _vectors(reader).items():
        for dim, meant in enumerate(spec.dims):
            column, slack = f"{name}.{dim}", 0.05 * (meant.high - meant.low)
            rule(FRAMES, "not_finite", "present", column, f"{name} {meant.name} is a number in every frame")
            limits = f"{name} {meant.name} is within {meant.low:g}..{meant.high:g} {meant.unit}"
            rule(FRAMES, "out_of_range", "between", column, limits, meant.low - slack, meant.high + slack)
    for camera in reader.cameras:
        rule(FRAMES, "black_frames", "between", f"brightness.{camera}", f"pictures of {camera} are not black", cfg.black_mean, 255.0)
        frozen = f"pictures of {camera} change while the arm is told to move"
        rule(EPISODES, "frozen_frames", "between", f"frozen_frames.{camera}", frozen, 0, cfg.frozen_frames_limit)
    rule(EPISODES, "episode_length", "between", "frames", f"{cfg.min_frames}..{cfg.max_frames} frames", cfg.min_frames, cfg.max_frames)
    visible = f"the gripper is in the picture in at least {cfg.min_gripper_visible:.0%} of the frames"
    rule(EPISODES, "gripper_visibility", "between", "gripper_visible", visible, cfg.min_gripper_visible, 1.0)
    clipped = f"at most {cfg.max_clipped_fraction:.0%} of the actions stand at their limits"
    rule(EPISODES, "action_clipping", "between", "clipped", clipped, 0.0, cfg.max_clipped_fraction)
    rule(EPISODES, "duplicate_id", "unique", "episode_id", "no two episodes share an id")
    return made


def _vectors(reader: DatasetReader) -> dict[str, VectorSpec]:
    body = reader.embodiment
    return {} if body is None else {"state": body.proprio, "action": body.action, "executed": body.action}


def _finding(breach: Breach) -> Finding:
    seen = f"{breach.first:.4g}" if isinstance(breach.first, int | float | np.number) else str(breach.first)
    places = f"in {breach.count} frames, first " if breach.rule.table == FRAMES else ""
    return Finding(check=breach.rule.check, where=breach.episode_id, reason=f"expected: {breach.rule.meaning}; got {places}{seen}")


def _conclude(cfg: ValidateConfig, reader: DatasetReader, dataset: Path, findings: Sequence[Finding], out: Path) -> dict[str, Any]:
    by_episode: dict[str, list[Finding]] = {}
    for finding in findings:
        by_episode.setdefault(finding.where, []).append(finding)
    verdicts = {row.episode_id: row.episode_id not in by_episode for row in reader.rows}
    for old in (out / "quarantine").glob("*.json"):
        old.unlink()
    for episode, mine in sorted(by_episode.items()):
        document = {"episode_id": episode, "findings": [to_document(f) for f in mine]}
        write_text_atomically(
            out / "quarantine" / f"{episode.replace('/', '_')}.json", json.dumps(document, indent=1, sort_keys=True) + "\n"
        )
    bad = sum(not good for good in verdicts.values())
    reasons = Counter(f.check for f in findings)
    if not verdicts or bad > cfg.max_bad_fraction * len(verdicts):
        worst = ", ".join(f"{check} ({count}x)" for check, count in reasons.most_common(4)) or "it holds no episode"
        example = findings[0] if findings else None
        detail = f" For example {example.where}: {example.reason}." if example else ""
        raise GateError(
            f"{bad} of {len(verdicts)} episodes are bad, at most {cfg.max_bad_fraction:.0%} may be: {worst}.{detail} "
            "Do: repair the recording, or raise validate.max_bad_fraction knowingly"
        )
    write_text_atomically(out / "valid.json", json.dumps(verdicts, indent=1, sort_keys=True) + "\n")
    return {
        "dataset_version": dataset_digest(dataset),
        "episodes": len(verdicts),
        "valid": len(verdicts) - bad,
        "quarantined": bad,
        "findings": dict(sorted(reasons.items())),
        "undigested": {"data_docs": f"{DOCS}/index.html"} if cfg.data_docs else {},
    }
