"""How a policy answers where a request does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.types import LEVELS

if TYPE_CHECKING:
    import torch


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise SpecError(f"no reasoning level {level!r}; there are {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """How a policy answers.

    reasoning: the level of requests that name none, one of `spec.types.LEVELS`. dtype: of the decoding, see `EngineOptions`; None for
    the checkpoint's own. reuse_threshold: share of the last decision's depth cells that the model must still agree with for level
    "reuse-depth" to keep them. remember: frames of an instruction whose answers are kept as drafts for similar ones (0: none, drafts
    come from the session alone); never changes an answer.
    """

    reasoning: str = "full"
    model_version: str = ""
    dtype: torch.dtype | None = None
    reuse_threshold: float = 0.8
    remember: int = 2048

    def __post_init__(self) -> None:
        _check_level(self.reasoning)


DEFAULT_OPTIONS = PolicyOptions()


def trained_level(contract: PolicyContract, asked: str) -> str:
    """The level `asked`, or where it is "" the first that the policy was trained at.

    Raises `SpecError` for a level that there is not, and `CheckpointError` for one that this policy was not trained at.
    """
    trained = contract.reasoning.levels
    if not asked:
        return trained[0]
    _check_level(asked)
    if asked not in trained:
        raise CheckpointError(f"the checkpoint was not trained at level {asked!r}. Fix: ask for one of {', '.join(trained)}")
    return asked
