"""The action block at run time: a parallel policy says what the network's placeholders choose; as a draft it never changes an answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model_core.checkpoint import load_checkpoint, write_checkpoint
from model_core.engine.automaton import Stage
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import DecodeRequest, Drafts
from model_core.engine.resources import EngineOptions
from model_core.engine.rounds.parallel import BlockUse, milliseconds_to_decode
from model_core.engine.rounds.window import CostCurve, Source
from model_core.network.queries import ActionHead, block_visibility
from model_core.policy import load_policy
from model_core.spec.types import DecisionRequest, DepthTokens, Observation, Trace
from model_core.tiny import TinySize, new_tiny_model
from model_core.tokenization.compact.layout import Field, ReasoningMode
from model_core.training import hidden_states
from tests.tiny_arm_data import INSTRUCTIONS, SMALL, make_samples, make_small_contract, make_small_model

CONTRACT = make_small_contract()
_, LAYOUT = make_small_model(CONTRACT)
SAMPLES = make_samples(6, seed=3)
ACTIONS = len(LAYOUT.slots[Field.ACTION])
MODES = (ReasoningMode.FULL, ReasoningMode.TRACE_ACTION, ReasoningMode.ACTION, ReasoningMode.STEERED)
# a fixed price list, so that tests of what is said take the same way on every machine
COSTS = CostCurve(lambda rows, width: 1.0 + 0.01 * width, widths=(1, 4, 16, 32, 64))


def make_model(head: ActionHead, seed: int = 0):
    model = new_tiny_model(LAYOUT, TinySize.of(SMALL), seed, head)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # louder logits make every argmax clear, so that rounding can't decide
    return model


PARALLEL, BOTH = make_model(ActionHead.PARALLEL), make_model(ActionHead.BOTH)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def ask(row: int, mode: ReasoningMode = ReasoningMode.FULL, **given) -> DecodeRequest:
    if mode is ReasoningMode.STEERED:
        given.setdefault("trace", Trace(points_N2=np.array([[10 * row, 20], [30, 40]])))
    return DecodeRequest(
        images_VHW3=SAMPLES["images_NVHW3"][row],
        words_W=LAYOUT.instruction_ids(INSTRUCTIONS[row % 2]),
        proprio_bins_P=np.array([10, 80, 150, 220]) + row,
        mode=mode,
        **given,
    )


def slots_of(ids_L: np.ndarray, mode: ReasoningMode) -> list[int]:
    slots = [LAYOUT.first_slot(mode)]
    for token in ids_L[:-1]:
        slots.append(int(LAYOUT.next_slots(np.array(slots[-1:]), np.array([token]))[0]))
    return slots


def said_by_the_network(question: DecodeRequest, ids_L: np.ndarray) -> np.ndarray:
    """What placeholders after the answer's own reasoning choose, by the training-time forward and its mask."""
    before = ids_L[:-ACTIONS]
    prompt = LAYOUT.prompts(question.words_W[None], question.proprio_bins_P[None], question.mode)[0]
    ids = np.concatenate([prompt, before, np.full(ACTIONS, LAYOUT.vocabulary.query_id)])
    places = np.concatenate([np.arange(len(prompt)), slots_of(ids_L, question.mode)])
    length = len(prompt) + len(before)
    seen = block_visibility(torch.ones(1, length, dtype=torch.bool), new=length, queries=ACTIONS)
    pictures = torch.from_numpy(question.images_VHW3[None])
    with torch.inference_mode():
        hidden = hidden_states(PARALLEL, pictures, torch.from_numpy(ids)[None], torch.from_numpy(places)[None], LAYOUT, seen)
        bins = LAYOUT.vocabulary.action
        return bins.start + PARALLEL.logits(hidden)[0, -ACTIONS:, bins.start : bins.stop].argmax(-1).numpy()


@pytest.mark.parametrize("mode", MODES)
def test_a_parallel_policy_says_what_the_placeholders_choose(mode):
    question = ask(1, mode)
    answer = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(costs=COSTS)).decode([question]).answers[0]
    assert np.array_equal(answer.ids_L[-ACTIONS:], said_by_the_network(question, answer.ids_L))
    causal = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(costs=COSTS, block=BlockUse.NONE)).decode([question]).answers[0]
    assert np.array_equal(answer.ids_L[:-ACTIONS], causal.ids_L[:-ACTIONS]), "depth and trace are said as ever"
    assert not np.array_equal(answer.ids_L, causal.ids_L), "and the block is another policy"
    if mode in (ReasoningMode.ACTION, ReasoningMode.STEERED):
        assert answer.counts["forwards"] == 1, "prompt, given trace and block in one"


