"""A checkpoint in the published layout behind the port: the same policy, the same requests, answers equal to the obvious loop."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.adoption.document import LanguageChoices, read_adoption
from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.decode import DecodingEngine
from model_core.engine.numerics import Numerics
from model_core.engine.resources import EngineOptions
from model_core.policy import PolicyOptions, ReasoningPolicy
from model_core.port.adopt import AdoptionRequest, adopt
from model_core.port.of_checkpoint import port_of
from model_core.port.published import drawn_image
from model_core.spec.execution.guard import Guarded
from model_core.spec.types import ActionReasoning, DecisionRequest, DepthTokens, Observation, RefusalCode, Trace
from model_core.tokenization.overlays.styles import training_overlay
from tests.engine_data import flat_costs
from tests.golden_road import arrays
from tests.plain_loop import plain_answer
from tests.published_checkpoint import KEY, published_body, published_config, published_network, teach, write_published_checkpoint

pytestmark = pytest.mark.xdist_group("published-policy")
LINE = Trace(points_N2=np.array([[20, 30], [200, 90], [220, 240]]))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "checkpoint"
    write_published_checkpoint(path)
    adopt(path, AdoptionRequest(embodiment=published_body(views=2), norm_key=KEY, chunk_length=2))
    return path


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def policy(checkpoint: Checkpoint) -> ReasoningPolicy:
    torch.set_num_threads(1)
    return fast_policy(checkpoint, "published/1")


def fast_policy(checkpoint: Checkpoint, model_version: str = "") -> ReasoningPolicy:
    """As `ReasoningPolicy.of`, with what an engine would measure of the machine given."""
    port = port_of(checkpoint)
    options = EngineOptions(constrained=port.constrained, costs=flat_costs(1, 16, 64), numerics=Numerics(tile=4, bound=0.0))
    engine = DecodingEngine(checkpoint.model, port.language, options)
    return ReasoningPolicy(checkpoint.model, port, checkpoint.contract, PolicyOptions(model_version=model_version), engine=engine)


def see(seed: int = 0, *, views: int = 2, instruction: str = "close the green drawer", size: int = 32, **changes) -> Observation:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for name in ("front", "wrist", "side")[:views]}
    return replace(Observation(images=images, proprio_P=np.zeros(2, np.float32), instruction=instruction), **changes)


def plain(checkpoint: Checkpoint, observation: Observation, **given):
    port = port_of(checkpoint)
    question = port.question(DecisionRequest(observation=observation, **given), "full")
    ids = plain_answer(checkpoint.model, port.language, question)
    return port.language.parse(ids, question)


def same(decision, reasoning) -> bool:
    assert decision.refusal is None, decision.refusal
    told = decision.reasoning
    depth = (told.depth is None) == (reasoning.depth is None) and (
        told.depth is None or np.array_equal(told.depth.codes_G, reasoning.depth.codes_G)
    )
    return depth and np.array_equal(told.bins_KA, reasoning.bins_KA)


def test_a_decision_is_typed_and_in_units(policy, checkpoint):
    seen = see()
    decision = Guarded(policy=policy, contract=policy.contract).decide(seen)
    assert decision.refusal is None, decision.refusal
    assert decision.level == "full"
    assert decision.reasoning.depth.codes_G.shape == (100,)
    assert 1 <= len(decision.reasoning.trace.points_N2) <= 5
    stats = policy.contract.stats
    assert decision.chunk.actions_KA.shape == (2, 7)
    assert (np.abs(decision.chunk.actions_KA[:, :6]) <= np.array(stats.q99[:6]) + 1e-6).all()
    assert decision.reasoning.text.strip().startswith("The depth map of the first image is <DEPTH_START>")
    assert same(decision, plain(checkpoint, seen))


# short: two rows are compared with the plain loop, which is what takes time
@pytest.mark.parametrize("compared", [(0, 7), pytest.param(range(8), marks=pytest.mark.soak)], ids=["two", "all"])
def test_eight_rows_of_mixed_lengths_equal_the_plain_loop(policy, checkpoint, compared):
    text = "put the long blue cup that stands behind the plate into the upper drawer and then close it"
    words = text.split()
    seen = [see(row, instruction=" ".join(words[: 2 * row + 1])) for row in range(8)]
    questions = [port_of(checkpoint).question(DecisionRequest(observation=one), "full") for one in seen]
    lengths = {len(policy.port.language.prompt(question).ids_L) for question in questions}
    assert len(lengths) == 8
    decisions = policy.decide_many(seen)
    assert all(same(decisions[row], plain(checkpoint, seen[row])) for row in compared)
    assert len({decision.reasoning.depth.codes_G.tobytes() for decision in decisions}) == 8


def test_the_last_decision_is_a_draft_and_changes_nothing(policy, checkpoint):
    first, second = see(20), see(21)
    last = policy.decide(first)
    again = policy.answer([DecisionRequest(observation=second, previous=last, consumed=1)])[0]
    assert same(again, plain(checkpoint, second))
    known = policy.answer([DecisionRequest(observation=first, previous=last)])[0]
    assert same(known, last.reasoning)
    assert known.counts["forwards"] < 0.5 * last.counts["forwards"]


def test_depth_of_the_last_decision_is_reused_where_the_model_agrees(policy):
    last = policy.decide(see(30))
    again = policy.answer([DecisionRequest(observation=see(30), level="reuse-depth", previous=last)])[0]
    assert (again.level, again.counts["reused.depth"]) == ("reuse-depth", 100)
    assert np.array_equal(again.reasoning.bins_KA, last.reasoning.bins_KA)


def test_a_drawn_trace_is_shown_to_the_model_on_the_first_image(policy, checkpoint):
    seen = see(40)
    steered = replace(seen, steering=LINE)
    question = policy.port.question(DecisionRequest(observation=steered), "full")
    assert np.array_equal(question.images[0], training_overlay(seen.images["front"], LINE))
    assert np.array_equal(question.images[1], seen.images["wrist"])
    asked = policy.port.parts.tokenizer.decode(policy.port.language.prompt(question).ids_L)
    assert "Notice that the trajectory of the end effector is annotated on the first image." in asked
    decision = policy.decide(steered)
    assert same(decision, plain(checkpoint, steered))
    assert decision.level == "trace+action"
    assert decision.reasoning.depth is None
    assert np.array_equal(decision.reasoning.trace.points_N2, LINE.points_N2)
    again = policy.answer([DecisionRequest(observation=steered, level="trace+action")])[0]  # as a replay asks
    assert same(again, decision.reasoning)
    point = policy.decide(replace(seen, steering=Trace(points_N2=np.array([[5, 6]]))))
    assert point.refusal.code is RefusalCode.CONTRACT
    assert "draw at least two points" in point.refusal.reason


@pytest.mark.parametrize("file", ["steer_256x256_2pts", "steer_64x64_3pts", "steer_120x160_5pts"])
def test_the_published_steering_style_is_pixel_for_pixel(file):
    found = arrays(f"overlay/{file}.npz")
    height, width = found["image"].shape[:2]
    line = Trace(points_N2=np.rint(found["trace"] * 255 / np.array([width - 1, height - 1])).astype(np.int64))
    assert np.array_equal(drawn_image(found["image"], line, "published"), found["out"])


def test_a_folder_adopted_for_the_published_steering_style_shows_it(folder, checkpoint, tmp_path):
    choices = LanguageChoices(steering="published")
    chosen = replace(checkpoint, language=replace(checkpoint.language, choices=choices))
    policy, steered = fast_policy(chosen), see(40, steering=LINE)
    question = policy.port.question(DecisionRequest(observation=steered), "full")
    assert np.array_equal(question.images[0], drawn_image(steered.images["front"], LINE, "published"))
    assert question.images[0].shape == (256, 256, 3)
    assert policy.port.language.max_length >= fast_policy(checkpoint).port.language.max_length, "a larger image has more tokens"
    assert same(policy.decide(steered), plain(chosen, steered))
    asked = policy.port.question(DecisionRequest(observation=see(40)), "full")
    assert np.array_equal(asked.images[0], see(40).images["front"]), "nothing else is shown otherwise"
    path = tmp_path / "published"
    shutil.copytree(folder, path, copy_function=lambda source, target: Path(target).hardlink_to(source))
    made = adopt(path, AdoptionRequest(embodiment=published_body(views=2), norm_key=KEY, chunk_length=2, language=choices), replace=True)
    assert "steering published" in made.notes[-1]
    assert read_adoption(path).language.steering == "published"
    assert read_adoption(folder).language.steering == "training"


def test_an_answer_goes_on_from_an_edit(policy, checkpoint):
    seen = see(50)
    depth = DepthTokens(codes_G=np.arange(100) % 128)
    for given in ({"depth": depth}, {"depth": depth, "trace": LINE}):
        decision = policy.answer([DecisionRequest(observation=seen, **given)])[0]
        assert same(decision, plain(checkpoint, seen, **given))
        assert np.array_equal(decision.reasoning.depth.codes_G, depth.codes_G)
    assert np.array_equal(decision.reasoning.trace.points_N2, LINE.points_N2)
    refused = policy.answer([DecisionRequest(observation=seen, trace=LINE)])[0]
    assert refused.refusal.code is RefusalCode.CONTRACT
    assert "give both" in refused.refusal.reason


def test_committed_rows_stand(policy):
    own = policy.decide(see(60))
    rows_DA = own.chunk.actions_KA[:1]
    decision = policy.answer([DecisionRequest(observation=see(61), committed_DA=rows_DA)])[0]
    assert np.array_equal(decision.chunk.actions_KA[:1], rows_DA)


def test_parts_are_told_before_the_actions(policy):
    told = {}
    decision = policy.answer([DecisionRequest(observation=see(70), on_part=told.__setitem__)])[0]
    assert list(told) == ["depth", "trace"]
    assert np.array_equal(told["trace"].points_N2, decision.reasoning.trace.points_N2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instruction": ""}, "expected plain words"),
        ({"instruction": "put <DEPTH_START> there"}, "expected plain words"),
        ({"instruction": "\U00013000" * 200}, "tokens, at most"),
        ({"instruction": "x" * 201}, "at most 200 characters"),
    ],
)
def test_instructions_that_are_refused(policy, changes, said):
    broken, fine = policy.decide_many([see(80, **changes), see(81)])
    assert (broken.refusal.code, broken.chunk) == (RefusalCode.CONTRACT, None)
    assert said in broken.refusal.reason
    assert fine.refusal is None


@pytest.mark.parametrize("level", ["trace+action", "action"])
def test_levels_that_the_published_language_has_not(policy, level):
    refused = policy.answer([DecisionRequest(observation=see(), level=level)])[0]
    assert refused.refusal.code is RefusalCode.CONTRACT
    assert "answers at full, reuse-depth" in refused.refusal.reason


def test_faithful_decoding_of_random_weights_is_refused(folder, checkpoint):
    faithful = fast_policy(replace(checkpoint, language=replace(checkpoint.language, choices=LanguageChoices(decoding="faithful"))))
    assert not faithful.engine.options.constrained
    refusal = faithful.decide(see()).refusal
    assert refusal.code is RefusalCode.PARSE
    assert "not in its language" in refusal.reason


@cache
def _written(root: Path, family: str, dims: int) -> Path:
    write_published_checkpoint(root / f"{family}-{dims}", family=family, dims=dims)  # type: ignore[arg-type]
    return root / f"{family}-{dims}"


def check_one_style(root: Path, family: str, views: int, dims: int, chunk: int) -> None:
    """A folder is adopted, opened and asked; its answer is the plain loop's."""
    path, seen = _written(root, family, dims), see(90, views=views)
    adopt(path, AdoptionRequest(embodiment=published_body(views=views, dims=dims), norm_key=KEY, chunk_length=chunk), replace=True)
    policy = fast_policy(load_checkpoint(path))
    decision = policy.decide(seen)
    assert decision.refusal is None, decision.refusal
    assert decision.chunk.actions_KA.shape == (chunk, dims)
    question = policy.port.question(DecisionRequest(observation=seen), "full")
    ids = plain_answer(policy.engine.model, policy.port.language, question)
    assert np.array_equal(policy.port.language.parse(ids, question).bins_KA, decision.reasoning.bins_KA)


