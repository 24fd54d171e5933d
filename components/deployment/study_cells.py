"""The trials of a study on a robot: each is one episode of a cell, a process of its own, against the service of its side.

A person lays out the scene, and says afterwards whether it succeeded and how far it came, without being told which policy it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from components.config.recipe import GateConfig
from components.deployment.cell_process import run_cell
from components.deployment.probe import probe
from components.deployment.service_address import ServiceCredentials
from components.evaluation.studies.design import BLOCKS, ROBOT_RULE, Scene, StudyDesign
from components.evaluation.studies.plan import PlannedTrial
from components.evaluation.studies.run import RUNNING, RunTrial, Trialled
from components.evaluation.studies.simulated import check_metric
from model_core.spec.documents import to_document
from model_core.spec.errors import ContractError, JobError, NotReady, SpecError, require
from model_core.spec.execution.cell_options import CellExit, CellOptions
from model_core.spec.files import atomic_write
from model_core.spec.types import StopReason

RUBRIC = "success: the task is done when the robot has stopped. Stage progress: the share of the task's stages that were reached, 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a person says of a trial. progress: 0..1."""

    success: bool
    progress: float


class Operator(Protocol):
    """The person at the robot."""

    @property
    def name(self) -> str:
        """As the ledger names them."""
        ...

    def lay_out(self, trial: PlannedTrial) -> None:
        """Wait until the scene is laid out. Only the blind name of the policy may be shown."""
        ...

    def label(self, trial: PlannedTrial) -> Label:
        """Ask what came of it."""
        ...


class WrittenAnswers:
    """An operator whose answers stand in a file: line n is of trial n, "yes 1.0" or "no 0.4"."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._lines = path.read_text(encoding="utf-8").splitlines()

    def lay_out(self, trial: PlannedTrial) -> None:
        """Waits for no person. Raises `NotReady` where the file has no line of this trial: then it is not begun."""
        if trial.place >= len(self._lines):
            raise NotReady(f"{self._path}: no answer for trial {trial.place + 1}, got {len(self._lines)} lines. Fix: add lines, run again")
        self.label(trial)

    def label(self, trial: PlannedTrial) -> Label:
        """The line of this trial; raises `SpecError` where it cannot be read."""
        return read_label(self._lines[trial.place], f"{self._path}, line {trial.place + 1}")


def read_label(text: str, where: str) -> Label:
    """ "yes", "no 0.4" ...: success, and the stage progress (by itself 1 for a success, 0 else). Raises `SpecError`."""
    words = text.split()
    answers = {"y": True, "yes": True, "n": False, "no": False}
    said = answers.get(words[0].lower()) if words else None
    try:
        progress = float(words[1]) if len(words) > 1 else float(bool(said))
    except ValueError:
        progress = -1.0
    if said is None or len(words) > 2 or not 0.0 <= progress <= 1.0:
        raise SpecError(f'{where}: expected "yes" or "no" and a number in 0..1, such as "no 0.4", got {text!r}')
    require(not (said and progress < 1.0), f"{where}: a success has stage progress 1", got=progress)
    return Label(success=said, progress=progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a service serves. policy: the digest of its bundle (of one that states none, its version and contract)."""

    url: str
    policy: str
    model_version: str
    contract_id: str


def ask_services(urls: Mapping[str, str], credentials: ServiceCredentials) -> dict[str, Served]:
    """Who is served by "candidate" and "champion". Raises as `probe` does, and `SpecError` where both serve one policy."""
    found = {}
    for side in ("candidate", "champion"):
        told = probe(urls[side], credentials)
        ready = told.ready
        policy = ready.bundle_digest or f"{ready.model_version} {told.contract_id}"
        found[side] = Served(url=told.url.session, policy=policy, model_version=ready.model_version, contract_id=told.contract_id)
    if found["candidate"].policy == found["champion"].policy:
        raise SpecError(
            f"both services serve {found['candidate'].model_version}; expected two policies. Fix: serve the candidate on another port"
        )
    return found


