"""The stages that release a policy: gate and register, package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepResult
from components.config.judging.verdict import GateVerdict
from components.config.ports import ModelRegistry
from components.config.recipe import Recipe
from components.config.records import EvalReport, ModelVersion, Progress
from components.config.stages import stage_named
from flows.pipeline.stage_records import read_contract, read_dataset, read_model_version, read_report, read_reports, read_train_run
from flows.pipeline.stages.comparison import Compared, Comparison, further_pairs
from flows.pipeline.stages.step import StepKey, stage_step
from flows.platform.wiring import Platform
from model_core.spec.documents import to_document
from model_core.spec.errors import NotReady, SpecError
from model_core.spec.files import atomic_write


def check_release(recipe: Recipe, frozen: Step) -> None:
    """Refuse, before anything is trained, a release that does not name one of the embodiments of the frozen data. Raises `SpecError`."""
    known = list(frozen.record.get("embodiments", ()))
    named = recipe.package.embodiment
    if known and named not in known:
        raise SpecError(
            f"the data hold {len(known)} embodiments ({', '.join(known)}), and a release is of one; package.embodiment names "
            f"{named or 'none'}. Fix: --set package.embodiment={known[0]} (`actwright train` trains without a release)"
        )


def gate_step(platform: Platform, recipe: Recipe, evaluated: Step, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Judge the candidate against the champion and register it: the record holds verdict and model version."""
    released = recipe.package.embodiment
    report = read_report(evaluated, released)
    others = {name: other for name, other in read_reports(evaluated).items() if name not in ("", released)}
    champion = champion_to_beat(platform.registry(), recipe.package.model_name, report.checkpoint_digest)
    examined = evaluation_of(platform, champion, report) if champion else None
    compared = Compared()
    if champion and examined:
        compared = further_pairs(platform, recipe, _comparison(platform, champion, (evaluated, examined), report, trained), progress)

    def work(out: Path) -> Mapping[str, Any]:
        from components.release.registration import Candidate, register

        progress.update(0, 2, "judging")
        before = _report_of(platform, champion, examined) if champion else None
        verdict = _judged(recipe, (report, before), compared, others)
        progress.update(1, 2, "registering")
        version = register(
            platform.registry(),
            recipe.package.model_name,
            Candidate(
                checkpoint=trained.path / "checkpoint",
                contract=read_contract(trained, released),
                train=read_train_run(trained),
                dataset=read_dataset(frozen),
                report=report,
                verdict=verdict,
            ),
            champion=champion,
        )
        atomic_write(out / "verdict.json", json.dumps(to_document(verdict), indent=1, sort_keys=True))
        progress.update(2, 2, f"{version.name} {version.version}: {version.alias}")
        # the lineage names the code's commit, which two equal runs need not share
        return {
            "verdict": to_document(verdict),
            "model_version": to_document(replace(version, lineage={})),
            "undigested": {"lineage": dict(version.lineage)},
        }

    # The champion's evaluation, and not its name: it may be evaluated again, under other rules.
    inputs: dict[str, Step | str] = {"evaluation": evaluated, "checkpoint": trained}
    inputs["champion"] = examined or (champion.checkpoint_digest if champion else "")
    for number, block in enumerate(compared.blocks, start=1):
        inputs |= {f"pairs {number}": block.candidate, f"champion's pairs {number}": block.champion}
    key = StepKey(stage=stage_named("gate"), recipe=recipe, inputs=inputs, extra={"embodiment": released} if released else {})
    return stage_step(platform, key, work)


def _judged(
    recipe: Recipe, both: tuple[EvalReport, EvalReport | None], compared: Compared, others: Mapping[str, EvalReport]
) -> GateVerdict:
    """The verdict on both evaluations, with what could be expected of their comparison and where its trials are on record."""
    from components.evaluation.gate import gate
    from components.evaluation.judging.plan import plan_of

    candidate, before = both
    verdict = gate(recipe.gate, candidate, before, others=others, further=[block.reports for block in compared.blocks])
    rates = {task: (score.successes + 0.5) / (score.trials + 1) for task, score in before.per_task.items()} if before else {}
    return replace(verdict, plan=plan_of(recipe.gate, rates), study=compared.study, head=compared.head)


def champion_to_beat(registry: ModelRegistry, name: str, candidate: str) -> ModelVersion | None:
    """The champion, or, where `candidate` (a checkpoint digest) is it already, the one that it replaced."""
    champion = registry.champion(name)
    if champion is None or champion.checkpoint_digest != candidate:
        return champion
    return next((v for v in registry.versions(name) if str(v.version) == champion.replaced), None)


def evaluation_of(platform: Platform, version: ModelVersion, candidate: EvalReport) -> Step | None:
    """The newest evaluation of a registered version under the candidate's rules, else the newest one; None where this store has none."""
    from components.evaluation.judging.comparison import unlike_rules

    reports = [(step, report_in(step, version)) for step in reversed(platform.store.steps("evaluate"))]
    found = [(step, report) for step, report in reports if report.checkpoint_digest == version.checkpoint_digest]
    return next((step for step, report in found if not unlike_rules(candidate, report)), found[0][0] if found else None)


def _comparison(platform: Platform, champion: ModelVersion, examined: tuple[Step, Step], report: EvalReport, trained: Step) -> Comparison:
    """What further pairs need. examined: the evaluations of candidate and champion."""
    digest = champion.checkpoint_digest
    before = next((step for step in reversed(platform.store.steps("train")) if step.record.get("checkpoint_digest") == digest), None)
    return Comparison(
        candidate=report,
        champion=report_in(examined[1], champion),
        evidence=(examined[0].digest, examined[1].digest),
        trained=trained,
        trained_before=before,
    )


def report_in(evaluated: Step, version: ModelVersion) -> EvalReport:
    """The report of a registered version in an evaluation: of several embodiments that whose contract was registered."""
    reports = list(read_reports(evaluated).values())
    return next((report for report in reports if report.contract_id == version.contract_id), reports[0])


def _report_of(platform: Platform, version: ModelVersion, examined: Step | None) -> EvalReport:
    if examined is None:
        raise NotReady(
            f"champion {version.name} {version.version} was never evaluated in {platform.store.root}; run its recipe here once, "
            f"or `actwright champion withdraw {version.name} --reason TEXT`, so that the candidate is judged alone"
        )
    return report_in(examined, version)


def package_step(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, gated: Step, progress: Progress) -> StepResult:
    """Build the Bento of the promoted version: <step>/bento."""
    version = read_model_version(gated)
    label = f"{version.name}/{version.version}"

    def work(out: Path) -> Mapping[str, Any]:
        from components.release.package import package

        return package(recipe.package, trained.path / "checkpoint", label, out, progress, frozen=frozen.path)

    inputs = {"checkpoint": trained, "frozen": frozen}
    released = recipe.package.embodiment
    extra = {"version": label} | ({"embodiment": released} if released else {})
    key = StepKey(stage=stage_named("package"), recipe=recipe, inputs=inputs, extra=extra)
    return stage_step(platform, key, work)
