"""Open a trained checkpoint as a guarded policy by name ("module:function" gives (policy, contract)), and check its embodiment."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from components.simulation.interface import Simulator
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


def check_embodiment(sim: Simulator, contract: PolicyContract) -> None:
    """Close `sim`, and raise `ContractError` when its embodiment is not the contract's."""
    try:
        found = mismatches(contract.embodiment, sim.embodiment)
    finally:
        sim.close()
    if found:
        raise ContractError("the checkpoint was made for another embodiment than the simulator's: " + "; ".join(m.explain() for m in found))
