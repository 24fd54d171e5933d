import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.data_config import AnnotateConfig
from components.data.annotators.depth_anything import DepthAnything
from components.data.annotators.interface import Frames
from components.data.annotators.molmoact_pointing import OwnPointing, continuation
from components.data.annotators.open import open_annotators
from components.data.annotators.transformers_pointing import PROMPT, GripperPointer, parse_point
from model_core.network.checkpoints.hub import load_pretrained, save_pretrained
from model_core.network.config import MolmoActConfig
from model_core.network.images import ImageProcessor
from model_core.network.model import MolmoAct
from model_core.parity import greedy
from model_core.spec.errors import CheckpointError, DatasetError, SpecError
from model_core.tokenization.depth.config import DepthScaling
from model_core.tokenization.published.text_encoding import byte_to_surface
from model_core.tokenization.published.tokenizer import PromptTokenizer
from tests.label_models import write_depth_model, write_pointing_model

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 42, 56, 3), np.uint8)
FRAMES = Frames(images_THW3=IMAGES, size=(42, 56), count=3)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory) -> Path:
    """Depth Anything V2's classes with random weights of a few thousand parameters."""
    return write_depth_model(tmp_path_factory.mktemp("depth"))


def test_depth_anything_gives_stretched_disparity_per_frame(depth_folder):
    annotator = DepthAnything.load(str(depth_folder), size=28, batch_size=2)
    maps = annotator.annotate(FRAMES)
    assert maps.shape == (3, 42, 56)
    assert maps.dtype == np.uint8
    assert [(m.min(), m.max()) for m in maps] == [(0, 255)] * 3
    alone = DepthAnything.load(str(depth_folder), size=28, batch_size=1)
    assert np.abs(alone.annotate(FRAMES).astype(int) - maps).max() <= 1
    assert alone.version == annotator.version
    assert annotator.scaling.kind == "relative"


def test_depth_versions_name_weights_and_size(depth_folder, tmp_path):
    from transformers import AutoModelForDepthEstimation

    first = DepthAnything.load(str(depth_folder), size=28)
    assert DepthAnything.load(str(depth_folder), size=42).version != first.version
    model = AutoModelForDepthEstimation.from_pretrained(depth_folder)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    assert DepthAnything(model=model, processor=first.processor, name=first.name, digest="x", size=28).version != first.version
    with pytest.raises(SpecError, match="multiple of 14"):
        DepthAnything.load(str(depth_folder), size=500)