# each value of each choice once; the other combinations: in soak
SHORT = [("d", 1, 14, 8), ("o", 2, 7, 1)]
GRID = [style for style in product("do", (1, 2), (7, 14), (1, 8)) if style not in SHORT]


@pytest.mark.parametrize(("family", "views", "dims", "chunk"), SHORT)
def test_both_families_views_dims_and_chunks(tmp_path_factory, family, views, dims, chunk):
    check_one_style(tmp_path_factory.getbasetemp() / "families", family, views, dims, chunk)


@pytest.mark.soak  # short: test_both_families_views_dims_and_chunks
@pytest.mark.parametrize(("family", "views", "dims", "chunk"), GRID)
def test_every_combination_of_family_views_dims_and_chunks(tmp_path_factory, family, views, dims, chunk):
    check_one_style(tmp_path_factory.getbasetemp() / "families", family, views, dims, chunk)


def test_the_engine_of_the_service_counts_forwards(checkpoint, policy):
    """Drafts of prose, of the value before and of the last answers save forwards, and change no token."""
    port = policy.port
    slow = DecodingEngine(checkpoint.model, port.language, EngineOptions(speculate=False, numerics=Numerics(tile=4, bound=0.0)))
    question = port.question(DecisionRequest(observation=see(95)), "full")
    answer = slow.decode([question]).answers[0]
    assert answer.ids_L.tolist() == plain_answer(checkpoint.model, port.language, question)
    assert answer.counts["forwards"] < len(answer.ids_L)  # what the language allows alone is not computed
    measured = ReasoningPolicy.of(checkpoint)  # with what it measures of this machine
    decision = measured.decide(see(95))
    assert same(decision, port.language.parse(answer.ids_L.tolist(), question))
    assert decision.counts["forwards"] <= answer.counts["forwards"]


