"""The engine in the published language: real token ids, the full vocabulary, a small network; faithful and constrained."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts
from model_core.engine.published.language import PublishedLanguage, PublishedRequest
from model_core.engine.resources import EngineOptions
from model_core.network.config import AdapterConfig, LlmConfig, MolmoActConfig, VitConfig
from model_core.network.images import ImageProcessor
from model_core.network.model import MolmoAct
from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.tokenizer import PromptTokenizer

pytestmark = pytest.mark.xdist_group("published-language")
WIDTH, MAX_PROMPT = 24, 160
LONGEST = MAX_PROMPT + 400
PROCESSOR = ImageProcessor(crop_mode="resize", base_image_input_size=(28, 28))


@cache
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.load()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@cache
def network() -> MolmoAct:
    """Random weights under the published vocabulary of 152,064 rows, a few numbers wide."""
    special = tokenizer().special
    model = MolmoAct(
        MolmoActConfig(
            vit=VitConfig(
                hidden_size=24,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=12,
                image_default_input_size=(28, 28),
                image_num_pos=4,
            ),
            adapter=AdapterConfig(
                vit_layers=(-1, -2),
                hidden_size=24,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=12,
                intermediate_size=24,
                text_hidden_size=WIDTH,
            ),
            llm=LlmConfig(
                hidden_size=WIDTH,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=12,
                vocab_size=special.base_rows,
                num_hidden_layers=2,
                intermediate_size=32,
                num_slots=LONGEST,
            ),
            image_patch_id=special.im_patch,
        )
    )
    model.init_weights(0, std=0.3)
    torch.nn.init.normal_(model.lm_head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.model.transformer.slot_embedding, generator=torch.Generator().manual_seed(2))
    return model.eval()


def language(spelling="published", length=2, dims=3) -> PublishedLanguage:
    return PublishedLanguage(tokenizer(), PROCESSOR, chunk_length=length, action_dims=dims, spelling=spelling, max_prompt=MAX_PROMPT)


def question(shade: int = 90, **given) -> PublishedRequest:
    frame = np.random.default_rng(shade).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return PublishedRequest(images=(frame,), instruction="close it", **given)


def reasoning(seed: int = 0, length: int = 2, dims: int = 3) -> ActionReasoning:
    rng = np.random.default_rng(seed)
    return ActionReasoning(
        depth=DepthTokens(codes_G=rng.integers(0, 128, 100)),
        trace=Trace(points_N2=rng.integers(0, 256, (3, 2))),
        bins_KA=rng.integers(1, 257, (length, dims)),
    )


@torch.no_grad()
def taught(spoken: PublishedLanguage, said: ActionReasoning) -> MolmoAct:
    """A network that says `said` of itself: its blocks add nothing, each place has a row, and the head tells the rows apart."""
    model = network()
    start, ids = len(spoken.prompt(question()).ids_L) - 1, spoken.grammar.answer_ids(said).tolist()
    places = model.model.transformer.slot_embedding[start : start + len(ids)].detach()
    seen = places * torch.rsqrt(places.square().mean(-1, keepdim=True) + 1e-6)
    head = torch.zeros(tokenizer().special.base_rows, WIDTH)
    kinds = {token: row for row, token in enumerate(sorted(set(ids)))}
    targets, rows = torch.tensor([kinds[token] for token in ids]), torch.zeros(len(kinds), WIDTH, requires_grad=True)
    with torch.enable_grad():
        optimizer = torch.optim.LBFGS([rows], max_iter=200, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(seen @ rows.T, targets)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert torch.equal((seen @ rows.T).argmax(-1), targets)
    for token, row in kinds.items():
        head[token] = rows[row]
    made = MolmoAct(model.config)
    made.load_state_dict(model.state_dict())
    made.lm_head.weight.copy_(head)
    made.model.transformer.wte.embedding.zero_()
    for block in made.model.transformer.blocks:
        block.self_attn.attn_out.weight.zero_()
        block.mlp.ff_out.weight.zero_()
    return made.eval()


# short of "single": given parts, below, and the grammar of both spellings in test_published_grammar
@pytest.mark.parametrize("spelling", ["published", pytest.param("single", marks=pytest.mark.soak)])
def test_constrained_answers_of_random_weights_parse_and_drafts_change_nothing(spelling):
    spoken = language(spelling)
    plain = DecodingEngine(network(), spoken, EngineOptions(speculate=False)).decode([question(1), question(2)])
    draft = Drafts(ids=spoken.encode(reasoning(5), question()))
    fast = DecodingEngine(network(), spoken).decode([question(1), question(2)], [draft, None])
    for one, other in zip(plain.answers, fast.answers, strict=True):
        assert one.ids_L.tolist() == other.ids_L.tolist()
        assert spoken.grammar.state_after(one.ids_L) == spoken.grammar.done
        assert one.reasoning.bins_KA.shape == (2, 3)
        assert one.reasoning.depth is not None
        # prose costs no forward of its own
        assert one.counts["forwards"] <= sum(len(spoken.grammar.allowed(s)) > 1 for s in states(spoken, one.ids_L)) + 1


def states(spoken: PublishedLanguage, ids) -> list[int]:
    found, state = [], spoken.grammar.start
    for token in ids:
        found.append(state)
        state = spoken.grammar.after(state, int(token))
    return found


# short of "single": given parts in both spellings
@pytest.mark.parametrize("spelling", ["published", pytest.param("single", marks=pytest.mark.soak)])
def test_faithful_decoding_says_what_the_network_says_by_itself(spelling):
    spoken, said = language(spelling), reasoning(3)
    model = taught(spoken, said)
    expected = spoken.grammar.answer_ids(said).tolist()
    checked = DecodingEngine(model, spoken, EngineOptions(constrained=False))
    plain = (
        DecodingEngine(model, spoken, EngineOptions(constrained=False, speculate=False, numerics=checked.numerics))
        .decode([question()])
        .answers[0]
    )
    assert plain.ids_L.tolist() == expected
    assert plain.counts["forwards"] == len(expected)
    fast = checked.decode([question()], [Drafts(ids=spoken.encode(reasoning(4), question()))]).answers[0]
    assert fast.ids_L.tolist() == expected
    assert fast.counts["forwards"] < 0.9 * len(expected)  # prose is drafted, and nothing else was right
    known = checked.decode([question()], [Drafts(ids=spoken.encode(said, question()))]).answers[0]
    assert known.ids_L.tolist() == expected
    assert known.counts["forwards"] < 0.3 * len(expected)


def test_a_faithful_answer_outside_the_language_is_an_error():
    with pytest.raises(GrammarError):
        DecodingEngine(network(), language(), EngineOptions(constrained=False, exact=False)).decode([question()])


@pytest.mark.parametrize("spelling", ["published", "single"])
def test_given_and_committed_parts_stand(spelling):
    spoken, mine = language(spelling), reasoning(8)
    asked = question(depth=mine.depth, trace=mine.trace, committed_DA=mine.bins_KA[:1])
    said = DecodingEngine(network(), spoken).decode([asked]).answers[0].reasoning
    assert said.depth is not None
    assert said.trace is not None
    assert said.depth.codes_G.tolist() == mine.depth.codes_G.tolist()
    assert said.trace.points_N2.tolist() == mine.trace.points_N2.tolist()
    assert said.bins_KA[0].tolist() == mine.bins_KA[0].tolist()


def test_parts_are_read_before_the_answer_is_complete():
    spoken, told = language(), {}
    engine = DecodingEngine(network(), spoken)
    began = engine.open_round(1)
    began.join(question(), on_part=told.__setitem__)
    answers = []
    while began.active:
        answers += began.step()
    began.close()
    said = answers[0][1].reasoning
    assert told["depth"].codes_G.tolist() == said.depth.codes_G.tolist()
    assert told["trace"].points_N2.tolist() == said.trace.points_N2.tolist()


def test_prompts_that_do_not_fit_are_refused():
    spoken = language()
    with pytest.raises(GrammarError, match="1 view"):
        spoken.prompt(PublishedRequest(images=question().images * 2, instruction="close it"))
    with pytest.raises(GrammarError, match="at most 160 fit"):
        spoken.prompt(PublishedRequest(images=question().images, instruction="close it " * 40))
    with pytest.raises(GrammarError, match="committed rows: expected at most 2 x 3"):
        spoken.given(question(committed_DA=np.ones((3, 3), np.int64)))
