"""The ten stages as steps: each is one `run_step` around one component. No Prefect, so the data commands use them too.

A step is handed finished steps and gives a finished step. Here is also said, for each stage, which source files its
results depend on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.code_version import code_version
from components.artifacts.files import write_text_atomically
from components.artifacts.stage_log import log_stage
from components.artifacts.step_store import UNDIGESTED, Step, StepResult, folder_digests, run_step
from components.config.ports import ModelRegistry
from components.config.recipe import CollectConfig, Recipe
from components.config.records import STAGES, DatasetVersion, EvalReport, ModelVersion, Progress, TrainRun, Verdict, WorkcellRow
from flows.platform.wiring import Platform
from model_core.spec.contract import PolicyContract, digest_of
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from flows.pipeline.run_summary import Outcome

# what a stage runs: its modules (those started by name too), libraries that change numbers, and data files it reads
MODULES: Mapping[str, tuple[str, ...]] = {
    "collect": ("components.data.collect", "components.simulation.metaworld"),
    "validate": ("components.data.validate",),
    "annotate": ("components.data.annotate",),
    "freeze": ("components.data.freeze",),
    "train": ("components.training.worker", "components.training.tiny_model"),
    "evaluate": ("components.evaluation.evaluate", "components.simulation.metaworld"),
    "gate": ("components.evaluation.gate", "components.release.registration"),
    "package": ("components.release.package", "serving.gateway.service"),
    "workcells": ("components.deployment.simulated_cells", "components.simulation.metaworld", "serving.workcell.__main__"),
    "report": ("components.report.page",),
    "ingest": ("components.data.ingest",),
    "join": ("components.data.ingest",),
}
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "collect": ("numpy", "mujoco", "metaworld", "av"),
    "annotate": ("numpy", "torch"),
    "freeze": ("numpy", "safetensors"),
    "train": ("numpy", "torch", "deepspeed"),
    "evaluate": ("numpy", "torch", "mujoco", "metaworld"),
    "package": ("bentoml", "torch"),
}
FILES: Mapping[str, tuple[str, ...]] = {"train": ("infra/deepspeed",)}

Work = Callable[[Path], Mapping[str, Any]]
Launch = Callable[..., Mapping[str, Any]]  # called as `components.training.launcher.train` is


def stage_step(
    platform: Platform, stage: str, config: object, inputs: Mapping[str, Step | str], work: Work, *, recipe: str = "", code: str = ""
) -> StepResult:
    """Find or make the step of a stage; one that is made becomes a run of the tracker. code: its entry in `MODULES`, where not its name."""
    named = code or stage
    version = code_version(MODULES[named], PACKAGES.get(named, ()), FILES.get(named, ()))

    def tracked(out: Path) -> Mapping[str, Any]:
        record = work(out)
        key = out.name.removesuffix(".partial")
        if stage != "train":  # a training has told its tracker while it went on
            log_stage(platform.tracker(), stage=stage, key=key, recipe=recipe, config=config, record=record, out=out)
        return record

    return run_step(platform.store, stage=stage, config=config, inputs=inputs, work=tracked, code_version=version)


def collect_step(platform: Platform, recipe: Recipe, progress: Progress) -> StepResult:
    """Record demonstrations, and let the ingested recordings that the recipe includes join them: <step>/dataset."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.collect import collect

        return collect(recipe.collect, out, progress)

    included = [ingested(platform, digest) for digest in recipe.include]
    recorded = stage_step(platform, "collect", recipe.collect, {}, work, recipe=recipe.name)
    if not included:
        return recorded
    joined = joined_step(platform, recipe, recorded.step, included, progress)
    return replace(joined, cached=joined.cached and recorded.cached, seconds=joined.seconds + recorded.seconds)


