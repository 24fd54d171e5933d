"""Blocks of guesses: what they cost, when they pay, and that they never change an answer."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.engine.automaton import Stage
from model_core.engine.cache import RowCache, RowPart
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts
from model_core.engine.forward import BlockForward
from model_core.engine.numerics import Numerics, measure_numerics
from model_core.engine.resources import EngineOptions
from model_core.engine.rounds.window import Acceptance, CostCurve, Source, best_width
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.model import MolmoAct
from model_core.tokenization.compact.layout import Field, ReasoningMode
from tests.engine_data import GRAMMAR, LAYOUT, MODEL, ONE_ROW, ask, by_state, flat_costs, make_engine, other_id, random_drafts

GOLDEN = Path(__file__).parents[1] / "golden" / "model"


@cache
def plain_engine() -> DecodingEngine:
    return make_engine(speculate=False)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# ---- the forward


class Anything:
    """A grammar in which everything may be said."""

    def __init__(self, ids: int) -> None:
        self.groups = (np.arange(ids),)


def golden_network(family: str, attention: str) -> MolmoAct:
    return load_pretrained(GOLDEN / family, attention=attention)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["tiny_d", "tiny_o", "ours"])
@torch.inference_mode()
def test_the_engine_computes_what_the_network_computes(family, attention, packed):
    # the golden two: norms before and after, QK-norm, biases, shared key heads
    model = MODEL if family == "ours" else golden_network(family, attention)
    forward = BlockForward(
        model, Anything(model.config.llm.vocab_size), max_length=40, dtype=torch.float32, constrained=False, packed=packed
    )
    ids_2L = torch.randint(model.config.llm.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    places_2L = torch.arange(20).expand(2, -1)
    expected_2LX = model.logits(model.trunk(model.embed(ids_2L), places_2L))
    scale = float(expected_2LX.abs().max())
    cache = RowCache(model.config.llm, capacity=4, length=40, dtype=torch.float32)
    read = (7, 12)  # rows that stand at different places
    for row, length in enumerate(read):
        hidden = forward.row_block(
            forward.embed(ids_2L[row, :length]), places_2L[row, :length], cache, RowPart(row=row, start=0, real=length)
        )
        assert (forward.head(hidden) - expected_2LX[row, :length]).abs().max() < 1e-4 * scale
    positions_BW = torch.tensor([[7, 8, 9, 10], [12, 13, 40, 40]])  # the second row has two tokens and padding
    flat = torch.stack([ids_2L[0, 7:11], torch.cat([ids_2L[1, 12:14], ids_2L[1, :2]])]).flatten()
    hidden = forward.rows_block(forward.embed(flat), positions_BW.clamp(max=19).flatten(), positions_BW, cache, 41)
    logits = forward.head(hidden).view(2, 4, -1)
    assert (logits[0] - expected_2LX[0, 7:11]).abs().max() < 1e-4 * scale
    assert (logits[1, :2] - expected_2LX[1, 12:14]).abs().max() < 1e-4 * scale


def test_numerics_are_measured_and_a_difference_becomes_a_bound(monkeypatch):
    forward = BlockForward(MODEL, GRAMMAR, max_length=LAYOUT.max_length, dtype=torch.float32, constrained=True)
    found = measure_numerics(forward, LAYOUT.max_length)
    assert found.bound >= 0
    assert found.tile >= 1
    honest = forward.row_block

    def rows_matter(x_WD: Tensor, *rest) -> Tensor:
        return honest(x_WD, *rest) + 1e-3 * len(x_WD)

    monkeypatch.setattr(forward, "row_block", rows_matter)
    dishonest = measure_numerics(forward, LAYOUT.max_length)
    assert not dishonest.bitwise
    assert dishonest.tile == 1


# ---- guesses never change an answer


RANDOM_DRAFTS = {
    "seed": st.integers(0, 2**32 - 1),
    "refine": st.booleans(),
    "width": st.sampled_from([1, 3, 8, 64, 256]),
    "mode": st.sampled_from(list(ReasoningMode)),
}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(**RANDOM_DRAFTS)
def test_random_drafts_never_change_an_answer(seed, refine, width, mode):
    check_random_drafts(seed, refine, width, mode)


@pytest.mark.soak  # short: fewer of them above
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(**RANDOM_DRAFTS)
def test_many_random_drafts_never_change_an_answer(seed, refine, width, mode):
    check_random_drafts(seed, refine, width, mode)


def check_random_drafts(seed, refine, width, mode):
    rng = np.random.default_rng(seed)
    engine = make_engine(refine=refine, costs=flat_costs(1, width))
    questions = [ask(int(row), mode) for row in rng.integers(0, 16, 2)]
    drafted = engine.decode(questions, [Drafts(ids=random_drafts(rng)) for _ in questions]).answers
    for question, answer in zip(questions, drafted, strict=True):
        assert np.array_equal(answer.ids_L, plain_engine().decode([question]).answers[0].ids_L)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exact_engine_measures_this_machine_and_keeps_its_promise(dtype):
    plain, exact = (DecodingEngine(MODEL, LAYOUT, EngineOptions(dtype=dtype, speculate=speculate)) for speculate in (False, True))
    questions, rng = [ask(row) for row in range(3)], np.random.default_rng(5)
    expected = [plain.decode([question]).answers[0].ids_L for question in questions]
    answers = exact.decode(questions, [Drafts(ids=random_drafts(rng)) for _ in questions]).answers
    assert all(np.array_equal(answer.ids_L, ids_L) for answer, ids_L in zip(answers, expected, strict=True))


def tied_model() -> MolmoAct:
    """Depth codes, coordinates and bins come in pairs that no hidden state can tell apart: every choice is a tie."""
    model, vocabulary = deepcopy(MODEL), LAYOUT.vocabulary
    with torch.no_grad():
        for ids in (vocabulary.depth, vocabulary.trace, vocabulary.action):
            head = model.lm_head.weight[ids.start : ids.stop]
            head[1::2] = head[: 2 * (len(head) // 2) : 2]
    return model


TILED, BOUNDED = Numerics(tile=4, bound=0.0), Numerics(tile=1, bound=1e-3)


@pytest.mark.parametrize(
    ("dtype", "numerics"),
    [
        (torch.float32, TILED),
        (torch.float32, BOUNDED),
        pytest.param(torch.bfloat16, BOUNDED, marks=pytest.mark.soak),  # short: each kind of numerics here, the other format above
        pytest.param(torch.bfloat16, TILED, marks=pytest.mark.soak),
    ],
)
def test_ties_are_broken_alike_in_blocks_batches_and_alone(dtype, numerics):
    model, rng = tied_model(), np.random.default_rng(6)
    plain, exact = (make_engine(model, dtype=dtype, numerics=numerics, speculate=speculate) for speculate in (False, True))
    questions = [ask(row, mode) for row, mode in enumerate([ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.FULL])]
    expected = [plain.decode([question]).answers[0].ids_L for question in questions]
    together = exact.decode(questions, [Drafts(ids=random_drafts(rng)) for _ in questions]).answers
    alone = [exact.decode([question], [Drafts(ids=random_drafts(rng))]).answers[0] for question in questions]
    for one, two, ids_L in zip(together, alone, expected, strict=True):
        assert np.array_equal(one.ids_L, ids_L)
        assert np.array_equal(two.ids_L, ids_L)


@pytest.mark.parametrize(("bound", "all_of_them"), [(1e9, True), (0.5, False)])
def test_a_guarded_position_is_computed_again_alone(bound, all_of_them):
    guarded = make_engine(numerics=Numerics(tile=1, bound=bound))
    questions = [ask(row, mode) for row, mode in enumerate([ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.FULL])]
    for question, answer in zip(questions, guarded.decode(questions).answers, strict=True):
        plain = make_engine(speculate=False, numerics=ONE_ROW).decode([question]).answers[0]
        assert np.array_equal(answer.ids_L, plain.ids_L)
        assert answer.counts["guarded"] > 0
        assert (answer.counts["guarded"] >= len(answer.ids_L) - 2) == all_of_them
        assert plain.counts["guarded"] == 0


# ---- what blocks cost


class Sure(Acceptance):
    """Believes every guess, so that only the truth limits a block."""

    def rates_at(self, state: int, stage: Stage) -> list[tuple[float, int]]:
        return [(1.0, source) for source in Source]


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_forwards_fall_as_theory_says(chance):
    """E = 1 + N (1 - p): every wrong guess costs one more forward, whatever stands around it."""
    engine, rng = make_engine(refine=False, echo=False), np.random.default_rng(int(chance * 100))
    said = by_state(plain_engine().decode([ask(0)]).answers[0])
    last = max(said)
    wrong = {state for state in said if rng.random() > chance and state != last and other_id(state, said[state]) != said[state]}
    drafts = {state: other_id(state, token) if state in wrong else token for state, token in said.items()}
    began = engine.open_round(1)
    began.join(ask(0), Drafts(ids=drafts), acceptance=Sure())
    answer = next(iter(run(began).values()))
    assert answer.counts["forwards"] == 1 + len(wrong)
    judged = sum(answer.counts[f"drafted.{stage}"] for stage in ("depth", "trace", "action"))
    accepted = sum(answer.counts[f"accepted.{stage}"] for stage in ("depth", "trace", "action"))
    assert judged - accepted == len(wrong)
    assert by_state(answer) == said


def run(began) -> dict:
    found = {}
    while began.active:
        found.update(began.step())
    return found


def test_plain_decoding_is_one_forward_a_token():
    answer = plain_engine().decode([ask(1)]).answers[0]
    forced = LAYOUT.slots[Field.TRACE].stop - 1 in by_state(answer)  # the end of a full trace has no alternative
    assert answer.counts["forwards"] == len(answer.ids_L) - forced
    assert "drafted.depth" not in answer.counts


def test_refining_looks_at_the_rest_of_a_draft_while_it_is_wrong():
    said = by_state(plain_engine().decode([ask(0)]).answers[0])
    drafts = {state: other_id(state, token) for state, token in said.items()}
    drafts |= dict(list(said.items())[:1])
    forwards = {
        refine: make_engine(refine=refine, echo=False).decode([ask(0)], [Drafts(ids=drafts)]).answers[0].counts["forwards"]
        for refine in (False, True)
    }
    assert forwards[True] <= forwards[False]


def test_speculation_switches_itself_off_where_it_does_not_pay():
    steep = CostCurve(lambda rows, width: float(width), widths=(1, 4, 16, 64), passes=1)
    engine, rng = make_engine(costs=steep, numerics=ONE_ROW), np.random.default_rng(0)
    for row in range(3):
        answer = engine.decode([ask(row)], [Drafts(ids=random_drafts(rng))]).answers[0]
    plain = make_engine(speculate=False, numerics=ONE_ROW).decode([ask(2)]).answers[0]
    assert answer.counts["forwards"] == plain.counts["forwards"]
    assert engine.acceptance.rate(Stage.DEPTH, Source.DRAFT) < 0.2  # seen without a single guess having been fed


def test_the_width_of_most_ids_per_millisecond():
    def gains(p: float) -> list[float]:
        return list(np.cumsum(p ** np.arange(128)))

    curve = {1: 1.0, 4: 1.2, 16: 2.0, 64: 6.0, 128: 12.0}
    assert best_width(curve, [gains(0.0)]) == 1
    assert best_width(curve, [gains(0.5)]) == 4
    assert best_width(curve, [gains(0.97)]) == 16
    assert best_width({1: 1.0, 128: 1.01}, [gains(0.5)]) == 128
    assert best_width({1: 1.0, 4: 4.0}, [gains(0.99)]) == 1  # dear blocks: never slower than plain
    assert best_width(curve, [[1.0]]) == 1  # nothing to feed


def test_noise_in_a_measurement_chooses_nothing():
    times = iter([1.0, 5.0, 3.0, 2.0, 6.0, 9.0])  # two passes over three widths: other work fell on the second both times
    curve = CostCurve(lambda rows, width: next(times), widths=(1, 4, 16), passes=2)
    assert dict(curve.at(1)) == {1: 1.0, 4: 3.0, 16: 3.0}
    assert curve.known() == {1: {1: 1.0, 4: 3.0, 16: 3.0}}


def test_acceptance_forgets_and_tells_places_apart():
    seen = Acceptance()
    for _ in range(600):
        seen.note(7, Stage.DEPTH, Source.DRAFT, True)
        seen.note(8, Stage.DEPTH, Source.DRAFT, False)
    assert seen.rate(Stage.DEPTH, Source.DRAFT) == pytest.approx(0.5, abs=0.05)
    still, moving = ({s: r for r, s in seen.rates_at(state, Stage.DEPTH)}[Source.DRAFT] for state in (7, 8))
    assert still > 0.8
    assert moving < 0.2
    for _ in range(2000):
        seen.note(8, Stage.DEPTH, Source.DRAFT, True)
    assert seen.rate(Stage.DEPTH, Source.DRAFT) > 0.95


def test_what_is_learnt_of_places_is_bounded(monkeypatch):
    monkeypatch.setattr("model_core.engine.rounds.window._MOST_PLACES", 60)
    seen = Acceptance()
    table = seen.recent  # rows hold on to it
    for state in range(1000):
        seen.note(state, Stage.TRACE, Source.DRAFT, True)
        seen.note_answer({state: 1})
    assert len(seen._places) <= 60
    assert len(table) <= 60
    assert table is seen.recent
    assert seen.rate(Stage.TRACE, Source.DRAFT) > 0.95


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_blocks_say_what_eager_ones_say():
    model = deepcopy(MODEL).cuda()
    plain, blocks = (make_engine(model, speculate=speculate, numerics=ONE_ROW) for speculate in (False, True))
    rng = np.random.default_rng(0)
    questions = [ask(row) for row in range(5)]
    together = blocks.decode(questions, [Drafts(ids=random_drafts(rng)) for _ in questions]).answers
    for question, answer in zip(questions, together, strict=True):
        assert np.array_equal(answer.ids_L, plain.decode([question]).answers[0].ids_L)
        assert np.array_equal(answer.ids_L, plain_engine().decode([question]).answers[0].ids_L)


# ---- the same arithmetic by other kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_vision_backbone_see_what_the_network_sees(dtype):
    engine = DecodingEngine(MODEL, LAYOUT, EngineOptions(dtype=dtype))
    prompt = engine.language.prompt(ask(0))
    seen_ND = engine.features(prompt)
    engine.vision = MODEL.model.vision_backbone
    expected_ND = engine.features(prompt)
    assert seen_ND is not None
    assert expected_ND is not None
    scale = float(expected_ND.float().abs().max())
    assert (seen_ND.float() - expected_ND.float()).abs().max() <= (1e-5 if dtype is torch.float32 else 2e-2) * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_part_of_the_head_chooses_as_the_whole_head(dtype):
    forward = BlockForward(MODEL, GRAMMAR, max_length=LAYOUT.max_length, dtype=dtype, constrained=True)
    hidden_nD = torch.randn(5, MODEL.config.llm.hidden_size, generator=torch.Generator().manual_seed(3)).to(dtype)
    parts = set()
    for group in range(len(GRAMMAR.groups)):
        groups_n, part = torch.full((5,), group), forward.part_of([group] * 5)
        whole, cut = forward.choose(hidden_nD, groups_n), forward.choose(hidden_nD, groups_n, part)
        assert all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))
        assert all(forward.head_ids[row] in GRAMMAR.groups[group] for row in cut[1].tolist())
        parts.add(part)
    if parts != {None}:  # where a product's numbers depend on its width, there are none
        assert len(parts) == 3  # depth, trace and actions
        assert forward.part_of([GRAMMAR.group(GRAMMAR.done - 1), GRAMMAR.group(LAYOUT.first_slot(ReasoningMode.FULL))]) is None
