"""What a release says beside its bundle, looked up in this home: the gate's verdict on the weights, its ledger, the lock of libraries."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.judging.verdict import GateVerdict
from flows.terminal.output import print_line
from model_core.spec.documents import from_document
from model_core.spec.errors import CheckpointError, SpecError

if TYPE_CHECKING:
    from components.release.bundle import PackedPolicy
    from components.release.fleet.create import Facts
    from flows.platform.wiring import Platform


def facts_of(
    platform: Platform, packed: PackedPolicy, *, verdict: Path | None, override: tuple[str, str], base: Path | None, minimum_agent: str
) -> Facts:
    """The facts of a release of `packed`. verdict: a verdict.json, None to look it up. override: name and reason, both "" for none.

    Raises `SpecError` for a verdict that cannot be read, `CheckpointError` where the ledger that the verdict names was changed.
    """
    from components.artifacts.step_manifest import checkpoint_digest
    from components.release.fleet.create import Facts
    from model_core.spec.fleet.release import Override

    evaluated = {checkpoint_digest(packed.checkpoint)} | _trained_as(platform, packed)
    found = _read(verdict) if verdict else _verdict_here(platform, evaluated)
    if found is None:
        print_line(
            f"no verdict on these weights is in {platform.store.root}; name one with --verdict FILE, or it is published by override only"
        )
    elif found.study:
        _check_ledger(platform.settings.home / "studies" / found.study, found.head)
    return Facts(
        verdict=found,
        lock=_lock(packed),
        minimum_agent=minimum_agent or metadata.version("actwright"),
        evaluated=frozenset(evaluated),
        override=Override(name=override[0], reason=override[1]) if any(override) else None,
        base=base,
    )


def _trained_as(platform: Platform, packed: PackedPolicy) -> set[str]:
    """Digests of the checkpoints that this store packed as this very bento: of several embodiments a bundle holds a part."""
    place = (packed.bento or packed.checkpoint).resolve()
    inputs = {
        step.manifest.inputs.get("checkpoint") for step in platform.store.steps("package") if (step.path / "bento").resolve() == place
    }
    trained = [step for step in platform.store.steps("train") if step.digest in inputs]
    return {str(step.record["checkpoint_digest"]) for step in trained if "checkpoint_digest" in step.record}


def _verdict_here(platform: Platform, evaluated: set[str]) -> GateVerdict | None:
    """The newest verdict on one of these checkpoints."""
    for step in reversed(platform.store.steps("gate")):
        verdict = step.record.get("verdict", {})
        if verdict.get("candidate") in evaluated:
            return from_document(GateVerdict, verdict, where=f"the verdict of step {step.path.name}")
    return None


def _read(path: Path) -> GateVerdict:
    try:
        return from_document(GateVerdict, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise SpecError(f"{path} is no verdict: {error}. Fix: give verdict.json of a step of the gate") from error


def _check_ledger(study: Path, head: str) -> None:
    from components.evaluation.studies.ledger import problem_of

    if not study.is_dir():
        print_line(f"the trials of study {study.name} are not in {study.parent}; the release carries their last hash alone")
        return
    if problem := problem_of(study, head):
        raise CheckpointError(f"{problem}. Fix: restore the study from a copy; evidence that was changed releases nothing")


def _lock(packed: PackedPolicy) -> str:
    """The lock that was packed with the policy; a bundle without a bento has none, and today's libraries are listed."""
    from components.release.package import LIBRARIES, locked

    path = packed.bento / "src" / "requirements.lock" if packed.bento else None
    if path is not None and path.is_file():
        return path.read_text(encoding="utf-8")
    print_line("the bundle carries no lock of its libraries, so the bill of materials lists the libraries of this environment")
    return "\n".join(locked(LIBRARIES))
