"""What the decoding engine is measured against, on the same weights: `transformers` generate, its prompt lookup, and a plain loop.

Every peer answers one request from its raw frames to its last action id, vision and prefill included: greedy over the ids that the
grammar allows at each place, which is how a compact model is trained (its head was never trained to separate depth codes from actions).
The wrapper is as thin as possible, in the peers' favour: they are given the length of the answer, the grammar is one row of a table per
token, no attention mask is built where one row needs none, and places follow from the ids without a tensor operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from components.evaluation.decoding.peer_prompt import STAGES, Laps, PeerAnswer, Places, encode
from model_core.engine.decode_request import Language, Question
from model_core.network.model import MolmoAct

LOOKUP_TOKENS = 10
# On our own modules, and on the class of `transformers` that computes the same.
GENERATE = ("generate, dynamic cache", "generate, static cache")
QWEN2_GENERATE = ("Qwen2 generate, dynamic cache", "Qwen2 generate, static cache")
OLMO2_GENERATE = ("Olmo2 generate, dynamic cache", "Olmo2 generate, static cache")


class PlainLoop:
    """A hand-written greedy loop over one preallocated cache: the obvious first version. It shares only the network with the engine."""

    def __init__(self, network: MolmoAct, language: Language) -> None:
        self.network, self.language, self.laps = network, language, Laps()
        llm = network.config.llm
        weight = network.lm_head.weight
        shape = (llm.num_hidden_layers, 2, 1, llm.num_key_value_heads, language.max_length, llm.head_dim)
        self._places = Places(language, llm.vocab_size)
        self._memory = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.start = 0

    def update(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        """See `KeyValueCache`."""
        end = self.start + k_BHLD.shape[2]
        keys, values = self._memory[layer]
        keys[:, :, self.start : end] = k_BHLD
        values[:, :, self.start : end] = v_BHLD
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, length: int) -> None:
        """See `KeyValueCache`."""
        self.start += length

    @torch.inference_mode()
    def answer(self, question: Question, length: int) -> PeerAnswer:
        """Greedy ids of `question`, `length` of them."""
        self.laps.start()
        self.start = 0
        prompt, network, device = self.language.prompt(question), self.network, self._memory.device
        features = encode(network, prompt)
        self.laps.mark("vision")
        ids, places = torch.from_numpy(prompt.ids_L)[None].to(device), torch.from_numpy(prompt.places_L)[None].to(device)
        hidden = network.trunk(network.embed(ids, features), places, cache=self)
        self.laps.mark("prefill")
        answer: list[int] = []
        grammar, state, index = self.language.grammar, self.language.begin(question), len(prompt.ids_L)
        while True:
            blocked_X = self._places.blocked(state, device)
            token = int(network.logits(hidden[:, -1]).masked_fill(blocked_X, -torch.inf).argmax(-1))
            answer.append(token)
            if len(answer) == length:
                break
            ids = torch.tensor([[token]], device=device)
            places = torch.tensor([[grammar.place(state, index)]], device=device)
            hidden = network.trunk(network.embed(ids), places, cache=self)
            self.laps.mark(grammar.stage(state).value)
            state, index = grammar.after(state, token), index + 1
        return PeerAnswer(ids_N=np.array(answer, np.int64), forwards=length, stages_ms=self.laps.split())


Answering = Callable[[Question, int], PeerAnswer]


def all_peers(network: MolmoAct, language: Language) -> dict[str, Answering]:
    """Every peer by the name that the table shows."""
    # `transformers` generate takes nine seconds of processor time to load, which the plain loop does without
    from components.evaluation.decoding.hf_peer import Generation, HfPeer
    from components.evaluation.decoding.olmo2_peer import MatchingOlmo2, matches_olmo2
    from components.evaluation.decoding.qwen2_peer import MatchingQwen2, matches_qwen2

    llm = network.config.llm
    matching: dict[str, Answering] = {}
    for matches, names, of in ((matches_qwen2, QWEN2_GENERATE, MatchingQwen2), (matches_olmo2, OLMO2_GENERATE, MatchingOlmo2)):
        if matches(llm):
            matching[names[0]] = HfPeer(network, language, model=of).answer
            matching[names[1]] = HfPeer(network, language, Generation(cache="static"), model=of).answer
    return matching | {
        GENERATE[0]: HfPeer(network, language).answer,
        GENERATE[1]: HfPeer(network, language, Generation(cache="static")).answer,
        "generate, prompt lookup": HfPeer(network, language, Generation(lookup=LOOKUP_TOKENS)).answer,
        "plain loop, static cache": PlainLoop(network, language).answer,
    }


def medians(answers: Sequence[PeerAnswer]) -> dict[str, float]:
    """Median milliseconds by stage."""
    return {stage: float(np.median([answer.stages_ms.get(stage, 0.0) for answer in answers])) for stage in STAGES}
