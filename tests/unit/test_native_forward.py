"""The compiled decoder: it computes what torch computes, each token alike alone and in company, and torch is there where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from model_core.engine import native_forward
from model_core.engine.automaton import CompactGrammar
from model_core.engine.cache import RowCache, RowPart
from model_core.engine.decode import DecodingEngine
from model_core.engine.forward import BlockForward
from model_core.engine.kernels import compiled
from model_core.engine.kernels.native_decoder import Tokens
from model_core.engine.native_forward import NativeForward, make_forward
from model_core.engine.numerics import measure_numerics
from model_core.engine.resources import EngineOptions
from model_core.network.config import LlmConfig
from model_core.network.model import MolmoAct
from model_core.network.queries import ActionHead
from model_core.spec.errors import SpecError
from model_core.tiny import TinySize, tiny_config, tiny_layout
from model_core.tokenization.compact.layout import ReasoningMode
from tests.engine_data import CONTRACT, ask, flat_costs
from tests.tiny_arm_data import INSTRUCTIONS

# whole panels on every processor, AVX-512's included; two query heads share a key head
SIZE = TinySize(width=64, layers=2, heads=2, kv_heads=1, feed_forward=96, projector=32, stem=(4, 8, 16))
LAYOUT = tiny_layout(CONTRACT, SIZE, INSTRUCTIONS)
GRAMMAR = CompactGrammar(LAYOUT)
LENGTH = 60

pytestmark = pytest.mark.skipif(compiled.decoder_library() is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(head: ActionHead = ActionHead.CAUSAL, **llm) -> MolmoAct:
    config = tiny_config(LAYOUT, SIZE, head)
    model = MolmoAct(replace(config, llm=LlmConfig(**{**vars_of(config.llm), **llm}))).eval()
    model.init_weights(0, std=0.2)
    with torch.no_grad():  # norms that do something, and an argmax that rounding cannot decide
        for name, weight in model.named_parameters():
            if "norm" in name or "ln_f" in name or name.endswith("bias"):
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
        model.lm_head.weight.mul_(20)
    return model


def vars_of(llm: LlmConfig) -> dict:
    return {name: getattr(llm, name) for name in llm.__slots__}


def both(model: MolmoAct) -> tuple[NativeForward, BlockForward]:
    native = make_forward(model, GRAMMAR, max_length=LENGTH, dtype=torch.float32, constrained=True)
    assert isinstance(native, NativeForward)
    return native, BlockForward(model, GRAMMAR, max_length=LENGTH, dtype=torch.float32, constrained=True, packed=False)


def embedded(forward: BlockForward, count: int, seed: int = 0) -> torch.Tensor:
    ids_n = torch.randint(len(forward.head_ids), (count,), generator=torch.Generator().manual_seed(seed))
    return forward.embed(torch.tensor(forward.head_ids)[ids_n])


def caches(*forwards: BlockForward) -> Iterator[tuple[BlockForward, RowCache]]:
    for forward in forwards:
        yield forward, RowCache(forward.config, capacity=3, length=LENGTH, dtype=torch.float32)


@pytest.mark.parametrize("llm", [{}, {"use_rope": True}, {"qkv_bias": True, "num_slots": 0}], ids=["slots", "rotary", "bias"])
@torch.inference_mode()
def test_blocks_rows_prompts_and_placeholders_are_those_of_torch(llm):
    found = []
    for forward, cache in caches(*both(network(**llm))):
        x_LD, places_L = embedded(forward, 50), torch.arange(50)
        prompt = forward.row_block(x_LD[:20], places_L[:20], cache, RowPart(row=0, start=0, real=20, cut=17))
        forward.row_block(x_LD[:31], places_L[:31], cache, RowPart(row=1, start=0, real=29))  # two of them padding
        shown = forward.row_block(x_LD[20:33], places_L[20:33], cache, RowPart(row=0, start=20, real=13, queries=8, unseen=3))
        positions_BW = torch.tensor([[20, 21, 22], [29, 30, LENGTH]])  # padding in the second row
        flat = torch.tensor([20, 21, 22, 29, 30, 0])
        rows = forward.rows_block(x_LD[flat], places_L[flat], positions_BW, cache, cache.places)[:5]
        found.append(torch.cat([prompt, shown, rows]))
    assert (found[0] - found[1]).abs().max() < 1e-5


@torch.inference_mode()
def test_a_token_has_the_same_bits_alone_in_blocks_and_among_rows():
    native, _ = both(network())
    assert measure_numerics(native, LENGTH).bitwise
    assert measure_numerics(native, LENGTH).tile == 1


@torch.inference_mode()
def test_choices_are_those_of_the_whole_head_and_its_mask():
    native, reference = both(network())
    groups = [number * len(GRAMMAR.groups) // 40 for number in range(40)]
    x_LD, (_, cache) = embedded(native, 40), next(caches(native))
    rows, logits, margins = native.decide(Tokens([-1] * 40, [*range(40)], [*range(40)], [0] * 40), x_LD, groups, cache)
    hidden_LD = native.row_block(x_LD, torch.arange(40), cache, RowPart(row=1, start=0, real=40))
    expected = reference.choose_with_margin(hidden_LD, torch.tensor(groups))
    assert rows == expected[1].tolist()
    assert np.allclose(logits, expected[0], atol=1e-3)
    assert np.allclose(margins, expected[2], atol=1e-3)


@torch.inference_mode()
def test_of_equal_logits_the_first_is_chosen_and_nan_comes_out():
    model = network()
    model.lm_head.weight.zero_()
    native, _ = both(model)
    x_LD, (_, cache) = embedded(native, 3), next(caches(native))
    x_LD[2] = torch.nan
    rows, logits, margins = native.decide(Tokens([-1] * 3, [0, 1, 0], [0, 1, 0], [0, 0, 1]), x_LD, [1, 2, 2], cache)
    assert rows[:2] == [native.head_ids.index(GRAMMAR.groups[group][0]) for group in (1, 2)]
    assert (logits[:2], margins[:2]) == ([0.0, 0.0], [0.0, 0.0])
    assert np.isnan(logits[2])


@pytest.mark.parametrize("head", [ActionHead.CAUSAL, ActionHead.BOTH, ActionHead.PARALLEL])
def test_engines_with_and_without_it_answer_alike(head, monkeypatch):
    model, options = network(head), EngineOptions(costs=flat_costs(1, 8, 48))
    requests = [ask(row, mode) for row, mode in enumerate((ReasoningMode.FULL, ReasoningMode.ACTION, ReasoningMode.STEERED))]
    native = DecodingEngine(model, LAYOUT, options)
    assert isinstance(native.forward, NativeForward)
    monkeypatch.setattr(native_forward, "decoder_library", lambda: None)
    torchs = DecodingEngine(model, LAYOUT, options)
    assert type(torchs.forward) is BlockForward
    answers, expected = native.decode(requests), torchs.decode(requests)
    assert [a.ids_L.tolist() for a in answers.answers] == [a.ids_L.tolist() for a in expected.answers]
    alone = [native.decode([request]).answers[0].ids_L.tolist() for request in requests]
    assert alone == [a.ids_L.tolist() for a in answers.answers]


def test_what_it_cannot_compute_is_left_to_torch(monkeypatch):
    kinds = {"max_length": LENGTH, "dtype": torch.float32, "constrained": True}
    for llm in ({"use_qk_norm": True}, {"norm_after": True}, {"hidden_act": "gelu"}, {"intermediate_size": 72}):
        assert type(make_forward(network(**llm), GRAMMAR, **kinds)) is BlockForward
    assert type(make_forward(network(), GRAMMAR, **{**kinds, "dtype": torch.bfloat16})) is BlockForward
    monkeypatch.setattr(native_forward, "_MOST_WEIGHTS", 10)
    assert type(make_forward(network(), GRAMMAR, **kinds)) is BlockForward


def test_a_decoder_that_disagrees_with_torch_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(native_forward, "_TOLERANCE", 0.0)
    forward = make_forward(network(), GRAMMAR, max_length=LENGTH, dtype=torch.float32, constrained=True)
    assert type(forward) is BlockForward
    assert "decoder.not_used" in caplog.text


def test_tokens_behind_the_end_of_the_cache_are_refused():
    native, _ = both(network())
    cache = RowCache(native.config, capacity=1, length=LENGTH, dtype=torch.float32)
    with pytest.raises(SpecError, match="allocate a longer one"):
        native.row_block(embedded(native, 4), torch.arange(4), cache, RowPart(row=0, start=LENGTH - 2, real=4))


# ---- the library


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """`decoder_library` as if nothing was compiled yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return compiled.decoder_library.__wrapped__


def test_without_a_compiler_there_is_no_library(fresh, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level("INFO", logger=compiled.logger.name):
        assert fresh() is None
    assert "Fix: install cc" in caplog.text


def test_a_compiler_that_fails_is_reported_and_leaves_nothing(fresh, monkeypatch, caplog, tmp_path):
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert fresh() is None
    assert "no such flag" in caplog.text
    assert list((tmp_path / ".cache" / "actwright").iterdir()) == []


def test_a_cache_that_others_may_write_is_not_trusted(fresh, caplog, tmp_path):
    (tmp_path / ".cache" / "actwright").mkdir(mode=0o700, parents=True)
    (tmp_path / ".cache" / "actwright").chmod(0o777)
    assert fresh() is None
    assert "only this user may write" in caplog.text


def test_a_library_is_compiled_once_and_loaded_from_there(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "_FLAGS", ("-O0", *compiled._FLAGS[2:]))
    assert fresh() is not None
    (library,) = (tmp_path / ".cache" / "actwright").iterdir()
    before = library.stat().st_mtime_ns
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fresh().actwright_lanes() in (4, 8, 16)
    assert library.stat().st_mtime_ns == before
    assert library.parent.stat().st_mode & 0o777 == 0o700
