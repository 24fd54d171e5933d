"""Blocks of paired trials: champion and candidate act on the same further scenes until the gate's comparison is decided.

Every block of either side is a step of its own, so that a run that was stopped continues where it was, and a champion is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.artifacts.step_manifest import Step
from components.config.judging.suites import suite_entry
from components.config.recipe import Recipe
from components.config.records import EvalReport, Progress
from components.config.stages import PAIRS
from components.evaluation.gate import gate, needs_pairs
from components.evaluation.judging.comparison import unlike_rules
from components.evaluation.studies.design import is_locked
from components.evaluation.studies.evidence import Evidence, design_of, record_study
from components.evaluation.studies.plan import sides_of_block
from flows.pipeline.stage_records import read_report
from flows.pipeline.stages.step import StepKey, stage_step
from flows.pipeline.stages.training import simulation_of
from flows.platform.wiring import Platform

RunTrials = Callable[[Platform, Recipe, Step, Progress], Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The two evaluations with the digests of their steps, and the trainings whose checkpoints can be asked further.

    trained_before: None where the champion's checkpoint is not in this store, so that it can be asked nothing.
    """

    candidate: EvalReport
    champion: EvalReport
    evidence: tuple[str, str]
    trained: Step
    trained_before: Step | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of pairs: the step of each side."""

    candidate: Step
    champion: Step

    @property
    def reports(self) -> tuple[EvalReport, EvalReport]:
        """Of candidate and champion."""
        return read_report(self.candidate), read_report(self.champion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was run for a comparison: its blocks, and the study in which every trial is on record ("" where nothing is comparable)."""

    blocks: tuple[Block, ...] = ()
    study: str = ""
    head: str = ""


def block_recipe(recipe: Recipe, number: int) -> Recipe | None:
    """The recipe whose evaluation is block `number` (from 0), on the scenes after those before it; None beyond the gate's `max_pairs`.

    The seeds of the recipe's own simulator go on without end, a built-in suite has so many initial states; the cases of a suite that a
    function makes are what they are.
    """
    cfg, asked = recipe.gate, recipe.evaluate
    entry = suite_entry(asked.suite) if asked.suite else None
    done = asked.seeds_per_task + number * cfg.pairs_per_block
    count = min(cfg.pairs_per_block, cfg.max_pairs - done, entry.states - asked.first_state - done if entry else cfg.max_pairs)
    if count <= 0 or (entry is None and (recipe.data or asked.suite)):
        return None
    moved = {"first_state": asked.first_state + done} if entry else {"first_seed": asked.first_seed + done}
    further = replace(asked, **moved, seeds_per_task=count, image_swap_frames=0, films_per_task=0)
    return replace(recipe, evaluate=further)


def further_pairs(
    platform: Platform, recipe: Recipe, compared: Comparison, progress: Progress, run_trials: RunTrials | None = None
) -> Compared:
    """Lock the study, and run block after block (finished ones are found) until it is decided or has its planned maximum of pairs.

    run_trials: how the trials of one side are run (default: in closed loop, on the recipe's suite).
    """
    if not compared.champion.per_task or unlike_rules(compared.candidate, compared.champion):
        return Compared()
    run, blocks, rounds = run_trials or _trials, list[Block](), list[tuple[EvalReport, EvalReport]]()
    studies = platform.settings.home / "studies"
    design = design_of(recipe.gate, compared.candidate, compared.champion)
    if not is_locked(studies, design):  # by `study_lock`, before the candidate's evaluation; else the record says so
        design = replace(design, evaluated_before=True)
    while True:
        folder, ledger = record_study(studies, design, _evidence(compared, blocks, rounds))
        verdict = gate(recipe.gate, compared.candidate, compared.champion, further=rounds)
        block, before = block_recipe(recipe, len(blocks)), compared.trained_before
        if block is None or before is None or not needs_pairs(verdict):
            return Compared(blocks=tuple(blocks), study=folder.name, head=ledger.head)
        progress.update(0, 1, f"not decided yet: block {len(blocks) + 1} of {block.evaluate.seeds_per_task} further pairs a task")
        trainings = {"candidate": compared.trained, "champion": before}
        blocks.append(Block(**{side: run(platform, block, trainings[side], progress) for side in sides_of_block(design, len(blocks))}))
        rounds.append(blocks[-1].reports)


def _evidence(
    compared: Comparison, blocks: Sequence[Block], rounds: Sequence[tuple[EvalReport, EvalReport]]
) -> list[tuple[Evidence, Evidence]]:
    reports = [(compared.candidate, compared.champion), *rounds]
    digests = [compared.evidence, *((block.candidate.digest, block.champion.digest) for block in blocks)]
    return [((mine, ours), (before, theirs)) for (mine, before), (ours, theirs) in zip(reports, digests, strict=True)]


def _trials(platform: Platform, block: Recipe, trained: Step, progress: Progress) -> Step:
    simulation = simulation_of(block.collect)

    def work(out: Path) -> Mapping[str, Any]:
        from components.evaluation.evaluate import evaluate
        from components.evaluation.suite import open_suite

        return evaluate(block.evaluate, trained.path / "checkpoint", out, progress, suite=open_suite(block.evaluate, simulation))

    return stage_step(platform, StepKey(stage=PAIRS, recipe=block, inputs={"checkpoint": trained}), work).step
