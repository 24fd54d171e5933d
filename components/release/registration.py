"""A judged checkpoint becomes a numbered model version with everything needed to make it again.

A held candidate is registered too (its number, lineage and reasons can be looked up) but never becomes champion.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from components.config.judging.verdict import GateVerdict
from components.config.paths import REPOSITORY
from components.config.ports import ModelRegistry
from components.config.records import DatasetVersion, EvalReport, ModelVersion, TrainRun
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A judged checkpoint (a folder) with the records of how it was made and what it reached."""

    checkpoint: Path
    contract: PolicyContract
    train: TrainRun
    dataset: DatasetVersion
    report: EvalReport
    verdict: GateVerdict


def register(registry: ModelRegistry, name: str, candidate: Candidate, *, champion: ModelVersion | None, commit: str = "") -> ModelVersion:
    """Register the candidate under `name`, and make it champion if its verdict promotes it.

    champion: the version that the verdict was reached against. commit: of the code, default what git reports here. Raises
    `TrackingError` when the registry does not answer or the champion changed since; `CheckpointError` when the
    records belong to different checkpoints or contracts.
    """
    contract, report, verdict, train = candidate.contract, candidate.report, candidate.verdict, candidate.train
    for what, digest in (("training", train.checkpoint_digest), ("verdict", verdict.candidate)):
        require(
            digest == report.checkpoint_digest,
            f"the {what} is of checkpoint {digest[:12]}, the evaluation of {report.checkpoint_digest[:12]}; evaluate again",
            error=CheckpointError,
        )
    require(
        contract.contract_id == report.contract_id,
        f"contract {contract.contract_id} is beside the checkpoint, {report.contract_id} was evaluated; evaluate again",
        error=CheckpointError,
    )
    version = registry.create_version(
        name,
        checkpoint_uri=candidate.checkpoint.resolve().as_uri(),
        checkpoint_digest=report.checkpoint_digest,
        contract_id=contract.contract_id,
        run_id=train.run_id,
        lineage={**lineage_of(candidate, commit or code_commit()), "policy_kind": contract.reasoning.kind},
    )
    if not verdict.promote:
        return version
    return registry.promote(version, expected=champion.version if champion else None)


def lineage_of(candidate: Candidate, commit: str) -> dict[str, str]:
    """Where a version comes from, as text: data, annotators, recipe, code, evaluation and verdict."""
    train, dataset, report, verdict = candidate.train, candidate.dataset, candidate.report, candidate.verdict
    annotators = {f"annotator.{kind}": version for kind, version in sorted(dataset.annotators.items())}
    return {
        "dataset_version": dataset.version,
        "dataset_name": dataset.name,
        "recipe_digest": train.recipe_digest,
        "code_commit": commit,
        "evaluation": f"{report.successes}/{report.trials}",
        "evaluation_interval": f"{report.interval.low:.4f}..{report.interval.high:.4f}",
        "verdict": "promote" if verdict.promote else "hold",
        **annotators,
    }


def code_commit(folder: Path = REPOSITORY) -> str:
    """The commit that `folder` is at, with "+changes" when tracked files differ from it; "unknown" outside git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