def joined_step(platform: Platform, recipe: Recipe, recorded: Step, included: Sequence[Step], progress: Progress) -> StepResult:
    """Demonstrations and ingested recordings of the recipe's tasks as one raw data set; it takes the place of the demonstrations."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.ingest import IngestOptions, ingest

        sources = [step.path / "dataset" for step in (recorded, *included)]
        return {**recorded.record, **ingest(sources, out, progress, IngestOptions(keep_failures=True, tasks=recipe.collect.tasks))}

    inputs: dict[str, Step | str] = {"recorded": recorded, **{f"ingested-{n}": step for n, step in enumerate(included)}}
    config = {"joined": True, "tasks": recipe.collect.tasks}
    return stage_step(platform, "collect", config, inputs, work, recipe=recipe.name, code="join")


def ingest_step(platform: Platform, recipe: Recipe, sources: Sequence[Path], progress: Progress, *, trust_data: bool = False) -> StepResult:
    """Check recordings of the recipe's body and make a raw data set of the good, successful ones: <step>/dataset, <step>/quarantine.

    trust_data: a data set whose statistics are of other data is taken in, with new statistics.
    """
    from components.data.collect import open_simulator
    from components.data.ingest import IngestOptions, count_recordings, ingest

    count_recordings(sources)  # a folder that holds none is told before all of it is read
    body = open_simulator(recipe.collect).embodiment

    def work(out: Path) -> Mapping[str, Any]:
        return ingest(sources, out, progress, IngestOptions(embodiment=body, max_bad_fraction=1.0, trust_data=trust_data))

    inputs: dict[str, Step | str] = {f"source-{n}": digest_of(folder_digests(source)) for n, source in enumerate(sources)}
    config: dict[str, Any] = {"body": to_document(body)} | ({"trust_data": True} if trust_data else {})
    return stage_step(platform, "ingest", config, inputs, work, recipe=recipe.name)


def ingested(platform: Platform, digest: str) -> Step:
    """An ingested data set by the first digits of its digest; raises `NotReady` where there is none."""
    step = platform.store.by_digest("ingest", digest)
    if step is None:
        raise NotReady(f"no ingested recordings {digest!r} in {platform.store.root}; `actwright ingest` takes recordings in")
    return step


def validate_step(platform: Platform, recipe: Recipe, raw: Step, progress: Progress) -> StepResult:
    """Judge every episode: <step>/valid.json, quarantine/, data_docs/."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.validate import validate

        return validate(recipe.validate, raw.path / "dataset", out, progress)

    return stage_step(platform, "validate", recipe.validate, {"raw": raw}, work, recipe=recipe.name)


def annotate_step(platform: Platform, recipe: Recipe, raw: Step, valid: Step, progress: Progress) -> StepResult:
    """Depth tokens and traces of the good episodes: <step>/labels, <step>/vqvae."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.annotate import annotate

        answers = platform.settings.home / "cache" / "answers"  # of labelling networks, kept when another annotator is exchanged
        return annotate(recipe.annotate, raw.path / "dataset", valid.path / "valid.json", out, progress, cache=answers)

    return stage_step(platform, "annotate", recipe.annotate, {"raw": raw, "valid": valid}, work, recipe=recipe.name)


def freeze_step(platform: Platform, recipe: Recipe, raw: Step, labels: Step, progress: Progress) -> StepResult:
    """Shards, manifest and contract: the data set version."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.data.freeze import freeze

        return freeze(recipe.freeze, raw.path / "dataset", labels.path, out, progress)

    return stage_step(platform, "freeze", recipe.freeze, {"raw": raw, "labels": labels}, work, recipe=recipe.name)


def train_step(platform: Platform, recipe: Recipe, frozen: Step, progress: Progress, launch: Launch | None = None) -> StepResult:
    """Train, tracked as one run that survives kills: <step>/checkpoint. launch: trains elsewhere (default: on this machine)."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.config.ports import DatasetInput
        from components.evaluation.evaluate import checkpoint_digest
        from components.training.job import TrainingTask
        from components.training.launcher import train

        tracker = platform.tracker()
        run_id = out.name.removesuffix(".partial")
        data = DatasetInput(name=str(frozen.record["name"]), version=str(frozen.record["version"]))
        tracker.start_run(f"train {recipe.name}", recipe.to_json(), {"recipe": recipe.name, "stage": "train"}, run_id=run_id, dataset=data)
        tracker.log_text("recipe.json", json.dumps(recipe.to_json(), indent=1, sort_keys=True))
        try:
            record = (launch or train)(TrainingTask(config=recipe.train, frozen=frozen.path, out=out), tracker, progress)
        except BaseException:
            tracker.finish("killed")
            raise
        tracker.finish("finished")
        told = {**record.get("undigested", {}), "recipe_digest": recipe.digest}
        return {
            **record,
            "checkpoint_digest": checkpoint_digest(out / "checkpoint"),
            "run_id": run_id,
            "dataset_version": frozen.record["version"],
            "undigested": told,
        }

    return stage_step(platform, "train", recipe.train, {"frozen": frozen}, work, recipe=recipe.name)


def evaluate_step(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Closed loop on fresh seeds, after the image-swap test: <step>/report.json and film/."""
    scenes = scenes_of(recipe.collect)

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluation.evaluate import evaluate

        return evaluate(recipe.evaluate, trained.path / "checkpoint", out, progress, scenes=scenes, frozen=frozen.path)

    config = {"evaluate": recipe.evaluate, "scenes": scenes}
    return stage_step(platform, "evaluate", config, {"checkpoint": trained, "frozen": frozen}, work, recipe=recipe.name)


