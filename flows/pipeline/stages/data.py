"""The data stages: collect (with ingested recordings), validate, annotate, freeze."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import Step, folder_digests
from components.artifacts.step_store import StepResult
from components.config.data_config import NO_LABELS
from components.config.recipe import Recipe
from components.config.records import Progress
from components.config.source_config import SIMULATOR, SourceConfig
from components.config.stages import INGEST, JOIN, SOURCES, stage_named
from flows.pipeline.stages.step import StepKey, folder_input, is_made, stage_step
from flows.platform.wiring import Platform
from model_core.spec.contract import digest_of
from model_core.spec.documents import identity_document, to_document
from model_core.spec.errors import NotReady, SpecError


def collect_step(platform: Platform, recipe: Recipe, progress: Progress) -> StepResult:
    """Record demonstrations, and let the ingested recordings that the recipe includes join them: <step>/dataset.

    A recipe with sources records nothing: <step>/dataset is the index of them.
    """
    if recipe.data:
        return sources_step(platform, recipe, progress)
    included = [ingested(platform, digest) for digest in recipe.include]
    if included and not is_made(platform, _recording_key(recipe)):  # before anything is recorded
        _check_included(recipe, included, progress)
    recorded = recorded_step(platform, recipe, progress)
    if not included:
        return recorded
    if recorded.cached and not is_made(platform, _joined_key(recipe, recorded.step, included)):
        _check_included(recipe, included, progress)
    joined = joined_step(platform, recipe, recorded.step, included, progress)
    return replace(joined, cached=joined.cached and recorded.cached, seconds=joined.seconds + recorded.seconds)


def recorded_step(platform: Platform, recipe: Recipe, progress: Progress) -> StepResult:
    """Record the demonstrations of the recipe's section collect: <step>/dataset."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.accounting.stages import recorded as account
        from components.data.collect import collect

        record = collect(recipe.collect, out, progress, thresholds=recipe.validate)
        return {**record, "account": account(record, out / "dataset", f"expert:{recipe.collect.simulator}")}

    return stage_step(platform, _recording_key(recipe), work)


def _recording_key(recipe: Recipe) -> StepKey:
    return StepKey(stage=stage_named("collect"), recipe=recipe, inputs={})


def sources_step(platform: Platform, recipe: Recipe, progress: Progress) -> StepResult:
    """Open the recipe's sources and list them in a raw index: <step>/dataset. Their files stay where they are.

    What a simulator among them shows is recorded first, as it is for a recipe without sources, and found if it was recorded before.
    """
    from components.data.accounting.stages import with_losses
    from components.data.sources.raw_index import keep_places, source_inputs, write_index

    recorded = {cfg.name: _recorded_source(platform, recipe, cfg, progress) for cfg in recipe.data if cfg.kind == SIMULATOR}
    placed = tuple(_placed(cfg, recorded[cfg.name].step) if cfg.name in recorded else cfg for cfg in recipe.data)

    def work(out: Path) -> Mapping[str, Any]:
        record = write_index(placed, out, progress)
        before = [row for result in recorded.values() for row in result.step.record.get("account", ())]
        return {**record, "account": with_losses(record["account"], before)}

    progress.update(0, 1, "reading what the sources hold")
    inputs: dict[str, Step | str] = {**source_inputs(placed, platform.settings.home / "cache" / "contents")}
    inputs |= {f"source-{name}": result.step for name, result in recorded.items()}
    made = stage_step(platform, StepKey(stage=SOURCES, recipe=replace(recipe, data=placed), inputs=inputs), work)
    keep_places(made.step.path, placed)  # a finished index may be used from another place
    cached = made.cached and all(result.cached for result in recorded.values())
    return replace(made, cached=cached, seconds=made.seconds + sum(result.seconds for result in recorded.values()))


def _recorded_source(platform: Platform, recipe: Recipe, cfg: SourceConfig, progress: Progress) -> StepResult:
    if cfg.path or cfg.hub:
        raise SpecError(
            f"source {cfg.name!r}: what a simulator shows is recorded by the run, and has no path before. Fix: leave path and hub out; "
            "a set that was recorded before is a source of kind 'lerobot'"
        )
    alone = replace(recipe, collect=cfg.recording, data=(), include=(), workcells=replace(recipe.workcells, tasks=()))
    return recorded_step(platform, alone, progress)


def _placed(cfg: SourceConfig, recorded: Step) -> SourceConfig:
    """The source with the place of its recordings; its options are whole, and without what only says how recording is done."""
    return replace(cfg, path=str(recorded.path / "dataset"), options=identity_document(cfg.recording))


