"""Plans of trainings: every figure equals a calculation by hand, what cannot fit is refused with what would, and a dry run builds it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from components.config.published.training import ExampleGroup, PublishedTraining
from components.config.train_config import TrainConfig
from components.training.published.shapes import network_shape
from components.training.sizing.counts import parameter_counts
from components.training.sizing.dry_run import dry_run
from components.training.sizing.example_tokens import ActionShape, example_shape
from components.training.sizing.flop import ExampleShape, example_flop
from components.training.sizing.machines import GIB, accelerator
from components.training.sizing.memory import Sharing, decoder_block_bytes, memory_parts, vision_block_bytes
from components.training.sizing.plan import fitting_changes, plan_training, require_fit
from flows.commands.cluster.commands import cluster_app
from flows.pipeline.recipes import RECIPES, get_recipe
from model_core.network.language import DecoderBlock, rotary
from model_core.network.presets import molmoact_7b_d, molmoact_7b_o, tiny_published
from model_core.network.vision import ImageBlock
from model_core.spec.errors import SpecError

# ---- by hand, from the published sizes

D_BLOCK = 4608 * 3584 + 4608 + 3584 * 3584 + 37888 * 3584 + 3584 * 18944 + 2 * 3584
D_DECODER = 2 * 152064 * 3584 + 28 * D_BLOCK + 3584
D_TOWER_BLOCK = 4 * (1152 * 1152 + 1152) + (4304 * 1152 + 4304) + (1152 * 4304 + 1152) + 4 * 1152
D_VISION = 729 * 1152 + (588 * 1152 + 1152) + 25 * D_TOWER_BLOCK
D_CONNECTOR = 128 * 3584 + 3 * (2304 * 1152 + 1152) + (1152 * 1152 + 1152) + 2 * 18944 * 1152 + 3584 * 18944
D_ADAPTERS = 32 * (
    28 * ((3584 + 4608) + (3584 + 3584) + (3584 + 37888) + (18944 + 3584))
    + (3584 + 152064)
    + (588 + 1152)
    + 25 * (4 * (1152 + 1152) + 2 * (1152 + 4304))
    + (3 * (2304 + 1152) + (1152 + 1152) + 2 * (1152 + 18944) + (18944 + 3584))
)
O_BLOCK = 12288 * 4096 + 4096 * 4096 + 2 * 4096 + 22016 * 4096 + 4096 * 11008 + 2 * 4096
O_DECODER = 2 * 100864 * 4096 + 32 * O_BLOCK + 4096
O_TOWER_BLOCK = 4 * (1024 * 1024 + 1024) + (4096 * 1024 + 4096) + (1024 * 4096 + 1024) + 4 * 1024
O_VISION = 577 * 1024 + 588 * 1024 + 1024 + 2 * 1024 + 22 * O_TOWER_BLOCK
O_CONNECTOR = 128 * 4096 + 2 * 2048 + 3 * (2048 * 1024 + 1024) + (1024 * 1024 + 1024) + 2 * 11008 * 1024 + 4096 * 11008
O_ADAPTERS = 32 * (
    32 * ((4096 + 12288) + (4096 + 4096) + (4096 + 22016) + (11008 + 4096))
    + (4096 + 100864)
    + (588 + 1024)
    + 22 * (4 * (1024 + 1024) + 2 * (1024 + 4096))
    + (3 * (2048 + 1024) + (1024 + 1024) + 2 * (1024 + 11008) + (11008 + 4096))
)
BY_HAND = {
    "molmoact-7b-d": (D_DECODER, D_CONNECTOR, D_VISION, D_ADAPTERS),
    "molmoact-7b-o": (O_DECODER, O_CONNECTOR, O_VISION, O_ADAPTERS),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_parameters_by_part(name):
    config = network_shape(TrainConfig(network=name)).config
    decoder, connector, vision, adapters = BY_HAND[name]
    full, adapted = parameter_counts(config), parameter_counts(config, 32)
    assert (full.decoder, full.connector, full.vision) == (decoder, connector, vision)
    assert full.total == full.trained == decoder + connector + vision
    assert (adapted.adapters, adapted.trained) == (adapters, adapters)
    assert adapted.total == full.total
    assert full.block == config.llm.vocab_size * config.llm.hidden_size, "the largest unit is a table"


def test_the_sum_is_the_published_size():
    assert pytest.approx(8.119e9, rel=1e-3) == D_DECODER + D_CONNECTOR + D_VISION
    assert pytest.approx(7.657e9, rel=1e-3) == O_DECODER + O_CONNECTOR + O_VISION


SHAPE = ExampleShape(prompt=971, answer=430, image_tokens=784, crops=2, head_rows=430)


def test_flop_of_7b_d():
    found = example_flop(molmoact_7b_d(), SHAPE)
    layers = 28 * (4608 * 3584 + 3584 * 3584 + 37888 * 3584 + 3584 * 18944)
    decoder = 2 * layers * 1401 + 2 * 28 * 28 * 128 * 1401**2
    tower = 588 * 1152 + 25 * (4 * 1152 * 1152 + 2 * 1152 * 4304)
    vision = 2 * (2 * tower * 729 + 4 * 25 * 16 * 72 * 729**2)
    pooled = 2304 * 1152 + 1152 * 1152 + 2 * 18944 * 1152 + 3584 * 18944
    connector = 2 * (pooled + 4 * 2 * 2304 * 1152) * 784
    head = 2 * 152064 * 3584 * 430
    assert (found.decoder, found.vision, found.connector, found.head) == pytest.approx((decoder, vision, connector, head), rel=1e-12)
    assert found.training == pytest.approx(3 * (decoder + vision + connector + head), rel=1e-12)


def test_flop_of_adapters_on_7b_o():
    config, shape = molmoact_7b_o(), ExampleShape(prompt=800, answer=430, image_tokens=576, crops=2, head_rows=430)
    found = example_flop(config, shape, lora_rank=32)
    body = 32 * 32 * ((4096 + 12288) + (4096 + 4096) + (4096 + 22016) + (11008 + 4096))
    tower = 32 * ((588 + 1024) + 22 * (4 * (1024 + 1024) + 2 * (1024 + 4096)))
    pooled = 32 * ((2048 + 1024) + (1024 + 1024) + 2 * (1024 + 11008) + (11008 + 4096))
    adapters = 2 * (body * 1230 + 32 * (4096 + 100864) * 430 + tower * 2 * 577 + (pooled + 4 * 2 * 32 * (2048 + 1024)) * 576)
    assert found.adapters == pytest.approx(adapters, rel=1e-12)
    forward = found.decoder + found.head + found.vision + found.connector
    assert found.training == pytest.approx(2 * forward + 3 * adapters, rel=1e-12)
    assert found.training < 0.72 * example_flop(config, shape).training


def test_memory_of_all_weights_on_256_gpus():
    sharing = Sharing(world=256, zero_stage=3, examples=2, loss_rows=256)
    parts = memory_parts(molmoact_7b_d(), parameter_counts(molmoact_7b_d()), SHAPE, sharing)
    every, table = D_DECODER + D_CONNECTOR + D_VISION, 152064 * 3584
    assert parts.weights == math.ceil(4 * every / 256)
    assert parts.gradients == math.ceil(4 * every / 256)
    assert parts.optimiser == math.ceil(8 * every / 256)
    assert parts.gathered == 3 * 4 * table
    assert parts.casts == 2 * 2 * table
    assert parts.logits == 256 * 152064 * 8
    block = 2 * 8 * 3584 + 2 * 3584 + 2 * (3584 + 1024) + 2 * 3584 + 2 * 3584 + 2 * 3584 + 4 * 18944 + 2 * 18944 + 2 * 18944
    tower = 2 * 4 * 1152 + 2 * 1152 + 6 * 1152 + 2 * 1152 + 2 * 1152 + 2 * 1152 + 4 * 4304
    connector = 4 * 6 * 2304 + 6 * 2304 + 2 * 1152 * 11 + 2 * 1152 + 8 * 18944
    assert parts.activations == 2 * 1401 * (4 * 3584 * 29 + block) + 4 * 729 * 25 * tower + 2 * 784 * connector
    assert parts.total == sum((parts.weights, parts.gradients, parts.optimiser, parts.gathered, parts.casts)) + (
        parts.activations + parts.logits + 3 * GIB
    )


def test_memory_of_adapters_with_whole_weights():
    config = molmoact_7b_o()
    sharing = Sharing(world=8, zero_stage=2, examples=1, loss_rows=1000)
    parts = memory_parts(config, parameter_counts(config, 32), SHAPE, sharing)
    every = O_DECODER + O_CONNECTOR + O_VISION
    assert parts.weights == 4 * (every + O_ADAPTERS)
    assert parts.gradients == math.ceil(4 * O_ADAPTERS / 8)
    assert parts.optimiser == math.ceil(8 * O_ADAPTERS / 8)
    assert parts.gathered == 0
    assert parts.casts == 2 * (every + O_ADAPTERS)
    assert parts.logits == 430 * 100864 * 8, "an example has no more answer rows than that"


def kept_bytes(run) -> int:
    """What autograd holds for the backward pass, each storage once; weights are not counted."""
    kept: dict[int, int] = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())


@pytest.mark.parametrize("olmo", [False, True])
def test_what_a_decoder_block_keeps_is_what_autograd_holds(olmo):
    torch.set_num_threads(1)
    config = tiny_published()
    llm = replace(config.llm, norm_after=olmo, qkv_bias=not olmo)
    block, length = DecoderBlock(llm, 0, "sdpa"), 256
    x_BLD = torch.randn(1, length, llm.hidden_size, requires_grad=True)
    cos_sin = rotary(torch.arange(length)[None], llm.head_dim, llm.rope_theta)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = kept_bytes(lambda: block(x_BLD, cos_sin, None, True, None))
    casts = 2 * sum(one.numel() for one in block.parameters() if one.ndim == 2)
    expected = length * decoder_block_bytes(replace(config, llm=llm))
    assert kept - casts == pytest.approx(expected, rel=0.2)


def test_what_a_tower_block_keeps_is_what_autograd_holds():
    torch.set_num_threads(1)
    config = tiny_published()
    block, patches = ImageBlock(config.vit, "sdpa"), 128
    x = torch.randn(2, patches, config.vit.hidden_size, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = kept_bytes(lambda: block(x))
    casts = 2 * sum(one.numel() for one in block.parameters() if one.ndim == 2)
    assert kept - casts == pytest.approx(2 * patches * vision_block_bytes(config), rel=0.2)


def test_tokens_are_those_of_published_examples():
    shape = network_shape(TrainConfig(network="molmoact-7b-d"))
    only = (ExampleGroup(name="all", kinds={"action_reasoning": 1.0}),)
    found = example_shape(shape.config, shape.processor, shape.tokenizer, ActionShape(views=2, chunk_length=8), only)
    assert (found.image_tokens, found.crops) == (2 * 2 * 196, 2)
    assert 445 <= found.answer <= 470, "five points; fewer points shorten it to 407"
    assert 1 + 2 * (3 + 424) + 117 - 10 <= found.prompt <= 1 + 2 * (3 + 424) + 149
    one = example_shape(shape.config, shape.processor, shape.tokenizer, ActionShape(views=1, chunk_length=1), only)
    assert 179 <= one.answer <= 217
    halves = (ExampleGroup(name="a", kinds={"action_reasoning": 1.0}), ExampleGroup(name="b", kinds={"depth": 1.0}))
    mixed = example_shape(shape.config, shape.processor, shape.tokenizer, ActionShape(views=1, chunk_length=1), halves)
    assert mixed.answer < one.answer


@pytest.mark.parametrize(
    ("name", "gpus", "batch", "steps", "views", "chunk", "rank"),
    [
        ("molmoact_pretrain", 256, 512, 100_000, 1, 1, 0),
        ("molmoact_midtrain", 128, 256, 50_000, 2, 1, 0),
        ("molmoact_libero_spatial", 64, 128, 50_000, 2, 8, 32),
        ("molmoact_libero_object", 64, 128, 50_000, 2, 8, 32),
        ("molmoact_libero_goal", 64, 128, 40_000, 2, 8, 32),
        ("molmoact_libero_long", 64, 128, 80_000, 2, 8, 32),
        ("molmoact_finetune", 8, 16, 10_000, 2, 8, 32),
    ],
)
def test_the_published_schedule(name, gpus, batch, steps, views, chunk, rank):
    recipe = get_recipe(name)
    train, published = recipe.train, recipe.train.published
    assert (train.world_size, train.global_batch, train.steps) == (gpus, batch, steps)
    assert (published.views, recipe.freeze.chunk_length, train.lora_rank, train.warmup_steps) == (views, chunk, rank, 200)
    assert train.min_learning_rate == pytest.approx(train.learning_rate / 10)
    plan = plan_training(recipe, accelerator("h100"))
    require_fit(plan)
    document = json.loads(json.dumps(plan.document()))
    assert document["step"]["tokens"] == batch * plan.example.tokens
    hours = steps * batch * plan.flop.training / (989e12 * 0.4) / 3600
    assert document["time"]["gpu_hours"] == pytest.approx(hours)
    assert document["time"]["hours"] == pytest.approx(hours / gpus)
    assert plan.padded.tokens == 2304
    assert document["time"]["padded_gpu_hours"] > 1.5 * hours


def test_the_paper_stands_beside_the_plan():
    plan = plan_training(get_recipe("molmoact_pretrain"), accelerator("h100"))
    paper = plan.document()["paper_gpu_hours"]
    assert (paper["low"], paper["high"]) == (9216, 9728)
    work = 100_000 * 512 * plan.flop.training
    assert paper["mfu_of_this_work"] == pytest.approx([work / (9728 * 3600 * 989e12), work / (9216 * 3600 * 989e12)])
    assert any("9,216 to 9,728 GPU hours" in line for line in plan.lines())
    assert "paper_gpu_hours" in plan_training(get_recipe("molmoact_finetune"), accelerator("h100")).document()


def test_group_rates_are_the_published_ones():
    groups = {group.name: group for group in get_recipe("molmoact_pretrain").train.published.groups}
    assert {name: group.rate for name, group in groups.items()} == {
        "fractal20220817_data": 0.40, "bridge_dataset": 0.25, "bc_z": 0.15, "auxiliary": 0.15
    }  # fmt: skip
    assert groups["auxiliary"].kinds == {"depth": 0.5, "trace": 0.5}
    rates = get_recipe("molmoact_midtrain").train.published.learning_rates
    assert (rates.connector, rates.vit, get_recipe("molmoact_midtrain").train.learning_rate) == (5e-6, 5e-6, 1e-5)


def test_what_cannot_fit_is_refused_with_what_would():
    recipe = get_recipe("molmoact_pretrain")
    alone = replace(recipe, train=replace(recipe.train, world_size=1, zero_stage=0))
    plan = plan_training(alone, accelerator("h100"))
    assert not plan.fits
    with pytest.raises(
        SpecError, match=r"molmoact_pretrain on 1 x h100: expected at most 79.1 GiB a GPU, got 1\d\d\.\d .*Fix: .*lora_rank=32"
    ):
        require_fit(plan)
    eight = plan_training(replace(recipe, train=replace(recipe.train, world_size=8, zero_stage=0)), accelerator("h100"))
    assert "--set train.zero_stage=2" in fitting_changes(eight)
    assert plan_training(replace(recipe, train=replace(eight.train, zero_stage=2)), accelerator("h100")).fits
    crowded = plan_training(replace(recipe, train=replace(recipe.train, world_size=8, micro_batch=64)), accelerator("h100"))
    assert not crowded.fits
    changes = fitting_changes(crowded)
    assert any(change.startswith("--set train.micro_batch=") for change in changes)
    spread = replace(recipe.train, world_size=2, zero_stage=3)
    worlds = [change for change in fitting_changes(plan_training(replace(recipe, train=spread), accelerator("h100"))) if "--gpus" in change]
    assert len(worlds) == 1, "the smallest number of GPUs that is enough, not every larger one"
    for change in changes:
        if change.startswith("--set train.micro_batch="):
            smaller = replace(crowded.train, micro_batch=int(change.partition("=")[2]))
            assert plan_training(replace(recipe, train=smaller), accelerator("h100")).fits
    with pytest.raises(SpecError, match="mfu"):
        plan_training(recipe, accelerator("h100"), mfu=1.5)
    with pytest.raises(SpecError, match="expected one of a100, h100, h200"):
        accelerator("h1000")
    with pytest.raises(SpecError, match="network of the published layout, got 'tiny'"):
        plan_training(get_recipe("loop"), accelerator("h100"))


@pytest.mark.parametrize(("name", "network"), [("molmoact_pretrain", "molmoact-7b-d"), ("molmoact_finetune", "tiny-published")])
def test_a_dry_run_builds_what_the_plan_counts(name, network):
    recipe = get_recipe(name)
    plan = plan_training(replace(recipe, train=replace(recipe.train, network=network)), accelerator("h100"))
    built = dry_run(plan)
    assert built.parameters == plan.counts.held
    if plan.train.zero_stage == 3:
        # rank 0 holds the first piece of each tensor: a whole row more than its share at most
        assert plan.memory.weights / 4 <= built.held <= 1.02 * plan.memory.weights / 4
        assert built.largest_unit == 152064 * 3584 + 128 * 3584, "the table with the rows of the image tokens"
        assert "FSDP2" in built.did
        assert "256" in built.did
    else:
        assert built.held == plan.counts.held
        assert built.trained_held == math.ceil(plan.counts.trained / 8)
        assert "no group was made" in built.did
    assert not torch.distributed.is_initialized()


def test_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path))
    done = CliRunner().invoke(
        cluster_app, ["plan", "molmoact_finetune", "--mfu", "0.5", "--dry-run", "--set", "train.network=tiny-published"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["gpus"] == 8
    assert document["dry_run"]["parameters"] == document["parameters"]["total"] + document["parameters"]["adapters"]
    assert "GPU hours at an MFU of 50%" in done.stderr
    refused = CliRunner().invoke(cluster_app, ["plan", "molmoact_pretrain", "--gpus", "1", "--set", "train.zero_stage=0"])
    assert isinstance(refused.exception, SpecError)
    assert "Fix:" in str(refused.exception)


def test_every_recipe_of_the_paper_is_listed():
    assert {name for name in RECIPES if name.startswith("molmoact_")} == {
        "molmoact_pretrain", "molmoact_midtrain", "molmoact_finetune",
        "molmoact_libero_spatial", "molmoact_libero_object", "molmoact_libero_goal", "molmoact_libero_long",
    }  # fmt: skip


def test_a_published_network_says_what_it_does_not_take():
    with pytest.raises(SpecError, match=r"train\.published concerns networks of the published layout"):
        TrainConfig(published=PublishedTraining(packing=False))
    with pytest.raises(SpecError, match=r"train.init_from is for the tiny network. Fix: name the folder"):
        TrainConfig(network="tiny-published", init_from="somewhere")
    with pytest.raises(SpecError, match=r"kinds: expected one of action_reasoning, .*got 'dept'; did you mean 'depth'"):
        ExampleGroup(name="x", kinds={"dept": 1.0})