def gate_step(platform: Platform, recipe: Recipe, evaluated: Step, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Judge the candidate against the champion and register it: the record holds verdict and model version."""
    report = read_report(evaluated)
    champion = champion_to_beat(platform.registry(), recipe.package.model_name, report.checkpoint_digest)

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluation.gate import gate
        from components.release.registration import register

        progress.update(0, 2, "judging")
        verdict = gate(recipe.gate, report, report_of(platform, champion) if champion else None)
        progress.update(1, 2, "registering")
        version = register(
            platform.registry(),
            name=recipe.package.model_name,
            verdict=verdict,
            checkpoint=trained.path / "checkpoint",
            contract=read_contract(trained),
            train=read_train_run(trained),
            dataset=read_dataset(frozen),
            report=report,
            champion=champion,
        )
        write_text_atomically(out / "verdict.json", json.dumps(to_document(verdict), indent=1, sort_keys=True))
        progress.update(2, 2, f"{version.name} {version.version}: {version.alias}")
        # the lineage names the code's commit, which two equal runs need not share
        return {
            "verdict": to_document(verdict),
            "model_version": to_document(replace(version, lineage={})),
            "undigested": {"lineage": dict(version.lineage)},
        }

    config = {"gate": recipe.gate, "model_name": recipe.package.model_name}
    inputs = {"evaluation": evaluated, "checkpoint": trained, "champion": champion.checkpoint_digest if champion else ""}
    return stage_step(platform, "gate", config, inputs, work, recipe=recipe.name)


def champion_to_beat(registry: ModelRegistry, name: str, candidate: str) -> ModelVersion | None:
    """The champion, or, where `candidate` (a checkpoint digest) is it already, the one that it replaced."""
    champion = registry.champion(name)
    if champion is None or champion.checkpoint_digest != candidate:
        return champion
    return next((v for v in registry.versions(name) if str(v.version) == champion.replaced), None)


def report_of(platform: Platform, version: ModelVersion) -> EvalReport:
    """The newest evaluation of a registered version; raises `NotReady` when this store has none."""
    for evaluated in reversed(platform.store.steps("evaluate")):
        report = read_report(evaluated)
        if report.checkpoint_digest == version.checkpoint_digest:
            return report
    raise NotReady(
        f"champion {version.name} {version.version} was never evaluated in {platform.store.root}; run its recipe here once, "
        "or take its alias away on the model's page in MLflow (`actwright up` opens it)"
    )


def package_step(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, gated: Step, progress: Progress) -> StepResult:
    """Build the Bento of the promoted version: <step>/bento."""
    version = read_model_version(gated)
    label = f"{version.name}/{version.version}"

    def work(out: Path) -> Mapping[str, Any]:
        from components.release.package import package

        return package(recipe.package, trained.path / "checkpoint", label, out, progress, frozen=frozen.path)

    return stage_step(
        platform,
        "package",
        {"package": recipe.package, "version": label},
        {"checkpoint": trained, "frozen": frozen},
        work,
        recipe=recipe.name,
    )


def workcells_step(platform: Platform, recipe: Recipe, packaged: Step, progress: Progress) -> StepResult:
    """Serve the Bento and let the cells act: rows, and <step>/recordings for the next ingest."""
    scenes = scenes_of(recipe.collect)

    def work(out: Path) -> Mapping[str, Any]:
        from components.deployment.simulated_cells import run_workcells

        return run_workcells(
            recipe.workcells,
            packaged.path / "bento",
            out,
            progress,
            tasks=recipe.collect.tasks,
            robot_options=robot_options(scenes),
        )

    return stage_step(
        platform, "workcells", {"workcells": recipe.workcells, "scenes": scenes}, {"bento": packaged}, work, recipe=recipe.name
    )


def report_step(platform: Platform, recipe: Recipe, made: Mapping[str, Step], outcome: Outcome, progress: Progress) -> StepResult:
    """Draw the report of the finished stages: <step>/undigested/report.html with everything it shows inside."""

    def work(out: Path) -> Mapping[str, Any]:
        from components.report.page import write_report

        progress.update(0, 1, "drawing")
        write_report(outcome.summary, out / UNDIGESTED, server_run_id=outcome.server_run_id)
        return {"recipe": recipe.name}

    return stage_step(
        platform, "report", {"recipe": recipe.name}, {name: made[name] for name in STAGES if name in made and name != "report"}, work
    )


def scenes_of(cfg: CollectConfig) -> CollectConfig:
    """The body, camera and tasks of the demonstrations, without what only concerned their recording."""
    plain = CollectConfig(tasks=cfg.tasks)
    return replace(
        plain,
        simulator=cfg.simulator,
        sim_steps_per_action=cfg.sim_steps_per_action,
        image_size=cfg.image_size,
        camera=cfg.camera,
        max_depth_m=cfg.max_depth_m,
        instructions=cfg.instructions,
    )


def robot_options(scenes: CollectConfig) -> dict[str, object]:
    """The same scene for a workcell's simulated robot, as options of its factory."""
    return {
        "sim_steps_per_action": scenes.sim_steps_per_action,
        "image_size": scenes.image_size,
        "max_depth_m": scenes.max_depth_m,
        "camera": to_document(scenes.camera),
        "instructions": dict(scenes.instructions),
    }


def read_contract(trained: Step) -> PolicyContract:
    """What the trained policy promises: the data set's contract, and the kind of policy that was trained on it."""
    return PolicyContract.from_json(json.loads((trained.path / "checkpoint" / "contract.json").read_text(encoding="utf-8")))


def producers_of(raw: Step, recipe: Recipe) -> dict[str, int]:
    """Who recorded the raw episodes -> how many; a set that nothing joined is the expert's alone."""
    return dict(raw.record.get("producers") or {f"expert:{recipe.collect.simulator}": int(raw.record["episodes"])})


def read_dataset(frozen: Step, quarantined: int = 0, producers: Mapping[str, int] | None = None) -> DatasetVersion:
    """The frozen data set as a record."""
    names = ("version", "name", "episodes", "frames", "train_frames", "validation_frames", "contract_id", "annotators")
    fields = {name: frozen.record[name] for name in names if name in frozen.record}
    parents = [str(frozen.record["dataset_version"])] if "dataset_version" in frozen.record else []
    document = {**fields, "quarantined": quarantined, "parents": parents, "producers": dict(producers or {})}
    return from_document(DatasetVersion, document, where="data set version")


def read_train_run(trained: Step) -> TrainRun:
    """The training as a record."""
    names = ("run_id", "dataset_version", "checkpoint_digest", "steps", "final_loss", "metrics")
    fields = {name: trained.record[name] for name in names}
    return from_document(TrainRun, {**fields, "recipe_digest": trained.record["undigested"]["recipe_digest"]}, where="training")


def read_report(evaluated: Step) -> EvalReport:
    """The evaluation as a record."""
    return from_document(EvalReport, json.loads((evaluated.path / "report.json").read_text(encoding="utf-8")), where="report.json")


def read_verdict(gated: Step) -> Verdict:
    """The gate's decision as a record."""
    return from_document(Verdict, gated.record["verdict"], where="verdict")


def read_model_version(gated: Step) -> ModelVersion:
    """What was registered."""
    lineage = gated.record.get("undigested", {}).get("lineage", {})
    return from_document(ModelVersion, {**gated.record["model_version"], "lineage": lineage}, where="model version")


def read_workcells(cells: Step) -> tuple[WorkcellRow, ...]:
    """What each cell did."""
    return tuple(from_document(WorkcellRow, row, where="workcell") for row in cells.record["undigested"]["rows"])
