"""The port to a checkpoint of the compact language."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.engine.decode_request import CompactLanguage, DecodeRequest
from model_core.spec.contract import PolicyContract
from model_core.spec.types import ActionReasoning, DecisionRequest
from model_core.tokenization.compact.layout import CompactLayout, ReasoningMode
from model_core.tokenization.observation import ContractActions, PolicyInputs

MODES: dict[str, ReasoningMode] = {
    "full": ReasoningMode.FULL,
    "reuse-depth": ReasoningMode.FULL,
    "trace+action": ReasoningMode.TRACE_ACTION,
    "action": ReasoningMode.ACTION,
}


class CompactPort:
    """A layout and its contract. Satisfies `ModelPort`. A steering trace is part of the answer, as ids that are given."""

    def __init__(self, layout: CompactLayout, contract: PolicyContract) -> None:
        self.contract, self.language = contract, CompactLanguage(layout)
        self.dtype, self.constrained = torch.float32, True
        self._inputs, self._actions = PolicyInputs(layout=layout, contract=contract), ContractActions(contract=contract)

    def question(self, request: DecisionRequest, level: str) -> DecodeRequest:
        """See `ModelPort.question`. Raises `GrammarError` for a word that the policy does not know."""
        observation, inputs = request.observation, self._inputs
        mode, trace = (MODES[level], request.trace) if request.drawn is None else (ReasoningMode.STEERED, request.drawn)
        return DecodeRequest(
            images_VHW3=inputs.images(observation),
            words_W=inputs.words(observation.instruction),
            proprio_bins_P=inputs.proprio_bins(observation.proprio_P),
            mode=mode,
            depth=request.depth,
            trace=trace,
            committed_DA=self._actions.committed_bins(request),
        )

    def told(self, reasoning: ActionReasoning, question: DecodeRequest) -> ActionReasoning:
        """See `ModelPort.told`: the answer holds the drawn trace already."""
        return reasoning

    def actions_of(self, bins_KA: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `ModelPort.actions_of`."""
        return self._actions.actions_of(bins_KA)
