"""Prompts and training examples: the ids of the published programs, one by one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model_core.network.finetuning.loss import seen_tokens
from model_core.network.images import ImageProcessor
from model_core.spec.errors import GrammarError, SpecError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import bin_of_symbol
from model_core.tokenization.published.actions import PublishedStats, published_bins, published_normalized, published_window
from model_core.tokenization.published.examples import Annotation, annotation_of, training_sequence
from model_core.tokenization.published.grammar import Form, Style, render_actions
from model_core.tokenization.published.prompts import Wording, prompt_of
from model_core.tokenization.published.tokenizer import PromptTokenizer, pad_left
from tests.golden_road import document

PROMPTS = document("prompts.json")
FORMS = {
    "action_reasoning_one_view": (Form.FULL, Style.RELEASED),
    "action_reasoning_two_views": (Form.FULL, Style.QUICK_START),
    "action_reasoning_several_view_question_one_image": (Form.FULL, Style.QUICK_START),
    "trajectory_conditioned_one_view": (Form.STEERED, Style.RELEASED),
}
TRAINED = {"action_reasoning": Form.FULL, "trajectory_conditioned": Form.STEERED}


@cache
def tokenizer() -> PromptTokenizer:
    return PromptTokenizer.load()


@cache
def processor(name: str) -> ImageProcessor:
    config = PROMPTS["image_configs"][name]
    return ImageProcessor(
        base_image_input_size=tuple(config["base_image_input_size"]),
        overlap_margins=tuple(config["overlap_margins"]),
        max_crops=config["max_crops"],
        max_multi_image_crops=config["max_multi_image_crops"],
    ).as_published()


def grids(case, style: Style = Style.RELEASED):
    sizes = case.get("image_sizes_hw") or [case["image_size_hw"]]
    several = style.numbers_images(len(sizes))
    return processor(case["image_config"]).grids_of([tuple(size) for size in sizes], several=several)


def ids_of(case) -> dict[str, str]:
    return f"{case['id']}-{case['form']}"


def test_special_ids_are_the_published_ones():
    special, tokens = tokenizer().special, PROMPTS["tokens"]
    ours = {name: special.depth_id(name) for name in tokens if name.startswith("<DEPTH")}
    ours |= {
        "<|endoftext|>": special.eos,
        "|<EXTRA_TOKENS_0>|": special.fillers[0],
        "<im_start>": special.im_start,
        "<im_end>": special.im_end,
    }
    ours |= {"<im_patch>": special.im_patch, "<im_col>": special.im_col, "<|image|>": special.image, "<im_low>": special.im_low}
    assert ours == {name: token for name, token in tokens.items() if name != "len"}
    assert special.im_low + 1 == tokens["len"]


@pytest.mark.parametrize("case", PROMPTS["prompts"], ids=ids_of)
def test_prompts_of_the_published_programs(case):
    form, style = FORMS[case["form"]]
    wording = Wording(form=form, style=style, views=len(case["image_sizes_hw"]), published=True)
    made = prompt_of(tokenizer(), case["instruction"], grids(case, style), wording)
    assert made.text == case["rendered"]
    assert made.ids_L.tolist() == case["input_ids"]
    special = tokenizer().special
    assert made.image_places_N.tolist() == [place for place, token in enumerate(case["input_ids"]) if token == special.im_patch]
    if "pooled_patches_idx_shape" in case:
        assert case["pooled_patches_idx_shape"][1] == len(made.image_places_N)


def shaped(cases):
    """One case of each kind of images: their content does not change a shape."""
    return list({(str(case["image_sizes_hw"]), case["form"]): case for case in cases if "images_shape" in case}.values())


@pytest.mark.parametrize("case", shaped(PROMPTS["prompts"] + PROMPTS["training"]), ids=ids_of)
def test_crops_and_pooled_tokens_of_the_images(case):
    """The quick start with one image has the crops of several; training with one image has its own."""
    style = FORMS[case["form"]][1] if case["form"] in FORMS and "rendered" in case else Style.RELEASED
    frames = [np.zeros((*size, 3), np.uint8) for size in case["image_sizes_hw"]]
    made = processor(case["image_config"])(frames, several=style.numbers_images(len(frames)))
    batch = [1] if "rendered" in case else []
    assert [*batch, *made.images_CPD.shape] == case["images_shape"]
    assert [*batch, *made.pooled_patches_idx_N4.shape] == case["pooled_patches_idx_shape"]


def test_the_sizes_of_images_tell_what_the_processor_returns():
    small = processor("small")
    for sizes in ([(90, 130)], [(40, 40), (90, 130)], [(256, 256)], [(300, 40), (14, 14)]):
        for several in (None, True):
            for made in (small, replace(small, published=False)):
                frames = [np.zeros((*size, 3), np.uint8) for size in sizes]
                assert made.grids_of(sizes, several=several) == made(frames, several=several).image_grids
    assert processor("full").grids_of([(480, 640)]) == (((14, 14), (23, 23)),)
    assert ImageProcessor().grids_of([(480, 640)]) == (((14, 14), (14, 14)),)
    assert ImageProcessor(crop_mode="resize").grids_of([(480, 640)]) == (((14, 14),),)


@pytest.mark.parametrize("form", list(Form))
def test_the_quick_start_differs_from_the_simulation_policy_only_with_one_image(form):
    def asked(style: Style, views: int) -> list[int]:
        return prompt_of(tokenizer(), "stop", [[(1, 2)]] * views, Wording(form=form, style=style, views=views)).ids_L.tolist()

    assert asked(Style.QUICK_START, 2) == asked(Style.RELEASED, 2)
    assert asked(Style.QUICK_START, 1) != asked(Style.RELEASED, 1)


def test_a_published_prompt_keeps_what_ours_takes_away():
    published = Wording(published=True)
    assert ". What is the action" in published.question("block.")
    assert "The task is block.. " in published.question("block.")
    assert "The task is block. " in Wording().question(" block.  ")
    assert published.question("").startswith("The task is . ")
    with pytest.raises(GrammarError, match="expected plain words"):
        Wording().question(" . ")
    for wording in (Wording(), published):
        with pytest.raises(GrammarError, match=r"got .<\|."):
            wording.question("stop <|endoftext|> now")
    with pytest.raises(SpecError, match="for 2 image"):
        prompt_of(tokenizer(), "stop", [[(1, 1)]], Wording(views=2))


def reasoning_of(case) -> ActionReasoning:
    actions = np.array(case["raw_actions"], np.float32)
    stats = PublishedStats.of({"of": {"action": case["action_stats"]}})
    bins_TA = published_bins(published_normalized(actions, stats, dims=case["normalize_dims"]))
    start = first_action(case, bins_TA)
    return ActionReasoning(
        depth=DepthTokens(codes_G=np.array(case["depth_codes"], np.int64)),
        trace=Trace(points_N2=np.array(case["trace_points"], np.int64)),
        bins_KA=published_window(bins_TA, start, case["K"]),
    )


def first_action(case, bins_TA) -> int:
    """Examples of one episode begin at different steps: the one whose first action is the written one."""
    written = [bin_of_symbol(piece) for piece in case["action_text"].replace("[", "").split("]")[0].split(", ")]
    return next(step for step in range(len(bins_TA)) if bins_TA[step].tolist() == written)


@pytest.mark.parametrize("case", [case for case in PROMPTS["training"] if "wording" not in case], ids=ids_of)
def test_training_examples_from_codes_points_and_raw_actions(case):
    wording = Wording(
        form=TRAINED[case["form"]], style=Style.FINETUNED, views=case["view_count"], nested=case["action_kind"] == "chunk", published=True
    )
    reasoning = reasoning_of(case)
    assert render_actions(reasoning.bins_KA, nested=wording.nested) == case["action_text"]
    assert case["annotation"] == (case["trace_points"] if wording.form is Form.STEERED else None)
    annotation = annotation_of(case["instruction"], reasoning, wording)
    assert (annotation.question, annotation.answer) == (case["question"], case["answer"])
    check_sequence(case, annotation)


@pytest.mark.parametrize("case", [case for case in PROMPTS["training"] if "wording" in case], ids=ids_of)
def test_ids_of_sentences_that_are_in_no_published_code(case):
    check_sequence(case, Annotation(question=case["question"], answer=case["answer"]))


def check_sequence(case, annotation: Annotation) -> None:
    made = training_sequence(tokenizer(), grids(case), [annotation])
    assert case["messages"] == [f"User: {annotation.question} Assistant:", " " + annotation.answer]
    assert made.input_ids_L.tolist() == case["input_tokens"]
    assert made.targets_L.tolist() == case["target_tokens"]
    assert np.flatnonzero(made.weights_L)[0] == case["loss_mask_first_nonzero"] == case["prompt_token_count"] - 1
    assert np.count_nonzero(made.weights_L) == case["loss_mask_nonzero_count"]
    assert set(made.weights_L[made.weights_L != 0].tolist()) == {case["loss_mask_value"]}
    assert made.positions_L.tolist() == list(range(len(made)))
    assert len(made.image_places_N) == case["pooled_patches_idx_shape"][0]
    assert tokenizer().decode(made.targets_L[made.weights_L > 0]) == " " + annotation.answer


def test_a_batch_of_two_prompts_is_padded_on_the_left():
    case = PROMPTS["batch_left_padded"]
    instructions = ["pick up the bowl", "Pick up the red block."]
    prompts = [
        prompt_of(tokenizer(), instruction, processor(case["image_config"]).grids_of([tuple(size)]), Wording(published=True))
        for instruction, size in zip(instructions, case["image_sizes_hw"], strict=True)
    ]
    assert [prompt.text for prompt in prompts] == case["texts"]
    ids_BL, mask_BL = pad_left([prompt.ids_L for prompt in prompts], tokenizer().special.pad)
    assert ids_BL.tolist() == case["input_ids"]
    assert mask_BL.tolist() == case["attention_mask"]


def test_the_processor_frames_a_plain_text_alike():
    case = PROMPTS["processor_template_switch"]
    assert tokenizer().prompt_ids(case["text"], grids(case)).tolist() == case["input_ids"]
    assert case["rendered"] == f"User: {case['text']} Assistant:"


def test_a_weighted_example():
    case = PROMPTS["weighted_example"]
    annotation = Annotation(question=case["question"], answer=case["answer"])
    made = training_sequence(tokenizer(), grids(case), [annotation], weight=case["weight"])
    assert made.input_ids_L.tolist() == case["input_tokens"]
    assert made.targets_L.tolist() == case["target_tokens"]
    assert made.weights_L.tolist() == case["loss_masks"]
    with pytest.raises(SpecError, match="positive"):
        training_sequence(tokenizer(), grids(case), [annotation], weight=0.0)
    with pytest.raises(SpecError, match="at least one"):
        training_sequence(tokenizer(), grids(case), [])


def test_several_questions_about_one_image():
    case = PROMPTS["several_annotations"]
    annotations = [Annotation(question=question, answer=answer) for question, answer in case["message_list"]]
    made = training_sequence(tokenizer(), grids(case), annotations)
    assert made.input_ids_L.tolist() == case["input_tokens"]
    assert made.targets_L.tolist() == case["target_tokens"]
    assert made.weights_L.tolist() == np.array(case["loss_masks"], np.float32).tolist()
    assert made.positions_L.tolist() == case["position_ids"]
    assert made.subsegments_L.tolist() == case["subsegment_ids"]


def test_each_of_several_questions_sees_the_image_and_itself():
    annotations = [Annotation(question=f"{number}?", answer="yes") for number in range(3)]
    made = training_sequence(tokenizer(), [[(1, 2)]], annotations)
    seen_LL = seen_tokens(torch.from_numpy(made.subsegments_L)[None])[0, 0].numpy()
    image_L = made.subsegments_L == made.subsegments_L.max()
    for row in range(len(made)):
        own_L = image_L | (made.subsegments_L == made.subsegments_L[row])
        expected_L = (image_L if image_L[row] else own_L) & (np.arange(len(made)) <= row)
        assert (seen_LL[row] == expected_L).all()
    alone = training_sequence(tokenizer(), [[(1, 2)]], annotations[:1])
    assert (seen_tokens(torch.from_numpy(alone.subsegments_L)[None])[0, 0].numpy() == np.tri(len(alone), dtype=bool)).all()
