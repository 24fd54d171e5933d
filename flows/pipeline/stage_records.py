"""What finished steps recorded, read back as the records that stages hand to each other."""

from __future__ import annotations

import json
from collections.abc import Mapping

from components.artifacts.step_manifest import Step
from components.config.judging.verdict import GateVerdict
from components.config.recipe import Recipe
from components.config.records import AccountRow, DatasetVersion, EvalReport, ModelVersion, TrainRun, WorkcellRow
from components.config.stages import STAGE_NAMES
from model_core.contracts import chosen_contract, read_contracts
from model_core.spec.contract import PolicyContract
from model_core.spec.documents import from_document
from model_core.spec.errors import CheckpointError


def read_contract(trained: Step, embodiment: str = "") -> PolicyContract:
    """What the trained policy promises: the data set's contract, and the kind of policy that was trained on it.

    embodiment: which of several. Raises `CheckpointError` where one of several must be named, or there is none of that name.
    """
    return chosen_contract(read_contracts(trained.path / "checkpoint"), embodiment, f"the checkpoint of {trained.path.name}")


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


def read_account(made: Mapping[str, Step]) -> tuple[AccountRow, ...]:
    """The account of the data, in order of work, from the record of each stage; stages of older versions recorded none."""
    rows = [row for stage in STAGE_NAMES if stage in made for row in made[stage].record.get("account", ())]
    return tuple(from_document(AccountRow, row, where="account of the data") for row in rows)


def read_notes(made: Mapping[str, Step]) -> tuple[str, ...]:
    """What a person should know of the data, as the stages recorded it."""
    return tuple(str(note) for stage in STAGE_NAMES if stage in made for note in made[stage].record.get("notes", ()))


def read_train_run(trained: Step) -> TrainRun:
    """The training as a record."""
    names = ("run_id", "dataset_version", "checkpoint_digest", "steps", "final_loss", "metrics")
    fields = {name: trained.record[name] for name in names}
    return from_document(TrainRun, {**fields, "recipe_digest": trained.record["undigested"]["recipe_digest"]}, where="training")


def read_reports(evaluated: Step) -> dict[str, EvalReport]:
    """Embodiment -> its evaluation, where several were evaluated apart; else the only one, under the name ""."""
    whole = evaluated.path / "report.json"
    places = (
        {"": whole} if whole.is_file() else {path.parent.name: path for path in sorted(evaluated.path.glob("embodiments/*/report.json"))}
    )
    return {name: from_document(EvalReport, json.loads(path.read_text(encoding="utf-8")), where=path.name) for name, path in places.items()}


def read_report(evaluated: Step, embodiment: str = "") -> EvalReport:
    """The evaluation as a record; where several embodiments were evaluated apart, that of `embodiment`.

    Raises `CheckpointError` where one of several must be named, or there is none of that name.
    """
    reports = read_reports(evaluated)
    if "" in reports:
        return reports[""]
    if embodiment not in reports:
        raise CheckpointError(
            f"{len(reports)} embodiments were trained ({', '.join(reports)}), and a release is of one; package.embodiment names "
            f"{embodiment or 'none'}. Fix: --set package.embodiment={next(iter(reports))}"
        )
    return reports[embodiment]


def read_verdict(gated: Step) -> GateVerdict:
    """The gate's decision as a record."""
    return from_document(GateVerdict, gated.record["verdict"], where="verdict")


def read_model_version(gated: Step) -> ModelVersion:
    """What was registered."""
    lineage = gated.record.get("undigested", {}).get("lineage", {})
    return from_document(ModelVersion, {**gated.record["model_version"], "lineage": lineage}, where="model version")


def read_workcells(cells: Step) -> tuple[WorkcellRow, ...]:
    """What each cell did."""
    return tuple(from_document(WorkcellRow, row, where="workcell") for row in cells.record["undigested"]["rows"])
