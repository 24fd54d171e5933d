"""The records behind the lineage graph, read where they are; a place that does not answer is a note, and the others are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapters.mlflow.reading.records import VersionRow
from components.release.lineage.documents import (
    KnownBundle,
    KnownCell,
    KnownDataset,
    KnownEpisode,
    KnownRelease,
    KnownTraining,
    LineageFacts,
    LineageGraph,
)
from components.release.lineage.graph import both_ways, lineage_graph, named
from flows.pipeline.model_lookup import policies_here
from flows.pipeline.stage_records import read_model_version
from model_core.spec.errors import ActwrightError

if TYPE_CHECKING:
    from components.artifacts.step_manifest import Step
    from components.artifacts.step_store import StepStore
    from flows.platform.wiring import Platform

Ask = Callable[[str], Any]  # a path of the fleet's controller -> what it tells
_RAW_STAGES = ("collect", "sources", "join", "ingest")
_MOST_RELEASES = 50  # whose past cells are asked for, at a question each


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a person asked for. starts: ids of what they named. notes: places that were not asked or did not answer."""

    graph: LineageGraph
    starts: tuple[str, ...]
    notes: tuple[str, ...]


def lineage_of(
    platform: Platform, what: str, ask: Ask | None, *, releases: Path | None = None, episodes: Sequence[KnownEpisode] = ()
) -> Lineage:
    """What `what` was made of and what was made with it; the whole graph for "".

    what: a name or its first digits. ask: None leaves the fleet out. releases: a folder of them, beside those that the controller was
    offered. Where nothing is called so, `starts` is empty.
    """
    notes: list[str] = []
    facts = replace(_of_this_home(platform, releases, notes), episodes=tuple(episodes))
    if ask is not None:
        try:
            facts = _with_fleet(facts, ask)
        except ActwrightError as error:
            notes.append(f"robots are left out: {error}")
            ask = None
    whole = lineage_graph(facts)
    starts = tuple(named(whole, what)) if what else tuple(node.id for node in whole.nodes)
    graph = both_ways(whole, starts)
    seen = whole if any(start.startswith("cell:") for start in starts) else graph  # a cell may have run any of them
    known = [node.name for node in seen.nodes if node.kind == "release"]
    if ask is not None and known:
        past = _past_cells(ask, known, notes)
        graph = both_ways(lineage_graph(replace(facts, cells=(*past, *facts.cells))), starts)
    return Lineage(graph=graph, starts=starts, notes=tuple(notes))


def _of_this_home(platform: Platform, releases: Path | None, notes: list[str]) -> LineageFacts:
    versions = {(row.name, row.version): row for row in _judged(platform.store)}
    try:
        versions |= {(row.name, row.version): row for row in platform.tracking_reader().versions()}
    except ActwrightError as error:
        notes.append(f"versions that MLflow alone knows are left out: {error}")
    return LineageFacts(
        versions=tuple(versions.values()),
        datasets=tuple(_datasets(platform.store)),
        trainings=tuple(_trainings(platform.store)),
        bundles=tuple(_packed(platform, notes)),
        releases=tuple(_made(releases)) if releases else (),
    )


def _with_fleet(facts: LineageFacts, ask: Ask) -> LineageFacts:
    """With the releases that the controller was offered and what each cell runs. Of a release whose document is here, that counts."""
    names = ("digest", "model_version", "allowed_by")
    releases = {one["digest"]: KnownRelease(**{name: one[name] for name in names}) for one in ask("/v1/releases")}
    releases |= {one.digest: one for one in facts.releases}
    cells = tuple(_running(one) for one in ask("/v1/status")["cells"] if one["running"])
    return replace(facts, releases=tuple(releases.values()), cells=cells)


def _judged(store: StepStore) -> list[VersionRow]:
    """The versions that gates of this home registered; the registry's own row counts where it has one."""
    rows = []
    for gated in store.steps("gate"):
        found = read_model_version(gated)
        own = {"contract_id": found.contract_id, "checkpoint_digest": found.checkpoint_digest, "dataset_version": found.dataset_version}
        rows.append(VersionRow(name=found.name, version=found.version, tags={**found.lineage, **own, "replaced": found.replaced}))
    return rows


def _datasets(store: StepStore) -> list[KnownDataset]:
    raws = {step.digest: step for stage in _RAW_STAGES for step in store.steps(stage)}
    return [_dataset(step, raws.get(step.manifest.inputs.get("raw", ""))) for step in store.steps("freeze")]


