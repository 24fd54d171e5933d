"""The parallel action block: K x D placeholder tokens that are read in one forward, each predicting its own value.

    prompt | depth | trace | ? ? ? ... ?          every ? stands in the slot of the value that it asks for

A placeholder sees everything before the actions and all other placeholders (both ways); nothing else ever sees a placeholder, so
what is predicted causally is the same with and without them. Idea: parallel decoding of OpenVLA-OFT, arXiv 2502.19645.
Shape letters: B rows, T tokens (cached and new), L new causal tokens, N placeholders.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from model_core.network.config import MolmoActConfig
from model_core.spec.errors import CheckpointError

ACTION_HEAD_KEY = "action_head"


class ActionHead(enum.StrEnum):
    """How a model was trained to predict its actions.

    CAUSAL: value after value. PARALLEL: all at once, by placeholders; a policy kind of its own. BOTH: value after value, and its
    placeholders were trained beside that, so that they can draft for it.
    """

    CAUSAL = "causal"
    PARALLEL = "parallel"
    BOTH = "both"

    @property
    def kind(self) -> str:
        """The kind of policy that is served: what its contract says."""
        return "parallel" if self is ActionHead.PARALLEL else "causal"

    @property
    def has_queries(self) -> bool:
        """Whether placeholders were trained."""
        return self is not ActionHead.CAUSAL


def action_head_of(config: MolmoActConfig) -> ActionHead:
    """What a stored config says; a config that says nothing is causal. Raises `CheckpointError` for a name we do not know."""
    name = config.extras.get(ACTION_HEAD_KEY, ActionHead.CAUSAL.value)
    try:
        return ActionHead(name)
    except ValueError as error:
        raise CheckpointError(
            f"config.json: {ACTION_HEAD_KEY} is {name!r}; this version knows {[head.value for head in ActionHead]}"
        ) from error


def block_visibility(kept_BT: Tensor, *, new: int, queries: int, actions_BT: Tensor | None = None) -> Tensor:
    """Who sees whom, bool (B, 1, new + queries, T + queries): `new` causal tokens, the last of T, then the placeholders.

    kept_BT: tokens that are read at all (False: padding, or a cache row that holds nothing); padding sees itself, so that no softmax
    row is empty. actions_BT: tokens that placeholders must not see although causal tokens do: the encoded actions in training.
    """
    rows, total = kept_BT.shape
    places_T = torch.arange(total, device=kept_BT.device)
    own_L = places_T[total - new :, None]
    causal_BLT = (kept_BT[:, None] & (places_T <= own_L)) | (places_T == own_L)
    before_BT = kept_BT if actions_BT is None else kept_BT & ~actions_BT
    seen = torch.zeros(rows, 1, new + queries, total + queries, dtype=torch.bool, device=kept_BT.device)
    seen[:, 0, :new, :total] = causal_BLT
    seen[:, 0, new:, :total] = before_BT[:, None]
    seen[:, 0, new:, total:] = True
    return seen