def test_missing_weights_name_the_source(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        DepthAnything.load(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="nowhere"):
        GripperPointer.load(str(tmp_path / "nowhere"))


def test_weights_that_a_checkpoint_lacks_are_not_made_up(depth_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(depth_folder, folder)
    weights = load_file(folder / "model.safetensors")
    gone = sorted(name for name in weights if name.startswith("head."))[0]
    save_file({name: value for name, value in weights.items() if name != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"partial' lacks 1 weights of DepthAnythingForDepthEstimation, the first {gone}.*Fix:"):
        DepthAnything.load(str(folder))


def test_a_checkpoint_in_half_precision_is_asked_in_it_and_pillow_prepares_the_images(depth_folder, tmp_path):
    from transformers import AutoModelForDepthEstimation

    AutoModelForDepthEstimation.from_pretrained(depth_folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    shutil.copyfile(depth_folder / "preprocessor_config.json", tmp_path / "preprocessor_config.json")
    half = DepthAnything.load(str(tmp_path), size=28)
    whole = DepthAnything.load(str(depth_folder), size=28)
    assert (half.model.dtype, whole.model.dtype) == (torch.bfloat16, torch.float32)
    assert np.abs(half.annotate(FRAMES).astype(int) - whole.annotate(FRAMES)).mean() < 8
    assert type(half.processor).__name__.endswith("Pil")


def test_flat_answers_and_missing_pictures_are_refused(depth_folder):
    annotator = DepthAnything.load(str(depth_folder), size=28)
    with torch.no_grad():
        for parameter in annotator.model.parameters():
            parameter.zero_()
    with pytest.raises(DatasetError, match="frame 0"):
        annotator.annotate(FRAMES)
    with pytest.raises(DatasetError, match="3 images"):
        annotator.annotate(Frames(images_THW3=IMAGES[:1], size=(42, 56), count=3))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('<point x="50.0" y="25" alt="gripper">gripper</point>', (100.0, 25.0)),
        (' Here: <point x="0.4" y="99.9" alt="a">a</point>', (1.0, 99.0)),
        ('<points x1="10.0" y1="20.0" x2="30" y2="40" alt="g">g</points>', (20.0, 20.0)),
        ('<point x="100" y="100" alt="g">g</point>', (199.0, 99.0)),
        ('<points coords="1 1 614 404" alt="g">g</points>', (123.0, 40.0)),
        ('<points coords="1 1 500 250 2 700 800" alt="g">g</points>', (100.0, 25.0)),
        ("There is no gripper in the image.", None),
        ('<point x="101" y="5" alt="g">', None),
        ('<point x="nan" y="5" alt="g">', None),
        ('<point y="5" alt="g">', None),
        ('<point x="-5" y="5" alt="g">', None),
        ("", None),
    ],
)
def test_point_tags(answer, expected):
    assert parse_point(answer, width=200, height=100) == expected


def test_unanswered_frames_are_not_visible():
    answers = iter(['<point x="50" y="50" alt="g">g</point>', "None.", '<point x="25" y="75" alt="g">g</point>'])
    asked = []

    def ask(image: np.ndarray, prompt: str) -> str:
        asked.append((image.shape, prompt))
        return next(answers)

    track = GripperPointer(ask=ask, name="m", digest="0").annotate(FRAMES)
    assert asked == [((42, 56, 3), PROMPT)] * 3
    assert track.visible_T.tolist() == [True, False, True]
    assert track.points_T2[0].tolist() == [28, 21]
    assert np.isnan(track.points_T2[1]).all()
    assert track.confidence_T.tolist() == [1, 0, 1]


@pytest.fixture(scope="module")
def pointing_folder(tmp_path_factory) -> Path:
    """An image-text-to-text model with random weights, a word tokenizer and its processor, saved as such models are."""
    return write_pointing_model(tmp_path_factory.mktemp("pointing"))


def test_a_random_pointing_model_loads_and_answers_nothing_readable(pointing_folder):
    pointer = GripperPointer.load(str(pointing_folder))
    track = pointer.annotate(Frames(images_THW3=IMAGES[:1], size=(42, 56), count=1))
    assert track.visible_T.tolist() == [False]
    assert type(pointer.ask._processor.image_processor).__name__.endswith("Pil")
    assert pointer.digest in pointer.version


ANSWER = ' <point x="50.0" y="25" alt="gripper">gripper</point>'
GOLDEN = Path(__file__).parents[1] / "golden" / "model" / "tiny_d" / "config.json"


def own_tokenizer(folder: Path) -> None:
    """Bytes, one id for a whole answer, and the published added tokens: 275 base rows, image tokens behind them."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    surface = "".join(byte_to_surface()[byte] for byte in ANSWER.encode())
    tokenizer = Tokenizer(BPE(vocab={char: byte for byte, char in enumerate(byte_to_surface())} | {surface: 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True), AddedToken("<|pad|>", special=True)])
    tokenizer.add_tokens(["<DEPTH_START>", "<DEPTH_END>", *(f"<DEPTH_{k}>" for k in range(4))])
    fillers = [f"|<EXTRA_TOKENS_{k}>|" for k in range(10)]
    image = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>", "<im_low>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in [*fillers, *image]])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory) -> Path:
    """The small published-layout network with random weights, and a tokenizer of its own."""
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    data["llm_config"] |= {"vocab_size": 275, "additional_vocab_size": 16}
    config = MolmoActConfig.from_json(data | {"image_patch_id": 277})
    model = MolmoAct(config)
    model.init_weights(3)
    folder = tmp_path_factory.mktemp("own")
    save_pretrained(model, folder, processor=ImageProcessor.for_network(config, overlap_margins=(1, 1)))
    own_tokenizer(folder)
    return folder


def test_a_random_network_of_our_own_answers_nothing_readable_and_says_so(own_folder, caplog):
    first = OwnPointing.load(str(own_folder), batch_size=2, max_new_tokens=12, device="cpu")
    with caplog.at_level(logging.WARNING):
        track = first.annotate(FRAMES)
    assert track.visible_T.tolist() == [False] * 3
    assert np.isnan(track.points_T2).all()
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [f"frame {t}: no gripper point" for t in range(3)]
    again = OwnPointing.load(str(own_folder), batch_size=3, max_new_tokens=12, device="cpu")
    assert again.answer(IMAGES, PROMPT, 12) == [*first.answer(IMAGES[:2], PROMPT, 12), *first.answer(IMAGES[2:], PROMPT, 12)]
    assert again.version == first.version
    assert OwnPointing.load(str(own_folder), max_new_tokens=13, device="cpu").version != first.version
    with pytest.raises(DatasetError, match="3 images"):
        first.annotate(Frames(images_THW3=IMAGES[:1], size=(42, 56), count=3))


def test_own_continuation_is_greedy_and_padding_changes_nothing(own_folder):
    model = load_pretrained(own_folder)
    none = torch.zeros(0, 64)
    ids = torch.tensor([[65, 66, 67, 68]])
    expected = greedy(model, ids, None, torch.ones_like(ids), torch.arange(4)[None], steps=6)[0].tolist()
    padded = torch.tensor([[258, 258, 65, 66, 67, 68], [70, 71, 72, 73, 74, 75]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with torch.inference_mode():
        assert continuation(model, padded, none, mask, eos=-1, most=6)[0] == expected
        stopped = continuation(model, padded, none, mask, eos=expected[2], most=6)[0]
    assert stopped == expected[: expected.index(expected[2])]


def test_weights_that_write_a_point_tag_give_its_place(own_folder, tmp_path):
    """The blocks are silenced, so that the head alone decides: after the prompt's last token the answer, after that the end."""
    tokenizer = PromptTokenizer.load(own_folder)
    model = load_pretrained(own_folder)
    table, head = model.model.transformer.wte.embedding, model.lm_head.weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "transformer.blocks" in name and name.endswith(("attn_out.weight", "ff_out.weight")):
                parameter.zero_()
        head.zero_()
        head[256] = table[ord(":")]
        head[tokenizer.special.eos] = table[256]
    save_pretrained(model, tmp_path, processor=ImageProcessor.from_json(own_folder))
    (tmp_path / "tokenizer.json").write_bytes((own_folder / "tokenizer.json").read_bytes())
    chosen = open_annotators(AnnotateConfig(point_annotator="pointing", point_model=str(tmp_path))).points
    assert isinstance(chosen, OwnPointing)
    assert chosen.answer(IMAGES[:1], PROMPT, 8) == [ANSWER]
    track = chosen.annotate(FRAMES)
    assert track.visible_T.all()
    assert track.points_T2.tolist() == [[28.0, 10.0]] * 3
    other = OwnPointing.load(str(own_folder), device="cpu")
    assert chosen.digest != other.digest


def test_other_networks_are_still_asked_through_transformers(pointing_folder):
    chosen = open_annotators(AnnotateConfig(point_annotator="pointing", point_model=str(pointing_folder))).points
    assert isinstance(chosen, GripperPointer)


def test_a_tokenizer_of_another_vocabulary_is_refused(own_folder, tmp_path):
    for file in own_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_patch_id": 278}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="id 278"):
        OwnPointing.load(str(tmp_path), device="cpu")


class SlopeDepth:
    """A depth annotator of somebody else, in this file alone."""

    version = "slope/1"
    scaling = DepthScaling(kind="inverse", near_m=0.4, far_m=3.0)
    needs_images = False

    def annotate(self, frames):
        height, width = frames.size
        return np.tile(np.linspace(0.5, 2.5, height)[:, None], (frames.count, 1, width)).astype(np.float32)


def open_slope(cfg):
    return SlopeDepth()


def test_an_annotator_of_ones_own_is_one_function_in_the_recipe():
    chosen = open_annotators(AnnotateConfig(depth_annotator="tests.unit.test_annotators:open_slope"))
    assert chosen.depth.version == "slope/1"
    assert chosen.depth.annotate(FRAMES).shape == (3, *FRAMES.size)
    assert not chosen.needs_images
    with pytest.raises(SpecError, match=r"no annotator 'tests\.unit\.test_annotators:open_slop' .*expected 'package\.module:function'"):
        open_annotators(AnnotateConfig(depth_annotator="tests.unit.test_annotators:open_slop"))


def test_images_of_any_batch_are_answered_as_alone(depth_folder, pointing_folder, own_folder):
    depth = DepthAnything.load(str(depth_folder), size=28, batch_size=2, device="cpu")
    answers = depth.answer_images(IMAGES)
    assert np.array_equal(answers.columns["depth"], depth.annotate(FRAMES))
    assert not answers.errors
    for pointer in (
        GripperPointer.load(str(pointing_folder), batch_size=3, device="cpu"),
        OwnPointing.load(str(own_folder), max_new_tokens=6),
    ):
        found = pointer.answer_images(IMAGES).columns
        alone = pointer.annotate(FRAMES)
        assert found["visible"].tolist() == alone.visible_T.tolist() == [False] * 3
        assert pointer.provenance["weights"] == pointer.digest
    texts = GripperPointer.load(str(pointing_folder), device="cpu")
    assert texts.ask_all is not None
    assert texts.ask_all(IMAGES, PROMPT) == [texts.ask(image, PROMPT) for image in IMAGES]
