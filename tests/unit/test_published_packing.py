"""Packed and padded examples give one loss and one gradient; the loss of answer rows is that of full logits, in pieces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model_core.network.attention import Documents
from model_core.network.finetuning.answer_rows import RowTargets, answer_row_loss
from model_core.network.finetuning.dropout import ResidualDropout
from model_core.network.finetuning.lora import LoraSettings, add_lora
from model_core.network.finetuning.packing import TrainingExample, answer_states, packed_batch, padded_batch
from model_core.network.image_inputs import ImageInputs
from model_core.network.model import MolmoAct
from model_core.network.presets import SmallSize, molmoact_7b_o, small_processor, tiny_published
from model_core.spec.errors import SpecError
from tests.golden_road import document
from tests.unit.test_golden_loss import GRADIENT_TOLERANCE, LOSS_TOLERANCE, batch_of, close, model_of, recorded

SIZE = SmallSize(width=32, layers=2, heads=4, kv_heads=2, feed_forward=48, projector=24, vision_width=16, vision_layers=3, image_side=56)
ROWS = 320


def small_config(*, olmo: bool = False):
    """The published layout with 320 rows; of 7B-O's kind with a letterbox, padding embeddings and norms behind."""
    config = tiny_published(SIZE)
    config = replace(config, llm=replace(config.llm, vocab_size=ROWS, additional_vocab_size=8), image_patch_id=ROWS + 2)
    if not olmo:
        return config
    published = molmoact_7b_o()
    llm = replace(config.llm, norm_after=True, use_qk_norm=True, qkv_bias=False)
    vit = replace(config.vit, use_cls_token=True, pre_layernorm=True, patch_bias=False, image_num_pos=config.vit.image_num_pos + 1)
    adapter = replace(config.adapter, image_padding_embed=published.adapter.image_padding_embed)
    return replace(config, llm=llm, vit=vit, adapter=adapter)


def make_network(config, *, seed: int = 0) -> MolmoAct:
    model = MolmoAct(config)
    model.init_weights(seed, std=0.3)
    return model


def make_examples(config, count: int = 4, *, views: tuple[int, ...] = (1, 2, 1, 2)) -> list[TrainingExample]:
    """Examples of different lengths, with one view or two, whose frames are wide, so that a letterbox pads them."""
    rng, processor = np.random.default_rng(0), small_processor(config)
    found = []
    for number in range(count):
        frames = [rng.integers(0, 256, (30, 50, 3), dtype=np.uint8) for _ in range(views[number % len(views)])]
        inputs = processor(frames)
        patches = len(inputs.pooled_patches_idx_N4)
        prompt = [3, *[config.image_patch_id] * patches, *rng.integers(0, ROWS, 5 + number)]
        answer = rng.integers(0, ROWS, 3 + 4 * number)
        ids_L = np.concatenate([prompt, answer]).astype(np.int64)
        found.append(TrainingExample(ids_L=ids_L, answer_start=len(prompt), images=inputs, weight=1.0 + 0.5 * number, kind="depth"))
    return found


def loss_and_gradients(model, batch, **options):
    model.zero_grad()
    sums = answer_row_loss(model.lm_head, answer_states(model, batch), batch.targets, **options)
    sums.loss.backward()
    return sums, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(found, expected, tolerance: float = 2e-5):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if name.endswith("attention.wk.bias") or name.endswith("wk.bias"):
            continue  # zero in exact arithmetic
        largest = gradient.abs().max().clamp(min=1e-3)
        assert (found[name] - gradient).abs().max() <= tolerance * largest, name