def joined_step(platform: Platform, recipe: Recipe, recorded: Step, included: Sequence[Step], progress: Progress) -> StepResult:
    """Demonstrations and ingested recordings of the recipe's tasks as one raw data set; it takes the place of the demonstrations."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.accounting.stages import taken_in
        from components.data.ingest import IngestOptions, ingest

        sources = [step.path / "dataset" for step in (recorded, *included)]
        options = IngestOptions(keep_failures=True, tasks=recipe.collect.tasks, thresholds=recipe.validate)
        record = ingest(sources, out, progress, options)
        before = [row for step in (recorded, *included) for row in step.record.get("account", ())]
        return {**recorded.record, **record, "account": [*before, *taken_in(record, out, "join")]}

    return stage_step(platform, _joined_key(recipe, recorded, included), work)


def _joined_key(recipe: Recipe, recorded: Step, included: Sequence[Step]) -> StepKey:
    inputs: dict[str, Step | str] = {"recorded": recorded, **{f"ingested-{n}": step for n, step in enumerate(included)}}
    return StepKey(stage=JOIN, recipe=recipe, inputs=inputs)


def _check_included(recipe: Recipe, included: Sequence[Step], progress: Progress) -> None:
    """Refuse recordings that cannot join or be labelled; finished data were checked when they were made."""
    from components.data.accounting.included import check_included

    datasets = {digest: step.path / "dataset" for digest, step in zip(recipe.include, included, strict=True)}
    progress.update(0, 1, "can the included recordings be labelled?")
    check_included(datasets, recipe.collect.tasks, recipe.annotate)


def ingest_step(
    platform: Platform,
    recipe: Recipe,
    sources: Sequence[Path],
    progress: Progress,
    *,
    trust_data: bool = False,
    only_successful: bool = False,
) -> StepResult:
    """Check recordings of the recipe's embodiment; those that are good and did not fail become a raw data set: <step>/dataset, quarantine.

    trust_data: a data set whose statistics are of other data is taken in, with new statistics. only_successful: episodes whose source does
    not say whether they solved their task are left out.
    """
    from components.data.accounting.stages import taken_in
    from components.data.ingest import IngestOptions, count_recordings, ingest
    from components.simulation.open import open_simulator

    count_recordings(sources)  # a folder without recordings is refused before all of it is read
    embodiment = open_simulator(recipe.collect).embodiment
    asked = {"trust_data": trust_data, "only_successful": only_successful}

    def work(out: Path) -> Mapping[str, Any]:
        options = IngestOptions(
            embodiment=embodiment,
            max_bad_fraction=1.0,
            thresholds=recipe.validate,
            trust_data=trust_data,
            only_successful=only_successful,
        )
        record = ingest(sources, out, progress, options)
        return {**record, "account": taken_in(record, out, "ingest")}

    inputs: dict[str, Step | str] = {f"source-{n}": digest_of(folder_digests(source)) for n, source in enumerate(sources)}
    extra: dict[str, Any] = {"body": to_document(embodiment)} | {name: True for name, is_on in asked.items() if is_on}
    return stage_step(platform, StepKey(stage=INGEST, recipe=recipe, inputs=inputs, extra=extra), work)


def ingested(platform: Platform, digest: str) -> Step:
    """An ingested data set by the first digits of its digest; raises `NotReady` where there is none."""
    step = platform.store.by_digest("ingest", digest)
    if step is None:
        raise NotReady(f"no ingested recordings {digest!r} in {platform.store.root}; `actwright ingest` takes recordings in")
    return step


def validate_step(platform: Platform, recipe: Recipe, raw: Step, progress: Progress) -> StepResult:
    """Judge every episode: <step>/valid.json, quarantine/, data_docs/."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.accounting.stages import inspected
        from components.data.validate import validate

        record = validate(recipe.validate, raw.path / "dataset", out, progress, images=kept_images(platform, raw))
        return {**record, "account": inspected(recipe.validate, raw.path / "dataset", out)}

    key = StepKey(stage=stage_named("validate"), recipe=recipe, inputs={"raw": raw})
    return stage_step(platform, key, work)


def annotate_step(platform: Platform, recipe: Recipe, raw: Step, valid: Step, progress: Progress) -> StepResult:
    """Depth tokens and traces of the good episodes: <step>/labels, <step>/vqvae."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.annotate import annotate
        from components.data.labelling.answered_frames import Kept

        answers = platform.settings.home / "cache" / "answers"  # of labelling networks, kept when another annotator is exchanged
        kept = Kept(answers=answers, images=kept_images(platform, raw))
        return annotate(recipe.annotate, raw.path / "dataset", valid.path / "valid.json", out, progress, kept=kept)

    chosen = recipe.annotate
    inputs: dict[str, Step | str] = {"raw": raw, "valid": valid, **folder_input("codebook", chosen.codebook)}
    inputs |= folder_input("corrections", chosen.corrections)
    for name, annotator, weights in (
        ("depth_model", chosen.depth_annotator, chosen.depth_model),
        ("point_model", chosen.point_annotator, chosen.point_model),
    ):
        if annotator not in ("truth", NO_LABELS):  # they read no weights
            inputs |= folder_input(name, weights)
    key = StepKey(stage=stage_named("annotate"), recipe=recipe, inputs=inputs)
    return stage_step(platform, key, work)


def freeze_step(platform: Platform, recipe: Recipe, raw: Step, labels: Step, progress: Progress) -> StepResult:
    """Shards, manifest and contract: the data set version."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.freeze import freeze

        return freeze(recipe.freeze, raw.path / "dataset", labels.path, out, progress, images=kept_images(platform, raw))

    statistics = recipe.freeze.statistics
    kept = folder_input("statistics", str(Path(statistics) / "contract.json")) if statistics else {}
    kept |= folder_input("further_statistics", str(Path(statistics) / "contracts")) if statistics else {}
    inputs: dict[str, Step | str] = {"raw": raw, "labels": labels, **kept}
    key = StepKey(stage=stage_named("freeze"), recipe=recipe, inputs=inputs)
    made = stage_step(platform, key, work)
    shutil.rmtree(_images_folder(platform, raw), ignore_errors=True)  # the last stage that looks at images
    return made


def kept_images(platform: Platform, raw: Step) -> Any:
    """Where the stages of a run find images of `raw` that one of them decoded."""
    from components.data.packing.kept_images import KeptImages

    return KeptImages(_images_folder(platform, raw))


def _images_folder(platform: Platform, raw: Step) -> Path:
    return platform.settings.home / "cache" / "images" / raw.digest[:32]
