"""The gate of a data set: it judges every episode, sets bad ones aside with their reasons, and stops the flow for too many.

Three layers. A fault of the whole set (stale statistics, mixed-up columns) stops at once. An episode that cannot be read
(truncated or missing video) is set aside. All others are measured by the rules of `components.data.inspection.rules`, and in the same pass
for those of `components.data.inspection.checks`; the measures become two tables, which Great Expectations checks
(`components.adapters.great_expectations`). Risks, and rules without evidence, are told and set nothing aside.

    out/valid.json               {episode id: true or false}
    out/quarantine/<id>.json     the findings of each episode that is not used
    out/inspection.json, .html   every rule: what it found, of how many frames or episodes it had evidence, why it matters, what to do
                                 (of several embodiments one each, in out/embodiments/<name>/)
    out/measurements/            what was measured of each episode, by its content: another threshold reads no video again
    out/undigested/data_docs/    pages for people, readable without a network
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.adapters.great_expectations import Breach, Rule, evaluate_rules
from components.config.data_config import ValidateConfig
from components.config.records import Finding, Progress
from components.data.inspection.dataset import asked_for, dataset_findings
from components.data.inspection.gate import (
    FAMILIES_OF_EPISODES,
    GateInspection,
    check_members,
    family_columns,
    further_findings,
    set_aside,
    write_report,
)
from components.data.inspection.identity import episode_identity
from components.data.inspection.measurements.store import MeasurementStore
from components.data.inspection.rule import EPISODES, FRAMES, InspectionRule
from components.data.inspection.rules import rules_of
from components.data.inspection.sentences import shared_sentences, told
from components.data.inspection.structure import missing_cameras, structural_faults
from components.data.inspection.tables import FURTHER, EpisodeTables
from components.data.lerobot.reader import DatasetReader, TaskError
from components.data.packing.kept_images import KeptImages
from components.data.sources.interface import EpisodeSource
from components.data.sources.mixed import members_of
from components.data.sources.open import camera_sizes, data_sets_of, instructions_of, open_raw
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.files import atomic_write

DOCS = "undigested/data_docs"
logger = logging.getLogger(__name__)


def validate(cfg: ValidateConfig, dataset: Path, out: Path, progress: Progress, *, images: KeptImages | None = None) -> dict[str, Any]:
    """Check every episode of `dataset`. Raises `GateError` when the set itself is inconsistent or too many episodes are bad."""
    reader = open_raw(dataset, images)
    broken = [finding for data_set in data_sets_of(reader) for finding in dataset_findings(data_set)]
    if broken:
        raise GateError(f"data set {dataset.name} cannot be used: " + "; ".join(f"{f.check}: {f.reason}" for f in broken))
    store = MeasurementStore(out / "measurements")
    findings: list[Finding] = []
    outcomes: dict[str, Any] = {}
    # episodes of several embodiments have limits, cameras and rates of their own, so each embodiment is judged by itself
    for name, member in members_of(reader).items():
        found, outcomes[name] = _judge(cfg, member, out / "embodiments" / name if name else out, (out / DOCS / name, store), progress)
        findings += found
    return _conclude(cfg, reader, findings, out) | {"inspection": outcomes.get("", outcomes)}


def _judge(
    cfg: ValidateConfig, reader: EpisodeSource, out: Path, kept: tuple[Path, MeasurementStore], progress: Progress
) -> tuple[list[Finding], dict[str, Any]]:
    """What is wrong with the episodes of one embodiment, and how many rules found what. kept: folders of the pages and measurements."""
    docs, store = kept
    inspection = _inspect(cfg, reader, store, progress)
    if not inspection.episodes:
        return inspection.findings, {}
    progress.update(len(reader.rows), len(reader.rows), "great expectations")
    report = inspection.further.report(cfg)
    further = further_findings(report)
    tables = inspection.tables(family_columns(report, further))
    breaches = evaluate_rules(tables, rules(cfg, reader), docs if cfg.data_docs else None)
    findings = inspection.findings + [_finding(b) for b in breaches if b.rule.check != FURTHER]
    # an episode that is set aside already has its reason; what else its rules find is in inspection.json
    known, broken = {f.where for f in findings}, {b.episode_id for b in breaches if b.rule.check == FURTHER}
    findings += [f for f in further if f.where in broken - known]
    return findings, write_report(report, out)


# --- one episode ---------------------------------------------------------------------------------------------------------


def _inspect(cfg: ValidateConfig, reader: EpisodeSource, store: MeasurementStore, progress: Progress) -> EpisodeTables:
    is_folder = isinstance(reader, DatasetReader)
    further = GateInspection(
        name=reader.name,
        fps=reader.fps if is_folder else float(reader.embodiment.control_hz),
        cameras=tuple(camera_sizes(reader)),
        sentences=reader.tasks if is_folder else dict(enumerate(instructions_of(reader))),
        embodiment=reader.described if is_folder else reader.embodiment,
        store=store,
    )
    inspection = EpisodeTables(rules=_episode_rules(cfg, reader), further=further)
    for row in reader.rows:
        progress.update(row.index, len(reader.rows), "inspecting episodes")
        try:
            episode = reader.episode(row.index, depth=False)
        except TaskError as error:
            inspection.refuse(row.episode_id, "unknown_task", str(error))
            continue
        except DatasetError as error:
            inspection.refuse(row.episode_id, "unreadable", str(error))
            continue
        if faults := _structure(episode, reader):
            for check, reason in faults:
                inspection.refuse(row.episode_id, check, reason)
            continue
        identity = episode_identity(episode)
        same = inspection.seen.setdefault(identity, row.episode_id)
        if same != row.episode_id:
            reason = f"holds the same images, state and actions as {same}; counting it twice would inflate the data"
            inspection.refuse(row.episode_id, "duplicate", reason)
            continue
        inspection.measure(episode)
        further.measure(episode, row.number, identity)
    reader.close()
    return inspection


def _structure(episode: Episode, reader: EpisodeSource) -> list[tuple[str, str]]:
    """Why the rules cannot be measured. A data set that names no embodiment promises its cameras and nothing else."""
    if isinstance(reader, DatasetReader) and reader.described is None:
        return [("camera_missing", f"no images of camera {name!r}") for name in missing_cameras(episode, reader.cameras)]
    return list(structural_faults(episode, reader.embodiment))


def _asked_for(reader: EpisodeSource) -> list[tuple[str, str]]:
    """Every (task, sentence) of the episodes, and of the task tables of their data sets."""
    if isinstance(reader, DatasetReader):
        return asked_for(reader)
    return [(row.task, row.instruction) for row in reader.rows]


# --- rules and verdicts ----------------------------------------------------------------------------------------------------


def _episode_rules(cfg: ValidateConfig, reader: EpisodeSource) -> list[InspectionRule]:
    if isinstance(reader, DatasetReader):
        return rules_of(cfg, control_hz=reader.fps, cameras=reader.cameras, embodiment=reader.described)
    body = reader.embodiment
    return rules_of(cfg, control_hz=float(body.control_hz), cameras=[camera.name for camera in body.cameras], embodiment=body)


def rules(cfg: ValidateConfig, reader: EpisodeSource) -> list[Rule]:
    """What is expected of every frame and every episode of this set: the rules of an episode, and those that need its tables."""
    made = [
        Rule(table=r.table, check=r.check, kind=r.kind, column=r.column, meaning=r.meaning, low=r.low, high=r.high)
        for r in _episode_rules(cfg, reader)
    ]
    for family in FAMILIES_OF_EPISODES:
        none = f"no further rule of the family {family} finds a defect (inspection.json names each rule)"
        made.append(Rule(table=EPISODES, check=FURTHER, kind="between", column=f"{FURTHER}.{family}", meaning=none, low=0, high=0))
    known = "the instruction is in the task table"
    unique = "no two episodes share an id"
    return [
        *made,
        Rule(table=FRAMES, check="unknown_task", kind="among", column="instruction", meaning=known, values=instructions_of(reader)),
        Rule(table=EPISODES, check="duplicate_id", kind="unique", column="episode_id", meaning=unique),
    ]


def _finding(breach: Breach) -> Finding:
    seen = f"{breach.first:.4g}" if isinstance(breach.first, int | float | np.number) else str(breach.first)
    places = f"in {breach.count} frames, first " if breach.rule.table == FRAMES else ""
    return Finding(check=breach.rule.check, where=breach.episode_id, reason=f"expected: {breach.rule.meaning}; got {places}{seen}")


def _conclude(cfg: ValidateConfig, reader: EpisodeSource, findings: Sequence[Finding], out: Path) -> dict[str, Any]:
    by_episode = set_aside(findings, out / "quarantine")
    verdicts = {row.episode_id: row.episode_id not in by_episode for row in reader.rows}
    bad = sum(not good for good in verdicts.values())
    reasons = Counter(f.check for f in findings)
    if not verdicts or bad > cfg.max_bad_fraction * len(verdicts):
        worst = ", ".join(f"{check} ({count}x)" for check, count in reasons.most_common(4)) or "it holds no episode"
        example = findings[0] if findings else None
        detail = f" For example {example.where}: {example.reason}." if example else ""
        raise GateError(
            f"{bad} of {len(verdicts)} episodes are bad, at most {cfg.max_bad_fraction:.0%} may be: {worst}.{detail} "
            "Fix: repair these recordings or leave them out; quarantine/ in the folder of the step names the reason of each"
        )
    check_members(reader, verdicts, by_episode)
    shared = shared_sentences(_asked_for(reader))
    for line in told(shared):
        logger.warning("validate.shared_sentence %s", line)
    atomic_write(out / "valid.json", json.dumps(verdicts, indent=1, sort_keys=True) + "\n")
    return {
        "dataset_version": reader.digest,
        "episodes": len(verdicts),
        "valid": len(verdicts) - bad,
        "quarantined": bad,
        "findings": dict(sorted(reasons.items())),
        "shared_sentences": shared,
        "undigested": {"data_docs": f"{DOCS}/{next(iter(members_of(reader)))}/index.html".replace("//", "/")} if cfg.data_docs else {},
    }
