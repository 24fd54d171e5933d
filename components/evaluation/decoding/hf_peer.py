"""`transformers` generate as a peer: our network, or the class of `transformers` that computes the same, behind its own loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.configuration_utils import PretrainedConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from components.evaluation.decoding.peer_prompt import Laps, PeerAnswer, Places, encode
from model_core.engine.decode_request import Language, Prompt, Question
from model_core.network.model import MolmoAct


class _HfConfig(PretrainedConfig):
    model_type = "molmoact_wrapped"


class _HfCacheView:
    """A `transformers` cache as `KeyValueCache`. A static cache gives its whole length back; what is beyond the tokens held is cut off."""

    def __init__(self, cache: Any, start: int, length: int) -> None:
        self.cache, self.start, self._end = cache, start, start + length

    def update(self, layer: int, k_BHLD: Tensor, v_BHLD: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.update(k_BHLD, v_BHLD, layer)
        return keys[:, :, : self._end], values[:, :, : self._end]

    def advance(self, length: int) -> None:
        """The cache counts by itself."""


class GeneratingMolmoAct(PreTrainedModel, GenerationMixin):
    """Our network as `transformers` sees a causal language model; the weights are the same tensors, not copies."""

    config_class = _HfConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _is_stateful = False

    def __init__(self, network: MolmoAct, places: Places, laps: Laps) -> None:
        llm = network.config.llm
        sizes: dict[str, Any] = {
            "vocab_size": llm.vocab_size + llm.additional_vocab_size,  # prompt lookup proposes what stands in the prompt, image tokens too
            "hidden_size": llm.hidden_size,
            "num_hidden_layers": llm.num_hidden_layers,
            "num_attention_heads": llm.num_attention_heads,
            "num_key_value_heads": llm.num_key_value_heads,
            "head_dim": llm.head_dim,
            "max_position_embeddings": llm.max_position_embeddings,
        }
        super().__init__(_HfConfig(**sizes, eos_token_id=None, pad_token_id=0, bos_token_id=1))  # pyright: ignore[reportCallIssue]
        self.network, self.places, self.laps = network, places, laps
        self.forwards = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.network.lm_head.weight.dtype

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The new ids with their places; the images on the first call only."""
        new = input_ids.shape[1] if next_sequence_length is None else next_sequence_length
        inputs = {
            "input_ids": input_ids[:, -new:],
            "position_ids": self.places.of_last(input_ids, new).to(input_ids.device),
            "past_key_values": past_key_values,
            "start": input_ids.shape[1] - new,
            "stage": self.places.stage_of_last(input_ids, new),
        }
        return inputs | ({"images": kwargs["images"]} if is_first_iteration else {})

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any,
        start: int,
        stage: str,
        images: Prompt | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """One forward of the network. Without images: (1, L, X) logits of all new ids; with them, of the last."""
        features = None
        if images is not None:
            features = encode(self.network, images)
            self.laps.mark("vision")
        else:  # the forward before computed the first of these tokens
            self.laps.mark("prefill" if self.forwards == 1 else stage)
        self.forwards += 1
        x_BLD = self.network.embed(input_ids, features)
        view = _HfCacheView(past_key_values, start, input_ids.shape[1])
        hidden_BLD = self.network.trunk(x_BLD, position_ids, cache=view)
        if images is not None:
            hidden_BLD = hidden_BLD[:, self.places.prompt_length - 1 :]  # of a prompt the last place is decoded, of a look-up all
        return CausalLMOutputWithPast(logits=self.network.logits(hidden_BLD), past_key_values=past_key_values)  # pyright: ignore[reportArgumentType]


class GrammarMask(LogitsProcessor):
    """Only what the grammar allows at the next place; one row of a table."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Scores (1, X) of the token after `input_ids`; ids behind those of the head are never allowed."""
        blocked_X = self.places.blocked(self.places.next(input_ids), scores.device)
        behind = scores.shape[-1] - blocked_X.shape[-1]
        return scores.masked_fill(F.pad(blocked_X, (0, behind), value=True) if behind else blocked_X, -torch.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How `generate` runs. cache: "dynamic" or "static". lookup: tokens of prompt lookup, 0 for none. masked: only ids of the grammar."""

    cache: str = "dynamic"
    lookup: int = 0
    masked: bool = True


MakePeerModel = Callable[[MolmoAct, Places, Laps], Any]


class HfPeer:
    """`generate(do_sample=False)` with a dynamic or static cache, or with prompt lookup.

    model: what computes: our own modules wrapped, or the class of `transformers` that matches our decoder.
    """

    def __init__(
        self,
        network: MolmoAct,
        language: Language,
        generation: Generation = Generation(),
        *,
        model: MakePeerModel = GeneratingMolmoAct,
    ) -> None:
        self.language, self.laps, self.places = language, Laps(), Places(language, network.config.llm.vocab_size)
        self.model = model(network, self.places, self.laps).eval()
        self.options: dict[str, Any] = {"do_sample": False, "use_cache": True}
        if generation.masked:
            self.options["logits_processor"] = LogitsProcessorList([GrammarMask(self.places)])
        self.options |= {"cache_implementation": "static"} if generation.cache == "static" else {}
        self.options |= {"prompt_lookup_num_tokens": generation.lookup} if generation.lookup else {}

    @torch.inference_mode()
    def answer(self, question: Question, length: int) -> PeerAnswer:
        """Greedy ids of `question`, `length` of them."""
        self.laps.start()
        self.model.forwards = 0
        prompt = self.language.prompt(question)
        self.places.start(prompt.places_L, self.language.begin(question))
        ids_1L = torch.from_numpy(prompt.ids_L)[None].to(self.model.device)
        mask = torch.ones_like(ids_1L)
        answer = self.model.generate(ids_1L, attention_mask=mask, max_new_tokens=length, images=prompt, **self.options)  # pyright: ignore[reportAttributeAccessIssue]
        stages = self.laps.split()
        assert isinstance(answer, Tensor)
        return PeerAnswer(ids_N=answer[0, ids_1L.shape[1] :].cpu().numpy(), forwards=self.model.forwards, stages_ms=stages)
