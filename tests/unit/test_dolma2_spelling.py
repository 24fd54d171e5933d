"""The published language in the spelling of 7B-O: OLMo2's tokenizer writes a coordinate as one id where Qwen2 writes a digit each."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.engine.published.grammar import PublishedGrammar
from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.grammar import Form, Style
from model_core.tokenization.published.tokenizer import PromptTokenizer
from tests.published_checkpoint import OPEN_NUMBER, OPEN_TOKEN, dolma2_part, tokenizer_file


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    folder = tmp_path_factory.mktemp("dolma2")
    (folder / "tokenizer.json").write_bytes(tokenizer_file("o"))
    return PromptTokenizer.load(folder)


def test_ids_are_those_of_the_whole_tokenizer(tokenizer: PromptTokenizer):
    texts = dolma2_part()["texts"]
    assert len(texts) > 50
    for text, ids in texts.items():
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode(" 120],")) == 3, "a blank, the number, the bracket with its comma"


def test_special_ids_are_where_the_enlarged_vocabulary_has_them(tokenizer: PromptTokenizer):
    special = tokenizer.special
    assert (special.eos, special.pad, special.depth_start, special.im_start) == (100257, 100277, 100278, 100864)
    assert tokenizer.encode("<DEPTH_START><DEPTH_127><DEPTH_END>") == [100278, 100407, 100279]


def test_a_text_never_becomes_an_added_token(tokenizer: PromptTokenizer):
    for name in (OPEN_TOKEN, "<|pad|>", "<im_patch>"):
        ids = tokenizer.encode(f"call {name} now")
        assert max(ids) < tokenizer.special.eos - 1
        assert tokenizer.decode(ids) == f"call {name} now"
    with pytest.raises(GrammarError, match="stands for no text"):
        tokenizer.decode([OPEN_NUMBER])


@pytest.mark.parametrize(
    ("form", "style", "views", "chunk", "dims"),
    [(Form.FULL, Style.RELEASED, 1, 1, 7), (Form.FULL, Style.FINETUNED, 2, 8, 14), (Form.STEERED, Style.RELEASED, 2, 8, 7)],
)
def test_every_answer_is_walked_and_read_back(tokenizer: PromptTokenizer, form: Form, style: Style, views: int, chunk: int, dims: int):
    grammar = PublishedGrammar(tokenizer, form=form, chunk_length=chunk, action_dims=dims, views=views, style=style)
    rng = np.random.default_rng(0)
    for points in (1, 3, 5):
        said = ActionReasoning(
            depth=DepthTokens(codes_G=rng.integers(0, 128, 100)) if form is Form.FULL else None,
            trace=Trace(points_N2=rng.integers(0, 256, (points, 2))) if form is Form.FULL else None,
            bins_KA=rng.integers(1, 257, (chunk, dims)),
        )
        ids = grammar.answer_ids(said)
        assert grammar.state_after(ids) % grammar._places == grammar.done
        again = grammar.parse(ids)
        assert np.array_equal(again.bins_KA, said.bins_KA)
        if said.trace is not None:
            assert np.array_equal(again.trace.points_N2, said.trace.points_N2)  # type: ignore[union-attr]
    wrong = list(ids)
    wrong[-2] = tokenizer.special.fillers.start
    with pytest.raises(GrammarError, match="is not allowed"):
        grammar.state_after(wrong)
