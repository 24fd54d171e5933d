"""The engine that the service runs gives the published code's greedy generations, with drafts, alone and in one round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model_core.engine.automaton import REFUSED, Stage
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts, Prompt
from model_core.engine.numerics import Numerics
from model_core.engine.resources import EngineOptions
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.model import MolmoAct
from model_core.spec.types import ActionReasoning, Trace
from tests.engine_data import flat_costs

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
STEPS = 24


class AnyIds:
    """A grammar of `STEPS` ids, each any of the head's. State: how many stand."""

    def __init__(self, rows: int) -> None:
        self.done, self.groups = STEPS, (np.arange(rows),)

    def group(self, state: int) -> int:
        return 0

    def after(self, state: int, token: int) -> int:
        return state + 1

    def stage(self, state: int) -> Stage:
        return Stage.ACTION

    def place(self, state: int, index: int) -> int:
        return index

    def echo(self, state: int) -> int:
        return REFUSED


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One row of the recording without its padding, as a question. Satisfies `Question`."""

    ids_L: NDArray[np.int64]
    images: torch.Tensor
    windows: torch.Tensor
    views: tuple[NDArray[np.uint8], ...] = ()
    asked: str = ""
    depth: None = None
    is_steered: bool = False
    is_given: bool = False


class RecordedLanguage:
    """Prompts of the recording; answers are ids. Satisfies `Language` as far as decoding without parsing needs it."""

    def __init__(self, model: MolmoAct, longest: int) -> None:
        self.grammar, self.max_length = AnyIds(model.config.llm.vocab_size), longest + STEPS

    def prompt(self, question: Recorded) -> Prompt:
        return Prompt(
            ids_L=question.ids_L, places_L=np.arange(len(question.ids_L)), images=question.images, pooled_patches_idx=question.windows
        )

    def begin(self, question: Recorded) -> int:
        return 0

    def given(self, question: Recorded) -> dict[int, int]:
        return {}

    def encode(self, reasoning: ActionReasoning, question: Recorded, *, shift: int = 0) -> dict[int, int]:
        return {}

    def parse(self, ids: Any, question: Recorded) -> ActionReasoning:
        return ActionReasoning(depth=None, trace=None, bins_KA=np.ones((1, 1), np.int64))

    def read(self, stage: Stage, ids: Any, question: Recorded) -> Trace:
        return Trace(points_N2=np.zeros((1, 2), np.int64))


@pytest.mark.parametrize("family", ["tiny_d", "tiny_o"])
def test_the_published_generation_alone_in_a_round_and_with_drafts(family: str):
    torch.set_num_threads(1)
    model, io = load_pretrained(GOLDEN / family, dtype=torch.float32), load_file(GOLDEN / family / "io.safetensors")
    expected, ids_L = io["generated"][0].tolist(), io["input_ids"][0].numpy()
    images = {"images": io["images"], "windows": io["pooled_patches_idx"]}
    question = Recorded(ids_L=ids_L, **images)
    shorter = [Recorded(ids_L=ids_L[:-cut], **images) for cut in (1, 2)]  # the image's tokens stand before
    language: Any = RecordedLanguage(model, len(ids_L))
    options: dict[str, Any] = {"constrained": False, "costs": flat_costs(1, 4, 16), "numerics": Numerics(tile=4, bound=0.0)}
    engine = DecodingEngine(model, language, EngineOptions(**options))
    assert engine.decode([question]).answers[0].ids_L.tolist() == expected
    plain = DecodingEngine(model, language, EngineOptions(speculate=False, **options))
    alone = [plain.decode([one]).answers[0].ids_L.tolist() for one in (question, *shorter)]
    assert alone[0] == expected
    together = engine.decode([shorter[0], question, shorter[1]]).answers
    assert [answer.ids_L.tolist() for answer in together] == [alone[1], expected, alone[2]]
    drafted = engine.decode([question], [Drafts(ids=dict(enumerate(expected)))]).answers[0]
    assert drafted.ids_L.tolist() == expected
    assert drafted.counts["forwards"] < STEPS / 2
    wrong = {place: (token + place % 3) % model.config.llm.vocab_size for place, token in enumerate(expected)}
    assert engine.decode([question], [Drafts(ids=wrong)]).answers[0].ids_L.tolist() == expected
