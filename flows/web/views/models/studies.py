"""Studies: the comparisons of this home, and finished ones beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.step_store import StepStore
from components.config.judging.verdict import GateVerdict
from components.evaluation.gate import needs_pairs
from components.evaluation.studies.beside import StudyBeside, TaskBeside, groups_of_studies, joint_error, study_beside
from components.evaluation.studies.design import DESIGN, StudyDesign, read_design
from components.evaluation.studies.ledger import Ledger, problem_of, read_ledger
from components.evaluation.studies.run import is_running, verdict_of
from flows.pipeline.stage_records import read_model_version, read_verdict
from flows.platform.wiring import Platform
from flows.web.http.endpoint import Call, Endpoint, Refused, not_found
from flows.web.views.models.versions import CheckRow
from model_core.access import Role
from model_core.spec.errors import DatasetError

_MOST_BESIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLine:
    """One study. candidate, champion: what the policies are called. outcome: of its verdict; "" where it is not finished, and then `open`
    says why. problem: where its chain is broken."""

    study: str
    candidate: str
    champion: str
    setting: str
    trials: int
    outcome: str
    open: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyList:
    """Every study of this home, by name."""

    studies: tuple[StudyLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudiesQuery:
    """of: finished studies by their names or the first digits of these, with commas between."""

    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """One finished study. shown: what its test showed, in sentences. head: last hash of its ledger. remarks: amendments, and what else one
    should know of it."""

    study: str
    candidate: str
    champion: str
    setting: str
    metric: str
    outcome: str
    tasks: tuple[TaskBeside, ...]
    checks: tuple[CheckRow, ...]
    shown: tuple[str, ...]
    alpha: float
    trials: int
    head: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudiesBeside:
    """Finished studies in the order in which they were asked for. groups: their policies, those first that were shown to be better; inside
    a group the tests do not tell all of them apart. joint_error: how often any of these verdicts may be wrong, at most."""

    studies: tuple[StudyResult, ...]
    groups: tuple[tuple[str, ...], ...]
    joint_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """verdict: None where it is not finished, and then `open` says why."""

    design: StudyDesign
    ledger: Ledger
    verdict: GateVerdict | None
    open: str


def study_endpoints(platform: Platform) -> Sequence[Endpoint]:
    """The list, and some beside each other."""
    return (
        Endpoint(
            method="GET",
            path="/api/studies",
            does="Every comparison of policies in this home",
            role=Role.OBSERVE,
            answer=StudyList,
            handle=lambda _: _listed(platform),
        ),
        Endpoint(
            method="GET",
            path="/api/studies/beside",
            does="Finished studies beside each other: success by task with exact intervals, verdicts, and who cannot be told apart",
            role=Role.OBSERVE,
            answer=StudiesBeside,
            query=StudiesQuery,
            handle=lambda call: _beside(platform, call),
        ),
    )


def _folders(platform: Platform) -> list[Path]:
    return sorted(path.parent for path in (platform.settings.home / "studies").glob(f"*/{DESIGN}"))


def _names(store: StepStore) -> dict[str, str]:
    """Checkpoint -> its registered version; of several the newest."""
    found = [read_model_version(gated) for gated in store.steps("gate")]
    return {one.checkpoint_digest: f"{one.name}/{one.version}" for one in found}


def _verdicts(store: StepStore) -> dict[str, GateVerdict]:
    """Study -> the verdict of the gate that ran it."""
    found = [read_verdict(gated) for gated in store.steps("gate")]
    return {one.study: one for one in found if one.study}


def _read(folder: Path, verdicts: Mapping[str, GateVerdict]) -> _Found:
    """Raises `DatasetError` where the design or a trial was changed."""
    design = read_design(folder)
    ledger = read_ledger(folder, design)
    if problem := problem_of(folder):
        raise DatasetError(f"{problem}. Fix: restore the study from a copy")
    if (of_the_gate := verdicts.get(folder.name)) is not None:
        moved = "" if of_the_gate.head == ledger.head else "the ledger holds other trials than the verdict was reached on"
        return _Found(design=design, ledger=ledger, verdict=None if moved else of_the_gate, open=moved)
    if not design.scenes:
        return _Found(design=design, ledger=ledger, verdict=None, open="the gate that runs it has reached no verdict here")
    if is_running(folder):
        return _Found(design=design, ledger=ledger, verdict=None, open="it runs now, and who labels its trials stays blind until its end")
    verdict = verdict_of(design, ledger)
    planned = 2 * sum(map(len, (design.scenes, *ledger.further_scenes)))
    if needs_pairs(verdict) and len(ledger.trials) < planned:
        return _Found(design=design, ledger=ledger, verdict=None, open=f"{len(ledger.trials)} of at most {planned} trials are run")
    return _Found(design=design, ledger=ledger, verdict=verdict, open="")


def _listed(platform: Platform) -> StudyList:
    names, verdicts = _names(platform.store), _verdicts(platform.store)
    return StudyList(studies=tuple(_line(folder, names, verdicts) for folder in _folders(platform)))


def _line(folder: Path, names: Mapping[str, str], verdicts: Mapping[str, GateVerdict]) -> StudyLine:
    try:
        found = _read(folder, verdicts)
    except DatasetError as error:
        return StudyLine(
            study=folder.name, candidate="", champion="", setting="", trials=0, outcome="", open="it is not proven", problem=str(error)
        )
    design = found.design
    return StudyLine(
        study=folder.name,
        candidate=names.get(design.candidate, design.candidate[:12]),
        champion=names.get(design.champion, design.champion[:12]),
        setting=design.setting,
        trials=len(found.ledger.trials),
        outcome=found.verdict.decided if found.verdict else "",
        open=found.open,
        problem="",
    )


def _beside(platform: Platform, call: Call) -> StudiesBeside:
    asked = [one for one in dict.fromkeys(call.query.of.split(",")) if one]
    if not 1 <= len(asked) <= _MOST_BESIDE:
        raise Refused(f"of: expected one to {_MOST_BESIDE} studies, got {len(asked)}. Fix: choose some on the page of studies")
    names, verdicts, folders = _names(platform.store), _verdicts(platform.store), _folders(platform)
    found = [_one(folders, digits, verdicts, names) for digits in asked]
    groups = tuple(tuple(names.get(one, one[:12]) for one in group) for group in groups_of_studies(found))
    return StudiesBeside(studies=tuple(_result(one, names) for one in found), groups=groups, joint_error=joint_error(found))


def _one(folders: Sequence[Path], digits: str, verdicts: Mapping[str, GateVerdict], names: Mapping[str, str]) -> StudyBeside:
    chosen = [folder for folder in folders if folder.name.startswith(digits)]
    if len(chosen) != 1:
        raise not_found(f"{'one study' if chosen else 'a study'} {digits[:64]!r}", "choose it on the page of studies, or give more digits")
    found = _read(chosen[0], verdicts)
    if found.verdict is None:
        raise Refused(f"study {chosen[0].name} is not finished: {found.open}. Fix: let it end, or choose another one")
    return study_beside(chosen[0].name, found.design, found.ledger, found.verdict, names)


def _result(one: StudyBeside, names: Mapping[str, str]) -> StudyResult:
    return StudyResult(
        study=one.study,
        candidate=names.get(one.candidate, one.candidate[:12]),
        champion=names.get(one.champion, one.champion[:12]),
        setting=one.setting,
        metric=one.metric,
        outcome=one.outcome,
        tasks=one.tasks,
        checks=tuple(CheckRow(name=check.name, stands=check.stands, reason=check.reason) for check in one.checks),
        shown=one.shown,
        alpha=one.alpha,
        trials=one.trials,
        head=one.head,
        remarks=one.remarks,
    )