def test_a_row_does_not_depend_on_its_neighbours_or_on_drafts():
    questions = [ask(row, MODES[row % 4]) for row in range(4)]
    engine = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(costs=COSTS))
    together = engine.decode(questions).answers
    rng = np.random.default_rng(0)
    for question, answer in zip(questions, together, strict=True):
        assert np.array_equal(engine.decode([question]).answers[0].ids_L, answer.ids_L)
        plain = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(speculate=False)).decode([question]).answers[0]
        assert np.array_equal(plain.ids_L, answer.ids_L)
        noise = Drafts(ids={s: int(rng.integers(LAYOUT.allowed_start_S[s], LAYOUT.allowed_stop_S[s])) for s in range(40, LAYOUT.num_slots)})
        assert np.array_equal(engine.decode([question], [noise]).answers[0].ids_L, answer.ids_L)


@pytest.mark.parametrize("mode", MODES)
def test_a_draft_never_changes_an_answer(mode):
    questions = [ask(row, mode) for row in range(3)]
    drafted = DecodingEngine(BOTH, LAYOUT, EngineOptions(costs=COSTS))
    together = drafted.decode(questions).answers
    for question, answer in zip(questions, together, strict=True):
        plain = DecodingEngine(BOTH, LAYOUT, EngineOptions(speculate=False)).decode([question]).answers[0]
        assert np.array_equal(plain.ids_L, answer.ids_L)
    assert drafted.acceptance.seen.get((Stage.ACTION, Source.BLOCK)), "the block was read and judged"


def test_committed_rows_stand_and_are_not_seen():
    committed = np.full((2, 4), 77)
    question = ask(2, ReasoningMode.TRACE_ACTION)
    free = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(costs=COSTS)).decode([question]).answers[0].reasoning.bins_KA
    kept = (
        DecodingEngine(PARALLEL, LAYOUT, EngineOptions(costs=COSTS))
        .decode([replace(question, committed_DA=committed)])
        .answers[0]
        .reasoning.bins_KA
    )
    assert np.array_equal(kept[:2], committed)
    assert np.array_equal(kept[2:], free[2:]), "a block of placeholders does not read spelt actions"
    plain = DecodingEngine(BOTH, LAYOUT, EngineOptions(speculate=False)).decode([replace(question, committed_DA=committed)]).answers[0]
    drafted = DecodingEngine(BOTH, LAYOUT, EngineOptions(costs=COSTS)).decode([replace(question, committed_DA=committed)]).answers[0]
    assert np.array_equal(plain.ids_L, drafted.ids_L)


@pytest.mark.parametrize(("model", "use"), [(PARALLEL, BlockUse.PREDICT), (BOTH, BlockUse.DRAFT)])
def test_the_longest_answer_has_room(model, use):
    """All of depth and trace given, five points, and all rows but one committed: nothing is left but placeholders at the end."""
    depth = DepthTokens(codes_G=np.arange(100))
    trace = Trace(points_N2=np.arange(10).reshape(5, 2))
    for rows in (3, 4):
        question = ask(0, ReasoningMode.FULL, depth=depth, trace=trace, committed_DA=np.full((rows, 4), 9))
        answer = DecodingEngine(model, LAYOUT, EngineOptions(costs=COSTS, block=use)).decode([question]).answers[0]
        assert np.array_equal(answer.reasoning.bins_KA[:rows], np.full((rows, 4), 9))


def test_a_good_draft_saves_forwards_and_a_useless_one_is_left_alone():
    """The placeholders are made to agree with the causal choices by asking for what was said before."""
    question = ask(3, ReasoningMode.ACTION)
    engine = DecodingEngine(BOTH, LAYOUT, EngineOptions(costs=COSTS, refine=False, echo=False))
    plain = engine.decode([question]).answers[0]
    known = {state: int(token) for state, token in zip(_states(), plain.ids_L, strict=True)}
    assert engine.block is not None
    read = engine.block.read

    def knowing(*given, **more):
        made, row = read(*given, **more), given[0]
        row.block = dict(known)
        return made

    engine.block.read = knowing  # type: ignore[method-assign]
    helped = engine.decode([question]).answers[0]
    assert np.array_equal(helped.ids_L, plain.ids_L)
    assert helped.counts["forwards"] < plain.counts["forwards"] - 5

    useless = DecodingEngine(BOTH, LAYOUT, EngineOptions(costs=COSTS, refine=False, echo=False))
    reads = []
    assert useless.block is not None
    inner = useless.block.read
    useless.block.read = lambda *given, **more: (reads.append(1), inner(*given, **more))[1]  # type: ignore[method-assign]
    for _ in range(31):
        useless.decode([question])
    assert len(reads) <= 6, "an untrained block drafts nothing right, so it is read at the first answers only"


