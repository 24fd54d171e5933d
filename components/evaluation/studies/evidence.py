"""From the evaluations and blocks of a comparison to its locked study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from components.config.recipe import GateConfig
from components.config.records import EvalReport
from components.evaluation.judging.comparison import BY_EPISODE, by_scene
from components.evaluation.studies.design import StudyDesign, lock
from components.evaluation.studies.ledger import Ledger, Trial, extend
from model_core.spec.documents import to_document
from model_core.spec.types import StopReason

Evidence = tuple[EvalReport, str]  # a report, and the digest of the step that it is of


def design_of(cfg: GateConfig, candidate: EvalReport, champion: EvalReport) -> StudyDesign:
    """The design of the comparison of two evaluations under the recipe's gate."""
    rules = {name: value for name, value in candidate.protocol.items() if name not in BY_EPISODE}
    return StudyDesign(
        candidate=candidate.checkpoint_digest,
        champion=champion.checkpoint_digest,
        tasks=tuple(sorted(champion.per_task)),
        gate=to_document(cfg),
        rules=rules,
        first_seed=int(candidate.protocol.get("first_seed", 0)),
        version=2,
    )


def record_study(studies: Path, design: StudyDesign, rounds: Sequence[tuple[Evidence, Evidence]]) -> tuple[Path, Ledger]:
    """Lock the design (before the first block is run: call it with the evaluations alone), and let the ledger hold every trial so far.

    Returns the study's folder and its ledger. Raises `DatasetError` as `lock` and `extend` do.
    """
    folder = lock(studies, design)
    return folder, extend(folder, [trial for block, both in enumerate(rounds) for trial in _trials(block, both)])


def _trials(block: int, both: tuple[Evidence, Evidence]) -> Iterator[Trial]:
    """The trials of one round: scene after scene, candidate and champion."""
    scenes = [by_scene(report) for report, _ in both]
    for scene in sorted(scenes[0].keys() & scenes[1].keys()):
        for side, (report, evidence), found in zip(("candidate", "champion"), both, scenes, strict=True):
            row = found[scene]
            yield Trial(
                block=block,
                side=side,
                policy=report.checkpoint_digest,
                contract=report.contract_id,
                task=row.task,
                seed=row.seed,
                suite=str(report.protocol.get("suite", "")),
                suite_version=str(report.protocol.get("suite_version", "")),
                success=row.success,
                score=float(row.success),
                stop_reason=row.stop_reason,
                void=row.stop_reason == StopReason.ENV_ERROR,
                steps=row.steps,
                decisions=row.decisions,
                refusals=row.refusals,
                detail=row.detail,
                evidence=evidence,
                progress=row.progress,
                holds=row.holds,
                clips=row.clips,
                drops=row.drops,
            )
