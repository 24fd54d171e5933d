"""Tokens: the Qwen2 table, the published special ids and the layout of whole prompts."""

from __future__ import annotations

import json
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import CheckpointError, GrammarError, SpecError
from model_core.tokenization.action_codec import published_symbols
from model_core.tokenization.published.grammar import Form, render_question
from model_core.tokenization.published.special_ids import SpecialIds, special_ids_7b_d, special_ids_7b_o
from model_core.tokenization.published.text_encoding import byte_to_surface
from model_core.tokenization.published.tokenizer import PromptTokenizer, pad_left

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "qwen_tokenizer_golden.json").read_text(encoding="utf-8"))
SMALL_IMAGE = ((14, 14), (14, 14))


@lru_cache(maxsize=1)
def packaged() -> PromptTokenizer:
    return PromptTokenizer.load()


@pytest.fixture
def qwen() -> PromptTokenizer:
    return packaged()


@pytest.mark.parametrize("text", list(GOLDEN["encode"]))
def test_ids_equal_an_independent_build_of_the_table(qwen, text):
    assert qwen.encode(text) == GOLDEN["encode"][text]
    assert qwen.decode(GOLDEN["encode"][text]) == text


def test_surface_strings_of_the_last_ids_are_the_action_symbols(qwen):
    assert {token: qwen.surface(int(token)) for token in GOLDEN["last_257_surface"]} == GOLDEN["last_257_surface"]
    symbols = published_symbols()
    assert sorted(symbols) == sorted(qwen.surface(151643 - d) for d in range(1, 257))


def test_published_special_ids_of_7b_d():
    ids = special_ids_7b_d()
    assert (ids.bos, ids.eos, ids.pad) == (151643, 151643, 151643)
    assert (ids.depth_start, ids.depth_end, ids.depth_first) == (151665, 151666, 151667)
    assert ids.depth_id("<DEPTH_127>") == 151794
    assert ids.fillers == range(151795, 152064)
    image = (ids.im_start, ids.im_end, ids.im_patch, ids.im_col, ids.image, ids.im_low)
    assert image == (152064, 152065, 152066, 152067, 152068, 152069)


def test_published_special_ids_of_7b_o():
    ids = special_ids_7b_o()
    assert (ids.depth_start, ids.depth_end, ids.depth_first, ids.fillers) == (100278, 100279, 100280, range(100408, 100864))
    assert (ids.im_start, ids.im_low) == (100864, 100869)
    with pytest.raises(SpecError, match="do not fit"):
        SpecialIds.after(entries=100278, base_rows=100352, end_of_text=100257)


def test_two_small_views_with_question_b_cost_972_tokens(qwen):
    question = render_question(Form.FULL, "close the drawer", views=2)
    ids = qwen.prompt_ids(question, [SMALL_IMAGE, SMALL_IMAGE])
    assert len(ids) == 1 + 2 * (3 + 424) + 117 == 972
    assert int((ids == qwen.special.im_patch).sum()) == 4 * 196


def test_layout_of_a_whole_prompt(qwen):
    special = qwen.special
    ids = qwen.prompt_ids("Where?", [((1, 2),), ((2, 1),)]).tolist()
    first = [special.im_start, special.im_patch, special.im_patch, special.im_col, special.im_end]
    second = [special.im_start, special.im_patch, special.im_col, special.im_patch, special.im_col, special.im_end]
    text = qwen.encode("User: Where? Assistant:")
    assert ids == [special.bos, *qwen.encode("Image 1"), *first, *qwen.encode("Image 2"), *second, *text]
    assert qwen.prompt_ids("Where?", [((1, 2),)]).tolist() == [special.bos, *first, *text]
    assert qwen.prompt_ids("Where?").tolist() == [special.bos, *text]