def _states() -> range:
    actions = LAYOUT.slots[Field.ACTION]
    return range(actions.start, actions.stop)


def test_time_to_say():
    curve = {1: 1.0, 4: 1.1, 32: 2.0}
    assert milliseconds_to_decode(32, 1.0, curve) == pytest.approx(2.0)
    assert milliseconds_to_decode(32, 0.0, curve) == pytest.approx(32.0)
    assert milliseconds_to_decode(32, 0.9, curve) < milliseconds_to_decode(32, 0.5, curve)


def test_a_checkpoint_becomes_its_kind_of_policy(tmp_path):
    request = DecisionRequest(
        observation=Observation(
            images={"front": SAMPLES["images_NVHW3"][0, 0]}, proprio_P=np.zeros(4, np.float32), instruction=INSTRUCTIONS[0]
        )
    )
    chunks = {}
    for head, model in ((ActionHead.PARALLEL, PARALLEL), (ActionHead.BOTH, BOTH)):
        contract = replace(CONTRACT, reasoning=replace(CONTRACT.reasoning, kind=head.kind))
        write_checkpoint(tmp_path / head, state=model.state_dict(), config=model.config, contract=contract)
        policy = load_policy(tmp_path / head)
        assert policy.contract.reasoning.kind == head.kind
        assert policy.engine.block is not None
        assert policy.engine.block.use is BlockUse.of(head)
        (decision,) = policy.answer([request])
        assert decision.chunk is not None
        chunks[head] = decision.chunk.actions_KA
        assert load_checkpoint(tmp_path / head).contract.contract_id == decision.contract_id
    assert not np.array_equal(chunks[ActionHead.PARALLEL], chunks[ActionHead.BOTH]), "equal weights, two kinds of policy"


def test_bfloat16():
    answer = DecodingEngine(PARALLEL, LAYOUT, EngineOptions(dtype=torch.bfloat16, costs=COSTS)).decode([ask(0)]).answers[0]
    assert answer.reasoning.bins_KA.shape == (4, 4)
    drafted = (
        DecodingEngine(BOTH, LAYOUT, EngineOptions(dtype=torch.bfloat16, costs=COSTS)).decode([ask(0, ReasoningMode.ACTION)]).answers[0]
    )
    plain = (
        DecodingEngine(BOTH, LAYOUT, EngineOptions(dtype=torch.bfloat16, speculate=False)).decode([ask(0, ReasoningMode.ACTION)]).answers[0]
    )
    assert np.array_equal(drafted.ids_L, plain.ids_L)


def test_every_level_of_a_parallel_policy(tmp_path):
    contract = replace(CONTRACT, reasoning=replace(CONTRACT.reasoning, kind="parallel"))
    write_checkpoint(tmp_path / "checkpoint", state=PARALLEL.state_dict(), config=PARALLEL.config, contract=contract)
    policy = load_policy(tmp_path / "checkpoint")
    seen = Observation(images={"front": SAMPLES["images_NVHW3"][0, 0]}, proprio_P=np.zeros(4, np.float32), instruction=INSTRUCTIONS[0])
    parts: list[str] = []
    last, said = None, {}
    for level in policy.contract.reasoning.levels:
        request = DecisionRequest(observation=seen, level=level, previous=last, consumed=2, on_part=lambda name, _: parts.append(name))
        (said[level],) = policy.answer([request])
        last = said["full"]
    assert all(decision.chunk is not None and decision.level == level for level, decision in said.items())
    assert parts[:2] == ["depth", "trace"], "parts are told before the block is read"
    assert np.array_equal(said["full"].chunk.actions_KA, said["reuse-depth"].chunk.actions_KA), "the same picture, the same depth"
    assert said["action"].counts["forwards"] == 1
