"""The evaluation of a candidate that will be compared with a champion: the comparison's design is locked before its first trial."""

from __future__ import annotations

import logging

from components.artifacts.step_manifest import Step
from components.artifacts.step_store import StepResult
from components.config.recipe import Recipe
from components.config.records import EvalReport, Progress
from flows.pipeline.stage_records import read_contract
from flows.pipeline.stages.release import champion_to_beat, evaluation_of, report_in
from flows.pipeline.stages.step import is_made
from flows.pipeline.stages.training import evaluate_key, evaluate_step, simulation_of
from flows.platform.wiring import Platform
from model_core.spec.errors import TrackingError

logger = logging.getLogger(__name__)


def locked_evaluation(platform: Platform, recipe: Recipe, trained: Step, frozen: Step, progress: Progress) -> StepResult:
    """Lock, then evaluate. A registry that does not answer stops no evaluation: then the design is locked after it, and says so."""
    if not (recipe.data and not recipe.evaluate.suite) and not is_made(platform, evaluate_key(recipe, trained, frozen)):
        try:
            lock_before_trials(platform, recipe, trained)
        except TrackingError as error:
            logger.warning("the design of the comparison is not locked before the evaluation: %s", error)
    return evaluate_step(platform, recipe, trained, frozen, progress)


def lock_before_trials(platform: Platform, recipe: Recipe, trained: Step) -> str:
    """Lock the design; the study's name, "" where there is no champion, or none that was evaluated under these rules.

    Everything in it is known before a trial: both checkpoints, the rules of the evaluation, the champion's tasks, the section `gate`.
    """
    from components.evaluation.judging.comparison import unlike_rules
    from components.evaluation.studies.design import lock
    from components.evaluation.studies.evidence import design_of

    digest = str(trained.record["checkpoint_digest"])
    champion = champion_to_beat(platform.registry(), recipe.package.model_name, digest)
    if champion is None:
        return ""
    planned = _planned_report(recipe, trained, digest)
    examined = evaluation_of(platform, champion, planned)
    before = report_in(examined, champion) if examined else None
    if before is None or not before.per_task or unlike_rules(planned, before):
        return ""
    return lock(platform.settings.home / "studies", design_of(recipe.gate, planned, before)).name


def _planned_report(recipe: Recipe, trained: Step, digest: str) -> EvalReport:
    """The report that the evaluation will write, without its trials."""
    from components.evaluation.evaluate import make_report
    from components.evaluation.suite import FitsPolicies, open_suite

    contract = read_contract(trained, recipe.package.embodiment)
    suite = open_suite(recipe.evaluate, simulation_of(recipe.collect))
    return make_report(recipe.evaluate, suite.fitted(contract) if isinstance(suite, FitsPolicies) else suite, contract, digest, (), {})
