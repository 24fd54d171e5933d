import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import GrammarError, SpecError
from model_core.spec.types import DepthTokens, Trace
from model_core.tokenization.compact.layout import (
    NO_SLOT,
    CompactLayout,
    CompactVocabulary,
    Field,
    ReasoningMode,
    closed_words,
    proprio_bins,
)
from tests import strategies

TEXTS = ("push the coffee machine button", "close the drawer")
LAYOUT = CompactLayout(vocabulary=CompactVocabulary(words=closed_words(TEXTS)), chunk_length=8, action_dims=4, proprio_dims=4)
MODES = list(ReasoningMode)


def sample(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    traces = rng.integers(0, 256, (size, 5, 2)).astype(np.int16)
    traces[np.arange(5)[None] >= rng.integers(1, 6, size)[:, None]] = -1
    return {
        "words_BW": LAYOUT.instruction_table(TEXTS)[rng.integers(0, 2, size)],
        "proprio_bins_BP": rng.integers(0, 256, (size, 4)),
        "bins_BKA": rng.integers(1, 257, (size, 8, 4)),
        "depth_codes_BG": rng.integers(0, 128, (size, 100)).astype(np.uint8),
        "trace_B52": traces,
    }


def test_every_id_has_one_field_and_one_description():
    vocabulary = LAYOUT.vocabulary
    assert len({vocabulary.describe(token) for token in range(vocabulary.size)}) == vocabulary.size
    assert sum(len(vocabulary.range_of(field)) for field in Field) == vocabulary.size
    assert vocabulary.im_patch_id >= vocabulary.base_size
    assert "outside" in vocabulary.describe(vocabulary.size)


def test_slots_match_the_recipe():
    assert (LAYOUT.prompt_length, LAYOUT.num_slots, LAYOUT.max_length) == (38, 181, 181)
    assert LAYOUT.max_answer_length(ReasoningMode.ACTION) == 32
    marked = CompactLayout(
        vocabulary=LAYOUT.vocabulary, chunk_length=8, action_dims=4, proprio_dims=4, views=2, image_marks=True, patch_grid=(2, 3)
    )
    marks = LAYOUT.vocabulary.image_marks
    row = [marks["im_patch"]] * 3 + [marks["im_col"]]
    view = [marks["im_start"], *row, *row, marks["im_end"]]
    prompt = marked.prompts(marked.instruction_table(TEXTS), np.zeros((2, 4), np.int64), ReasoningMode.FULL)
    assert prompt[0, : 2 * len(view)].tolist() == view * 2


@pytest.mark.parametrize("mode", MODES)
def test_batches_parse_back_row_by_row(mode):
    arrays = sample(16)
    batch = LAYOUT.batch(mode=mode, **arrays)
    assert batch.ids_BL.shape == batch.slots_BL.shape == batch.fields_BL.shape == batch.learn_BL.shape
    for row in range(16):
        answer = batch.ids_BL[row, batch.prompt_length :]
        reasoning = LAYOUT.parse(answer, mode)
        assert np.array_equal(reasoning.bins_KA, arrays["bins_BKA"][row])
        if reasoning.depth is not None:
            assert np.array_equal(reasoning.depth.codes_G, arrays["depth_codes_BG"][row])
        if reasoning.trace is not None:
            points = arrays["trace_B52"][row]
            assert np.array_equal(reasoning.trace.points_N2, points[points[:, 0] >= 0])
        assert (reasoning.depth is not None) == (mode is ReasoningMode.FULL)
        assert (reasoning.trace is not None) == (mode is not ReasoningMode.ACTION)


@pytest.mark.parametrize("mode", MODES)
def test_slots_follow_the_transition_table_and_its_allowed_ids(mode):
    batch = LAYOUT.batch(mode=mode, **sample(16, seed=1))
    slots = np.full(16, LAYOUT.first_slot(mode))
    for column in range(batch.prompt_length, batch.ids_BL.shape[1]):
        ids = batch.ids_BL[:, column]
        live = slots != NO_SLOT
        assert np.array_equal(batch.slots_BL[live, column], slots[live])
        assert (ids[live] >= LAYOUT.allowed_start_S[slots[live]]).all()
        assert (ids[live] < LAYOUT.allowed_stop_S[slots[live]]).all()
        assert (batch.fields_BL[~live, column] == Field.PAD).all()
        slots = LAYOUT.next_slots(slots, ids)
    assert (slots == NO_SLOT).all()


def test_actions_keep_their_slots_whatever_the_trace():
    batch = LAYOUT.batch(mode=ReasoningMode.FULL, **sample(16, seed=2))
    for row in range(16):
        slots = batch.slots_BL[row, batch.fields_BL[row] == Field.ACTION]
        assert slots.tolist() == list(range(LAYOUT.slots[Field.ACTION].start, LAYOUT.slots[Field.ACTION].stop))


def test_a_given_trace_is_not_learned_and_targets_point_one_left():
    batch = LAYOUT.batch(mode=ReasoningMode.STEERED, **sample(8))
    assert not batch.learn_BL[batch.fields_BL == Field.TRACE].any()
    rows, columns, codes = batch.targets(Field.ACTION, LAYOUT.vocabulary.action)
    assert len(rows) == 8 * 32
    assert np.array_equal(batch.ids_BL[rows, columns + 1], codes + LAYOUT.vocabulary.action.start)
    assert len(batch.targets(Field.TRACE, LAYOUT.vocabulary.trace)[0]) == 0
    full = LAYOUT.batch(mode=ReasoningMode.FULL, **sample(8))
    assert (full.targets(Field.DEPTH, LAYOUT.vocabulary.depth)[1].min()) == full.prompt_length - 1  # the mode token predicts


@settings(max_examples=40, deadline=None)
@given(strategies.reasonings(), st.sampled_from(MODES))
def test_answer_and_parse_are_inverse(reasoning, mode):
    ids = LAYOUT.answer_ids(reasoning, mode)
    again = LAYOUT.parse(ids, mode)
    assert np.array_equal(LAYOUT.answer_ids(again, mode), ids)
    assert np.array_equal(again.bins_KA, reasoning.bins_KA)


@settings(max_examples=150, deadline=None)
@given(strategies.reasonings(), st.sampled_from(MODES), st.data())
def test_no_broken_answer_becomes_an_action(reasoning, mode, data):
    ids = LAYOUT.answer_ids(reasoning, mode)
    where = data.draw(st.integers(0, len(ids) - 1))
    kind = data.draw(st.sampled_from(["swap", "cut", "grow"]))
    if kind == "cut":
        broken = ids[:where]
    elif kind == "grow":
        broken = np.append(ids, data.draw(st.integers(3, LAYOUT.vocabulary.size + 5)))
    else:
        wrong = data.draw(st.integers(-5, LAYOUT.vocabulary.size + 5))
        slots = [LAYOUT.first_slot(mode)]
        for token in ids[:where]:
            slots.append(int(LAYOUT.next_slots(np.array([slots[-1]]), np.array([token]))[0]))
        if wrong in LAYOUT.allowed(slots[where]):
            wrong = LAYOUT.vocabulary.pad_id
        broken = ids.copy()
        broken[where] = wrong
    with pytest.raises(GrammarError) as caught:
        LAYOUT.parse(broken, mode)
    assert "expected" in str(caught.value)
    assert 0 <= caught.value.span[0] <= len(broken)


def test_unknown_words_are_named_never_guessed():
    with pytest.raises(GrammarError, match=r"'window'.*drawer") as caught:
        LAYOUT.instruction_ids("close the window")
    assert caught.value.span == (10, 16)
    with pytest.raises(GrammarError, match="at most 8"):
        LAYOUT.instruction_ids("close " * 9)
    with pytest.raises(GrammarError, match="empty"):
        LAYOUT.instruction_ids("  . ")
    assert np.array_equal(LAYOUT.instruction_ids("Close the drawer."), LAYOUT.instruction_ids("close the drawer"))


def test_given_prefixes():
    depth = DepthTokens(codes_G=np.arange(100) % 128)
    trace = Trace(points_N2=np.array([[1, 2], [3, 4]]))
    ids, slots = LAYOUT.given(ReasoningMode.FULL, depth=depth, trace=trace)
    assert len(ids) == 105
    assert LAYOUT.next_slots(slots[-1:], ids[-1:])[0] == LAYOUT.slots[Field.ACTION].start
    assert len(LAYOUT.given(ReasoningMode.FULL)[0]) == 0
    for mode, options in (
        (ReasoningMode.ACTION, {"trace": trace}),
        (ReasoningMode.TRACE_ACTION, {"depth": depth}),
        (ReasoningMode.FULL, {"trace": trace}),
        (ReasoningMode.STEERED, {}),
    ):
        with pytest.raises(GrammarError):
            LAYOUT.given(mode, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bins_BKA", np.zeros((4, 8, 4), np.int64)),
        ("bins_BKA", np.full((4, 8, 4), 257)),
        ("depth_codes_BG", np.full((4, 100), 128)),
        ("depth_codes_BG", None),
        ("trace_B52", np.full((4, 5, 2), -1)),
        ("trace_B52", np.full((4, 5, 2), 256)),
        ("trace_B52", np.tile(np.array([[-1, -1], [1, 1], [2, 2], [3, 3], [4, 4]]), (4, 1, 1))),
        ("proprio_bins_BP", np.full((4, 4), 256)),
    ],
)
def test_labels_out_of_range_are_refused(name, value):
    with pytest.raises(SpecError):
        LAYOUT.batch(mode=ReasoningMode.FULL, **{**sample(4), name: value})


def test_proprio_bins_clip_and_refuse_nan():
    low, high = np.zeros(2), np.ones(2)
    assert proprio_bins(np.array([[-9.0, 9.0], [0.0, 0.5]]), low, high).tolist() == [[0, 255], [0, 128]]
    with pytest.raises(SpecError, match="NaN"):
        proprio_bins(np.array([[np.nan, 0.0]]), low, high)
