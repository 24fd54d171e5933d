"""Drafts from memory: the nearest frame of the same words and mode, bounded, and never a reason to answer differently."""

import numpy as np
import pytest

from model_core.engine.decode_request import CompactLanguage, DecodeRequest
from model_core.engine.draft_cache import DraftMemory, small_image
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.compact.layout import CompactLayout, CompactVocabulary, Field, ReasoningMode

LAYOUT = CompactLayout(vocabulary=CompactVocabulary(words=("close", "drawer")), chunk_length=2, action_dims=3, proprio_dims=2)
LANGUAGE = CompactLanguage(LAYOUT)


def question(shade: int, words: str = "close drawer", mode: ReasoningMode = ReasoningMode.FULL, **given: object) -> DecodeRequest:
    frame = np.full((1, 80, 60, 3), shade, np.uint8)
    return DecodeRequest(
        images_VHW3=frame,
        words_W=LAYOUT.instruction_ids(words),
        proprio_bins_P=np.zeros(2, np.int64),
        mode=mode,
        **given,  # type: ignore[arg-type]
    )


def said(value: int) -> ActionReasoning:
    return ActionReasoning(
        depth=DepthTokens(codes_G=np.full(100, value)),
        trace=Trace(points_N2=np.array([[value, value]])),
        bins_KA=np.full((2, 3), value + 1),
    )


def first_code(drafts) -> int:
    return drafts.ids[LANGUAGE.begin(question(0))] - LAYOUT.vocabulary.depth.start


def test_the_nearest_frame_of_the_same_words_and_mode_is_the_draft():
    memory = DraftMemory(LANGUAGE)
    assert memory.suggest(question(10)) is None
    for shade in (10, 100, 200):
        memory.note(question(shade), said(shade // 2))
    assert [first_code(memory.suggest(question(shade))) for shade in (0, 54, 56, 160, 255)] == [5, 5, 50, 100, 100]
    assert memory.suggest(question(10, "close")) is None
    assert memory.suggest(question(10, mode=ReasoningMode.ACTION)) is None
    suggested = memory.suggest(question(100))
    assert suggested is not None
    assert len(suggested.ids) == 100 + 3 + 6


def test_the_sessions_last_answer_is_the_draft_of_a_cold_memory_and_moves_up_where_it_is_the_nearest():
    memory = DraftMemory(LANGUAGE)
    last = ActionReasoning(depth=said(3).depth, trace=said(3).trace, bins_KA=np.array([[1, 2, 3], [4, 5, 6]]))
    first_action = LAYOUT.slots[Field.ACTION].start

    def moved(drafts) -> int:
        return drafts.ids[first_action] - LAYOUT.vocabulary.action.start + 1

    assert moved(memory.suggest(question(10), last=last, consumed=1)) == 4
    memory.note(question(10), last)
    assert moved(memory.suggest(question(11), last=last, consumed=1)) == 4
    assert moved(memory.suggest(question(11), last=said(9), consumed=1)) == 1
    other = ActionReasoning(depth=None, trace=None, bins_KA=np.ones((5, 3), np.int64))
    suggested = DraftMemory(LANGUAGE).suggest(question(10), last=other)
    assert suggested is not None
    assert not suggested.ids


def test_the_oldest_frame_goes_first_and_the_idlest_shelf():
    memory = DraftMemory(LANGUAGE, capacity=70, shelves=1)
    for shade in range(100):
        memory.note(question(shade), said(shade))
    assert len(memory) == 70
    assert first_code(memory.suggest(question(0))) == 30
    assert first_code(memory.suggest(question(99))) == 99
    memory.note(question(5, "drawer"), said(5))
    assert len(memory) == 1
    assert memory.suggest(question(5)) is None


@pytest.mark.parametrize("given", [{"depth": DepthTokens(codes_G=np.zeros(100, np.int64))}, {"committed_DA": np.ones((1, 3), np.int64)}])
def test_answers_that_a_person_began_are_not_remembered(given):
    memory = DraftMemory(LANGUAGE)
    memory.note(question(5, **given), said(5))
    assert len(memory) == 0


@pytest.mark.parametrize("shape", [(1, 80, 80, 3), (2, 64, 81, 3), (1, 7, 30, 3)])
def test_small_images_are_block_means(shape):
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows, columns = min(10, shape[1]), min(10, shape[2])
    tall, wide = shape[1] // rows, shape[2] // columns
    expected = frames[:, : rows * tall, : columns * wide].reshape(shape[0], rows, tall, columns, wide, 3).mean((2, 4))
    assert np.allclose(small_image(frames), expected.reshape(-1), atol=1e-4)


def test_of_a_large_frame_every_nth_row_and_column_is_read():
    frames = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), dtype=np.uint8)
    expected = frames.reshape(2, 10, 8, 6, 10, 8, 8, 3)[:, :, :, 0, :, :, 0].mean((2, 4))
    assert np.allclose(small_image(frames), expected.reshape(-1), atol=1e-4)
    assert small_image(np.full((1, 1080, 1917, 3), 200, np.uint8)).tolist() == [200.0] * 300