def test_answers_start_with_a_space_and_end_with_eos_and_depth_tags_are_single_ids(qwen):
    ids = qwen.answer_ids("The depth map is <DEPTH_START><DEPTH_0><DEPTH_127><DEPTH_END>.").tolist()
    special = qwen.special
    assert ids[-1] == special.eos
    at = ids.index(special.depth_start)
    assert ids[at : at + 4] == [special.depth_start, special.depth_first, special.depth_first + 127, special.depth_end]
    assert ids[0] == qwen.encode(" The")[0]
    assert qwen.decode(ids) == " The depth map is <DEPTH_START><DEPTH_0><DEPTH_127><DEPTH_END>."


@pytest.mark.parametrize("text", ["<DEPTH_128>", "<DEPTH_007>", "<DEPTH_-1>", "<|endoftext|>", "<im_patch>", "<|im_start|>", "<im_start>"])
def test_text_never_becomes_a_special_id_that_it_should_not(qwen, text):
    ids = qwen.encode(text)
    assert max(ids) < 151643
    assert qwen.decode(ids) == text


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40))
def test_encoding_and_decoding_are_inverse_up_to_nfc(text):
    tokenizer = packaged()
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


def test_decoding_drops_what_is_silent_and_refuses_filler_rows(qwen):
    special = qwen.special
    assert qwen.decode([special.bos, *qwen.encode("ok"), special.im_patch, special.eos]) == "ok"
    with pytest.raises(GrammarError, match="filler row") as caught:
        qwen.decode([*qwen.encode("ok"), special.fillers[0]])
    assert caught.value.span == (1, 2)


def test_padding_is_on_the_left():
    ids, mask = pad_left([np.array([1, 2, 3]), np.array([4])], pad=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_table_beside_the_checkpoint_is_used(tmp_path):
    ranks = packaged().encoding
    table = byte_to_surface()
    vocab = {"".join(table[byte] for byte in ranks.bytes_of(token)): token for token in range(151643)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    beside = PromptTokenizer.load(tmp_path)
    for text, ids in GOLDEN["encode"].items():
        assert beside.encode(text) == ids
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "qwen.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(CheckpointError, match="not the Qwen2 table"):
        PromptTokenizer.load(tmp_path)


def tokenizer_file(folder: Path, *, order: int = 0) -> None:
    """A small byte-level `tokenizer.json` with the published added tokens (7B-O style: no table in any package)."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    vocab = {char: byte for byte, char in enumerate(byte_to_surface())} | {"ab": 256}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True), AddedToken("<|pad|>", special=True)])
    depth = ["<DEPTH_START>", "<DEPTH_END>", *(f"<DEPTH_{k}>" for k in range(4))]
    tokenizer.add_tokens(depth)
    fillers = [f"|<EXTRA_TOKENS_{k}>|" for k in range(10)]
    image = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>", "<im_low>"]
    image = image[order:] + image[:order]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in [*fillers, *image]])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_tokenizer_file_brings_its_own_special_ids(tmp_path):
    tokenizer_file(tmp_path)
    loaded = PromptTokenizer.load(tmp_path)
    assert loaded.encode("ab é<DEPTH_3>") == [256, *"ab é".encode()[2:], loaded.special.depth_first + 3]
    assert (loaded.special.bos, loaded.special.pad, loaded.special.depth_start, loaded.special.num_depth) == (257, 258, 259, 4)
    assert loaded.special.im_start == 275
    assert loaded.decode(loaded.encode("ab é<DEPTH_3><im_patch>")) == "ab é<DEPTH_3><im_patch>"
    assert max(loaded.encode("<im_patch><|endoftext|>")) <= 256


def test_a_tokenizer_file_in_another_order_or_without_our_tokens_is_refused(tmp_path):
    tokenizer_file(tmp_path, order=2)
    with pytest.raises(CheckpointError, match="another order"):
        PromptTokenizer.load(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {"added_tokens": document["added_tokens"][:3]}))
    with pytest.raises(CheckpointError, match="<DEPTH_END>"):
        PromptTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizer that we can read"):
        PromptTokenizer.load(tmp_path)
