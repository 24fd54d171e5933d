"""The obvious greedy loop: the network's own modules, a growing sequence, one id a forward. It shares no decoding code with the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model_core.engine.cache import StaticCache
from model_core.engine.decode_request import Language
from model_core.network.model import MolmoAct


@torch.inference_mode()
def plain_answer(model: MolmoAct, language: Language, question: Any, *, constrained: bool = True, most: int = 1000) -> list[int]:
    """Ids of the answer to one question: at each place the highest logit, of the ids that the grammar allows or of all."""
    prompt, grammar = language.prompt(question), language.grammar
    features = None
    if prompt.images is not None:
        assert prompt.pooled_patches_idx is not None
        features = model.encode_images(prompt.images, prompt.pooled_patches_idx, prompt.image_masks)
    cache = StaticCache(model.config.llm, batch=1, max_length=len(prompt.ids_L) + most)
    given, state, found = language.given(question), language.begin(question), []
    hidden = model.trunk(model.embed(_row(prompt.ids_L.tolist()), features), _row(prompt.places_L.tolist()), cache=cache)
    while state != grammar.done and len(found) < most:
        token = given.get(state, -1)
        if token < 0 and constrained:
            allowed = torch.from_numpy(grammar.groups[grammar.group(state)])
            token = int(allowed[(model.lm_head.weight[allowed] @ hidden[0, -1]).argmax()])
        elif token < 0:
            token = int(model.logits(hidden[:, -1])[0].argmax())
        found.append(token)
        place = grammar.place(state, len(prompt.ids_L) + len(found) - 1)
        state = grammar.after(state, token)
        if state < 0:
            break
        hidden = model.trunk(model.embed(_row([token])), _row([place]), cache=cache)
    return found


def _row(numbers: list[int]) -> Tensor:
    return torch.tensor([numbers])
