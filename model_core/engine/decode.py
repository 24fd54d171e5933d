"""The decoding engine: requests in, results out, by blocks of drafted tokens that the model itself verifies (speculative decoding).

    prompt and first drafts       one forward (prefill)
    then, block by block          pending tokens and drafts; what the model chose itself stands, the rest is dropped

Greedy and exact: with `exact` the result is, token by token, the one of plain decoding (`speculate=False`) of the same engine.
`decode` answers a list of requests; `open_round` lets rows join and leave between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model_core.engine.answer import DecodeResult
from model_core.engine.decode_request import Drafts
from model_core.engine.resources import EngineResources
from model_core.engine.rounds.round import AnswerRound
from model_core.spec.errors import require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """Results in the order of the requests, and where the time of all of them went (vision, prefill, depth, trace, action)."""

    answers: tuple[DecodeResult, ...]
    timing_ms: Mapping[str, float] = field(default_factory=dict)


class DecodingEngine(EngineResources):
    """Decodes requests with a model in a language (`CompactLanguage` where a layout is given). See `EngineOptions`."""

    def decode(self, requests: Sequence[Any], drafts: Sequence[Drafts | None] | None = None) -> Decoded:
        """Decode all requests together.

        Raises `GrammarError` for a given part that its mode does not take, or (faithful mode) an answer that is not in the
        language; `NotFiniteError` for NaN or inf.
        """
        require(len(requests) > 0, "nothing to decode: give at least one request")
        together = self.open_round(min(len(requests), self.capacity))
        try:
            keys = [together.join(request, d) for request, d in zip(requests, drafts or [None] * len(requests), strict=True)]
            found: dict[int, DecodeResult] = {}
            while together.active:
                for key, outcome in together.step():
                    if not isinstance(outcome, DecodeResult):
                        raise outcome
                    found[key] = outcome
        finally:
            together.close()
        answers = tuple(found[key] for key in keys)
        stages = dict.fromkeys(stage for answer in answers for stage in answer.timing_ms)
        return Decoded(answers=answers, timing_ms={stage: sum(a.timing_ms.get(stage, 0.0) for a in answers) for stage in stages})

    def open_round(self, capacity: int | None = None) -> AnswerRound:
        """Begin to decode for up to `capacity` rows that join and leave between blocks."""
        return AnswerRound(self, capacity or self.capacity)