def robot_design(
    gate: GateConfig, scenes: tuple[Scene, ...], served: Mapping[str, Served], cell: CellOptions, *, draw: tuple[int, str], timeout_s: float
) -> StudyDesign:
    """The design of a study with a robot. draw: seed of the assignment, and the metric."""
    seed, metric = draw
    check_metric(gate, metric)
    return StudyDesign(
        candidate=served["candidate"].policy,
        champion=served["champion"].policy,
        tasks=tuple(sorted({scene.task for scene in scenes})),
        gate=to_document(gate),
        rules={
            "suite": cell.robot,
            "robot_options": list(cell.robot_options),
            "execute_horizon": cell.execute_horizon,
            "deadline_ms": cell.deadline_ms,
            "realtime": cell.realtime,
            "strategy": cell.strategy,
            "served": {side: {"model_version": one.model_version, "contract_id": one.contract_id} for side, one in served.items()},
        },
        first_seed=scenes[0].seed,
        metric=metric,
        void_rule=ROBOT_RULE,
        version=2,
        assignment=BLOCKS,
        seed=seed,
        scenes=scenes,
        setting="robot",
        rubric=RUBRIC,
        timeout_s=timeout_s,
    )


def robot_trials(
    folder: Path,
    design: StudyDesign,
    served: Mapping[str, Served],
    cell: CellOptions,
    operator: Operator | None,
    complain: Callable[[str], object],
) -> RunTrial:
    """How one trial is run. cell: its options, but for task, address, seed and files. operator: None: the robot itself tells success."""

    def run(trial: PlannedTrial) -> Trialled:
        if operator is not None:
            operator.lay_out(trial)
        running = folder / RUNNING  # from here on the trial counts, whatever becomes of this program
        atomic_write(running, f"{trial.place}\n")
        options = replace(
            cell,
            task=trial.task,
            url=served[trial.side].url,
            episodes=1,
            first_seed=trial.seed,
            audit=folder / "audit",
            result=(folder / "cells" / f"{trial.place:05d}.json").resolve(),
        )
        options.result.parent.mkdir(parents=True, exist_ok=True)
        try:
            log = folder / "cells" / f"{trial.place:05d}.log"
            code = run_cell(options, log=log, hear=lambda _: None, complain=complain, timeout_s=design.timeout_s)
        except TimeoutError as error:
            return _counted(Trialled(success=False, stop_reason="timeout", void=True, detail=str(error)), _report(options.result))
        if code in (CellExit.USAGE, CellExit.REFUSED):  # nothing moved: no trial
            running.unlink()
            raise ContractError(
                f"the cell did not start trial {trial.place + 1} (exit code {code}). Fix: see {log}, then run the study again"
            )
        found = _report(options.result)
        _check_policy(found, served[trial.side])
        return _trialled(trial, found, operator, crashed=code == CellExit.LOST and not found.get("rows"))

    return run


def _trialled(trial: PlannedTrial, found: Mapping[str, Any], operator: Operator | None, *, crashed: bool) -> Trialled:
    rows = found.get("rows") or []
    if crashed or not rows:
        return _counted(Trialled(success=False, stop_reason="crash", void=True, detail="the cell ended without an episode"), found)
    row = rows[0]
    is_void = row["stop_reason"] == StopReason.ENV_ERROR
    label = Label(success=bool(row["success"]), progress=float(bool(row["success"])))
    if operator is not None and not is_void:
        label = operator.label(trial)
    trialled = Trialled(
        success=label.success,
        stop_reason=str(row["stop_reason"]),
        void=is_void,
        steps=int(row["steps"]),
        decisions=int(row["decisions"]),
        refusals=int(row["refusals"]),
        progress=label.progress,
        contract=str(found.get("contract_id", "")),
        detail=str(row["detail"]),
        audit=str(row["episode_id"]),
        operator=operator.name if operator is not None else "",
    )
    return _counted(trialled, found)


def _counted(trialled: Trialled, found: Mapping[str, Any]) -> Trialled:
    """With what the cell counted, for the safety bounds."""
    dropped = found.get("link", {}).get("dropped", {})
    return replace(
        trialled,
        holds=int(found.get("holds", 0)),
        clips=sum(found.get("envelope_clips", {}).values()),
        drops=int(found.get("late_dropped", 0)) or sum(dropped.values()),
    )


def _check_policy(found: Mapping[str, Any], served: Served) -> None:
    got = (found.get("model_version", ""), found.get("contract_id", ""))
    if any(got) and got != (served.model_version, served.contract_id):
        raise JobError(
            f"{served.url} served {got[0]} (contract {got[1]}), expected {served.model_version} (contract {served.contract_id}), "
            "with which the study began. Fix: serve that policy again; the trial is void"
        )


def _report(result: Path) -> dict[str, Any]:
    try:
        return json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
