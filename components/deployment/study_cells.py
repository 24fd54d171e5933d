"""The trials of a study on a robot: each is one episode of a cell, a process of its own, against the service of its side.

A person lays out the scene, and says afterwards whether it succeeded and how far it came, without being told which policy it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.config.recipe import GateConfig
from components.deployment.cell_process import run_cell
from components.deployment.probe import probe
from components.deployment.service_address import ServiceCredentials
from components.evaluation.studies.design import BLOCKS, ROBOT_RULE, Scene, StudyDesign
from components.evaluation.studies.labels import RUBRIC, Label, Operator
from components.evaluation.studies.plan import PlannedTrial
from components.evaluation.studies.run import RUNNING, RunTrial, Trialled
from components.evaluation.studies.simulated import check_metric
from model_core.spec.documents import to_document
from model_core.spec.errors import ContractError, JobError, SpecError
from model_core.spec.execution.cell_options import CellExit, CellOptions
from model_core.spec.files import atomic_write
from model_core.spec.types import StopReason


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
        if row["stop_reason"] not in (StopReason.SUCCESS, StopReason.MAX_STEPS):
            label = replace(label, success=False)  # by the design's rule, whatever was seen: a refusal and a safe stop are failures
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