@pytest.mark.parametrize("olmo", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_packed_equals_padded_and_one_by_one(olmo, recompute):
    torch.set_num_threads(1)
    config = small_config(olmo=olmo)
    model, examples = make_network(config), make_examples(config)
    model.model.transformer.checkpoint_activations = recompute
    packed, packed_grads = loss_and_gradients(model, packed_batch(examples))
    padded, padded_grads = loss_and_gradients(model, padded_batch(examples, length=300, pad_id=0, crops=9))
    assert float(packed.loss.detach()) == pytest.approx(float(padded.loss.detach()), rel=1e-6)
    assert_equal_gradients(packed_grads, padded_grads)
    alone = [loss_and_gradients(model, packed_batch([example])) for example in examples]
    assert float(packed.loss.detach()) == pytest.approx(sum(float(sums.loss.detach()) for sums, _ in alone), rel=1e-6)
    assert_equal_gradients(packed_grads, {name: sum(grads[name] for _, grads in alone) for name in packed_grads})


def test_nothing_but_its_own_tokens_decides_what_an_example_is_answered():
    config = small_config()
    model, examples = make_network(config).eval(), make_examples(config)
    other = replace(examples[0], ids_L=examples[0].ids_L.copy())
    other.ids_L[-1] = (other.ids_L[-1] + 7) % ROWS
    with torch.no_grad():
        first = answer_states(model, packed_batch(examples))
        second = answer_states(model, packed_batch([other, *examples[1:]]))
    changed = examples[0].answer_tokens
    assert torch.equal(first[changed:], second[changed:])


def test_a_packed_row_holds_no_padding_and_positions_begin_again():
    config = small_config()
    examples = make_examples(config)
    batch = packed_batch(examples)
    assert batch.ids_BL.shape == (1, sum(len(example.ids_L) for example in examples))
    assert [int(place) for place in batch.places_BL[0, :3]] == [0, 1, 2]
    starts = np.cumsum([0, *(len(example.ids_L) for example in examples)])[:-1]
    assert (batch.places_BL[0, torch.from_numpy(starts)] == 0).all()
    assert batch.images["images_BCPD"].shape[:2] == (1, sum(len(example.images.images_CPD) for example in examples))
    assert len(batch.rows_N) == sum(example.answer_tokens for example in examples)
    padded = padded_batch(examples, length=300, pad_id=0, crops=9)
    assert padded.images["images_BCPD"].shape[:2] == (4, 9)
    with pytest.raises(SpecError, match="a row has 20"):
        padded_batch(examples, length=20, pad_id=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_documents_are_a_block_mask(implementation):
    config = replace(small_config(), attention=implementation)
    model = make_network(config).eval()
    documents = Documents((3, 1, 6))
    x_BLD, places = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([[0, 1, 2, 0, *range(6)]] * 2)
    with torch.no_grad():
        expected = model.trunk(x_BLD, places, documents.mask().expand(2, -1, -1, -1))
        assert torch.allclose(model.trunk(x_BLD, places, documents), expected, atol=1e-5)
        with pytest.raises(SpecError, match="documents of 10 tokens"):
            model.trunk(x_BLD[:, :9], places[:, :9], documents)


def full_loss(head, hidden, labels, weights, z_loss, ids=None):
    """The plain form, in float64."""
    logits = (hidden.double() @ head.weight.double().T) if ids is None else (hidden.double() @ head.weight.double()[ids].T)
    places = labels if ids is None else torch.searchsorted(ids, labels)
    ce = F.cross_entropy(logits, places, reduction="none")
    z = z_loss * logits.logsumexp(-1).square()
    return ((ce + z) * weights).sum(), (ce * weights).sum(), (z * weights).sum()


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("some_ids", [False, True])
def test_answer_rows_in_pieces_are_the_loss_of_full_logits(rows, some_ids):
    rng = torch.Generator().manual_seed(3)
    head = torch.nn.Linear(16, 50, bias=False)
    hidden = torch.randn(23, 16, generator=rng, requires_grad=True)
    ids = torch.arange(0, 50, 2) if some_ids else None
    labels = torch.randint(0, 25, (23,), generator=rng) * 2
    weights = torch.rand(23, generator=rng)
    expected = full_loss(head, hidden, labels, weights, 1e-2, ids)
    wanted = torch.autograd.grad(expected[0], [hidden, head.weight])
    sums = answer_row_loss(head, hidden, RowTargets(labels_N=labels, weights_N=weights), z_loss=1e-2, rows_at_once=rows, ids_X=ids)
    found = torch.autograd.grad(3 * sums.loss, [hidden, head.weight])
    assert float(sums.loss) == pytest.approx(float(expected[0]), rel=1e-6)
    assert float(sums.cross_entropy) == pytest.approx(float(expected[1]), rel=1e-6)
    assert float(sums.z_loss) == pytest.approx(float(expected[2]), rel=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, 3 * other.float(), atol=1e-5)
    with torch.no_grad():
        assert float(
            answer_row_loss(head, hidden, RowTargets(labels_N=labels, weights_N=weights), z_loss=1e-2, ids_X=ids).loss
        ) == pytest.approx(float(expected[0]), rel=1e-6)


def test_a_head_with_adapters_learns_through_them():
    config = small_config()
    model = add_lora(make_network(config), LoraSettings(rank=4, alpha=2))
    batch = packed_batch(make_examples(config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    sums, grads = loss_and_gradients(model, batch, rows_at_once=5)
    states = answer_states(model, batch)
    logits = model.lm_head(states)
    expected = (
        F.cross_entropy(logits, batch.targets.labels_N, reduction="none") + 1e-4 * logits.logsumexp(-1) ** 2
    ) @ batch.targets.weights_N
    model.zero_grad()
    expected.backward()
    assert float(sums.loss) == pytest.approx(float(expected), rel=1e-6)
    assert_equal_gradients(grads, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert set(grads) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lm_head" in name for name in grads), "the head is a linear layer, and adapted like every other"


def test_a_label_outside_the_ids_that_compete_is_refused():
    head, hidden = torch.nn.Linear(4, 10, bias=False), torch.zeros(2, 4)
    targets = RowTargets(labels_N=torch.tensor([2, 5]), weights_N=torch.ones(2))
    with pytest.raises(SpecError, match=r"not among the ids that compete.*5"):
        answer_row_loss(head, hidden, targets, ids_X=torch.tensor([0, 2, 4, 6]))


def test_half_precision_keeps_the_loss_in_float32():
    config = small_config()
    model, batch = make_network(config), packed_batch(make_examples(config))
    whole, _ = loss_and_gradients(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = answer_row_loss(model.lm_head, answer_states(model, batch), batch.targets)
    half.loss.backward()
    assert half.loss.dtype == torch.float32
    assert model.lm_head.weight.grad.dtype == torch.float32
    assert float(half.loss) == pytest.approx(float(whole.loss), rel=2e-2)


@pytest.mark.parametrize("family", ["tiny_d", "tiny_o"])
def test_packed_rows_give_the_published_loss_and_gradients(family):
    """The recorded batch of the published trainer, which pads, packed into one row."""
    model, numbers, batch = model_of(family), document(f"loss/{family}.json")["weighted"], batch_of(family, "weighted")
    examples, rows, begin = [], [], 0
    for row, ids in enumerate(batch["input_ids"]):
        crops, windows = recorded(family)["batch.images"][row], recorded(family)["batch.pooled_patches_idx"][row]
        real = int((crops.flatten(1) != -1).any(1).sum())
        inputs = ImageInputs(
            images_CPD=crops[:real].numpy(),
            pooled_patches_idx_N4=windows[(windows >= 0).any(-1)].numpy(),
            image_masks_CP=np.ones(crops[:real].shape[:2], np.float32),
            image_grids=(),
        )
        examples.append(TrainingExample(ids_L=ids[ids >= 0].numpy(), answer_start=1, images=inputs))
        rows.append(begin + (batch["loss_masks"][row] > 0).nonzero().squeeze(1))  # answers with other text between them
        begin += len(examples[-1].ids_L)
    counted = batch["loss_masks"] > 0
    targets = RowTargets(labels_N=batch["labels"][counted], weights_N=batch["loss_masks"][counted])
    packed = replace(packed_batch(examples), rows_N=torch.cat(rows), targets=targets)
    del packed.images["image_masks_BCP"]  # the recording gave none
    model.zero_grad()
    sums = answer_row_loss(model.lm_head, answer_states(model, packed), packed.targets, rows_at_once=5)
    divisor = numbers["divisor_sum_of_loss_masks"]
    assert sums.cross_entropy.item() == pytest.approx(numbers["ce_sum"], rel=LOSS_TOLERANCE)
    assert sums.z_loss.item() == pytest.approx(numbers["z_sum"], rel=LOSS_TOLERANCE)
    (sums.loss / divisor).backward()
    compared = [key for key in recorded(family) if key.startswith("weighted.grad.")]
    assert len(compared) == 10
    for key in compared:
        assert close(model.get_parameter(key.removeprefix("weighted.grad.")).grad, recorded(family)[key], GRADIENT_TOLERANCE), key


def dropped_step(model: MolmoAct, batch, *, share: float = 0.1, recompute: bool = False):
    """Hidden states of a step, and the gradient of their sum of squares."""
    model.zero_grad()
    model.model.transformer.checkpoint_activations = recompute
    states = answer_states(model, batch, dropout=share)
    states.square().sum().backward()
    return states.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("olmo", [False, True])
def test_what_is_dropped_follows_from_the_draw_alone(olmo: bool):
    config = small_config(olmo=olmo)
    model, plain = make_network(config).train(), packed_batch(make_examples(config, 2))
    batch = replace(plain, draw=(0, 3, 1))
    states, gradient = dropped_step(model, batch)
    again, recomputed = dropped_step(model, batch, recompute=True)
    assert torch.equal(states, again)
    assert all(torch.equal(one, recomputed[name]) for name, one in gradient.items()), "a block that is computed again drops the same"
    for other in ((1, 3, 1), (0, 4, 1), (0, 3, 2)):
        assert not torch.equal(states, dropped_step(model, replace(plain, draw=other))[0])
    whole = dropped_step(model, batch, share=0.0)[0]
    assert not torch.equal(states, whole)
    assert torch.equal(whole, dropped_step(model, plain)[0]), "outside a training there is no draw"
    assert torch.equal(whole, dropped_step(model.eval(), batch)[0]), "held-out loss is measured without"


def test_a_share_is_dropped_and_the_rest_keeps_the_mean():
    drop, ones = ResidualDropout(share=0.1, draw=(0, 0, 0)), torch.ones(1, 200, 100)
    first, second = drop(ones, 0), drop(ones, 1)
    assert float((first == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(first.mean()) == pytest.approx(1.0, abs=0.01)
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert not torch.equal(first, second), "each addition drops numbers of its own"
