"""The model port. A checkpoint is a network, a language (published or compact), an image processor, a depth codebook and a contract.

    DecisionRequest --question--> engine (prompt, grammar, network) --> ActionReasoning --told, actions_of--> Decision

Policies, packaging, the gateway, replays and benchmarks ask a `ModelPort` and never which language is behind it: what differs (the
compact language reads words and state as ids of its own, the published one sentences and processed crops) is inside `question`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.engine.decode_request import Language, Question
from model_core.spec.contract import PolicyContract
from model_core.spec.types import ActionReasoning, DecisionRequest


class ModelPort(Protocol):
    """One language and one contract. Whatever it raises for a bad request is an `ActwrightError`."""

    @property
    def contract(self) -> PolicyContract:
        """What the checkpoint promises."""
        ...

    @property
    def language(self) -> Language:
        """The language of the engine."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """In which the checkpoint is decoded where nothing else is asked for."""
        ...

    @property
    def constrained(self) -> bool:
        """Whether the checkpoint is decoded over the ids of its language only (see `EngineOptions`)."""
        ...

    def question(self, request: DecisionRequest, level: str) -> Question:
        """What a request that was checked against the contract asks at a reasoning level."""
        ...

    def told(self, reasoning: ActionReasoning, question: Any, /) -> ActionReasoning:
        """The parsed answer as it is told: with the trace that a person has drawn."""
        ...

    def actions_of(self, bins_KA: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bins 1..256 (K, A) -> actions in the contract's units."""
        ...