@pytest.mark.soak  # short: the same answers in test_published_language; a faithful folder that is adopted, above
def test_faithful_decoding_says_what_the_network_says_by_itself(policy: ReasoningPolicy, tmp_path: Path):
    """Saved in the published layout, adopted and opened: greedy over all 152,064 ids, drafts of prose, equal tokens."""
    said = ActionReasoning(
        depth=DepthTokens(codes_G=np.random.default_rng(5).integers(0, 128, 100)), trace=LINE, bins_KA=np.arange(1, 15).reshape(2, 7) * 11
    )
    seen, language = see(), policy.port.language
    question = policy.port.question(DecisionRequest(observation=seen), "full")
    ids = language.languages[0].grammar.answer_ids(said).tolist()
    taught = teach(published_network(published_config(num_slots=2048)), len(language.prompt(question).ids_L), ids)
    write_published_checkpoint(tmp_path, model=taught)
    choices = LanguageChoices(decoding="faithful")
    adopt(tmp_path, AdoptionRequest(embodiment=published_body(views=2), norm_key=KEY, chunk_length=2, language=choices))
    faithful = fast_policy(load_checkpoint(tmp_path))
    assert not faithful.engine.options.constrained
    decision = faithful.decide(seen)
    assert same(decision, said)
    assert plain_answer(faithful.engine.model, language, question, constrained=False) == ids
    assert decision.counts["forwards"] < 0.9 * len(ids)