def _dataset(frozen: Step, raw: Step | None) -> KnownDataset:
    record = frozen.record
    names = ("name", "episodes", "frames", "train_frames", "validation_frames")
    rows = [row for row in record.get("account", ()) if row["source"]] or [
        {"source": source, "episodes": count} for source, count in (raw.record.get("producers", {}) if raw else {}).items()
    ]
    sources = {row["source"]: f"{row['episodes']} episodes" + (f", {row['frames']} frames" if "frames" in row else "") for row in rows}
    return KnownDataset(
        version=str(record["version"]),
        facts={name.replace("_", " "): str(record[name]) for name in names if name in record},
        annotators=record.get("annotators", {}),
        recorded=(str(record["dataset_version"]),) if "dataset_version" in record else (),
        sources=sources,
    )


def _trainings(store: StepStore) -> list[KnownTraining]:
    steps = store.steps("train")
    by_folder = {_folder_digest(step): str(step.record["checkpoint_digest"]) for step in steps}
    return [
        KnownTraining(
            run_id=str(step.record["run_id"]),
            checkpoint_digest=str(step.record["checkpoint_digest"]),
            dataset_version=str(step.record["dataset_version"]),
            recipe_digest=str(step.record["undigested"]["recipe_digest"]),
            started_from=by_folder.get(step.manifest.inputs.get("start", ""), ""),
        )
        for step in steps
    ]


def _folder_digest(trained: Step) -> str:
    """What `dataset_digest` gives for the step's checkpoint, which is how a training names the folder that it went on from; no file is
    read for it."""
    total, within = hashlib.sha256(), "checkpoint/"
    for name in sorted((name for name in trained.manifest.outputs if name.startswith(within)), key=Path):
        total.update(f"{name.removeprefix(within)}\0{trained.manifest.outputs[name]}\n".encode())
    return total.hexdigest()


def _packed(platform: Platform, notes: list[str]) -> list[KnownBundle]:
    """The bundles of this home. What was packed of a training is known by the step that packed it."""
    trained = {step.digest: str(step.record["checkpoint_digest"]) for step in platform.store.steps("train")}
    packed_of = {
        step.path.resolve(): trained.get(step.manifest.inputs.get("checkpoint", ""), "") for step in platform.store.steps("package")
    }
    try:
        packed = policies_here(platform.settings)
    except ActwrightError as error:
        notes.append(f"packed policies are left out: {error}")
        packed = []
    return [
        KnownBundle(
            digest=one.digest,
            model_version=one.model_version,
            contract_id=str(one.manifest.get("contract_id", "")),
            checkpoint=packed_of.get(one.bento.parent.resolve(), "") if one.bento else "",
        )
        for one in packed
    ]


def _made(releases: Path) -> list[KnownRelease]:
    from model_core.spec.fleet.release import DOCUMENT, read_release, who_allows

    found = [read_release(path.parent) for path in sorted(releases.glob(f"*/{DOCUMENT}"))]
    return [
        KnownRelease(
            digest=one.digest,
            model_version=one.model_version,
            allowed_by=who_allows(one),
            checkpoint=one.judgement.evaluated if one.judgement else one.checkpoint,
            contract_id=one.contract_id,
        )
        for one in found
    ]


def _running(cell: Mapping[str, Any]) -> KnownCell:
    when = f"as it reported at {_time(cell['seen_at_s'])}" + (", silent since" if cell["is_stale"] else "")
    return KnownCell(cell=cell["name"], site=cell["site"], release=cell["running"], is_now=not cell["is_stale"], when=when)


def _past_cells(ask: Ask, digests: Sequence[str], notes: list[str]) -> list[KnownCell]:
    """Cells that ran these releases before and run another one now."""
    found: list[KnownCell] = []
    try:
        for digest in digests[:_MOST_RELEASES]:
            for one in ask(f"/v1/ran/{digest}")["cells"]:
                if not one["is_now"]:
                    when = f"from {_time(one['from_s'])} to {_time(one['until_s'])}"
                    found.append(KnownCell(cell=one["cell"], site=one["site"], release=digest, is_now=False, when=when))
    except ActwrightError as error:
        notes.append(f"which cells ran a release before is left out: {error}")
    if len(digests) > _MOST_RELEASES:
        notes.append(f"which cells ran {len(digests) - _MOST_RELEASES} further releases before was not asked. Fix: ask for less at a time")
    return found


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
