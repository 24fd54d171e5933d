"""Open a trained checkpoint as a guarded policy by name ("module:function" gives (policy, contract)), and check its embodiment."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from components.simulation.interface import Simulator
from model_core.contracts import CONTRACTS
from model_core.spec.contract import PolicyContract, mismatches
from model_core.spec.errors import ContractError, SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import Policy

DEFAULT_POLICY = "components.evaluation.policy_loader:open_checkpoint"


class OpenPolicy(Protocol):
    """What a policy's name stands for."""

    def __call__(self, checkpoint: Path, reasoning: str) -> tuple[Policy, PolicyContract]:
        """Load it; `reasoning` is "full", "trace+action" or "action"."""
        ...


def open_policy(source: str, checkpoint: Path, reasoning: str) -> tuple[Guarded, PolicyContract]:
    """The policy that `source` opens, behind the guard that workcells' answers pass too. Raises `SpecError` for a bad name."""
    module_name, _, function_name = source.partition(":")
    try:
        opened: OpenPolicy = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"no policy {source!r} ({error}); expected 'package.module:function'") from error
    policy, contract = opened(checkpoint, reasoning)
    return Guarded(policy=policy, contract=contract), contract


def open_checkpoint(checkpoint: Path, reasoning: str) -> tuple[Policy, PolicyContract]:
    """Our own trained checkpoint; raises `CheckpointError` when its parts do not belong together."""
    from model_core.policy import load_policy

    policy = load_policy(checkpoint, reasoning=reasoning)
    return policy, policy.contract


def own_checkpoint(checkpoint: Path, embodiment: Callable[[], str], scratch: Path) -> Path:
    """The checkpoint of one embodiment: `checkpoint` itself, or, where it acts for several, its part, written below `scratch`.

    embodiment: names it, asked only then. Raises `CheckpointError` for one that the checkpoint was not trained for.
    """
    if not (checkpoint / CONTRACTS).is_dir():
        return checkpoint
    from model_core.checkpoint import write_part

    name = embodiment()
    return write_part(checkpoint, name, scratch / name)


def embodiment_name(sim: Simulator) -> str:
    """Close `sim`; the name of its embodiment."""
    try:
        return sim.embodiment.name
    finally:
        sim.close()


def check_embodiment(sim: Simulator, contract: PolicyContract) -> None:
    """Close `sim`, and raise `ContractError` when its embodiment is not the contract's."""
    try:
        found = mismatches(contract.embodiment, sim.embodiment)
    finally:
        sim.close()
    if found:
        raise ContractError("the checkpoint was made for another embodiment than the simulator's: " + "; ".join(m.explain() for m in found))
