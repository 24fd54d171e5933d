"""Questions about web images in a training of the published layout: several in one row, drawn at their rates, learned, accounted for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.published.training import PublishedTraining
from components.config.published.web import WebSource
from components.config.recipe import Recipe
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.data.accounting.trained import trained_on
from components.data.web_pairs.listing import make_listing
from components.training.plan import batch_indices, curve_digest, drawn_samples
from components.training.published.drawing import drawing_order_of
from components.training.published.model import PublishedArm
from components.training.published.web.account import web_account
from components.training.published.web.examples import web_processor
from components.training.published.web.measured import web_values
from components.training.published.web.mixture import WebMixture
from components.training.sizing.machines import accelerator
from components.training.sizing.plan import plan_training
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages.training import check_start
from model_core.network.attention import Documents
from model_core.network.finetuning.answer_rows import RowTargets, answer_row_loss
from model_core.network.finetuning.loss import seen_tokens
from model_core.network.finetuning.packing import packed_batch, padded_batch
from model_core.network.image_inputs import collate_images
from model_core.spec.errors import DatasetError, SpecError
from model_core.tokenization.published.examples import Annotation, training_sequence
from tests.tiny_arm_data import write_small_frozen
from tests.unit.test_published_packing import assert_equal_gradients, loss_and_gradients, make_network, small_config
from tests.unit.test_published_training import CONFIG, CONTRACT, measured, text, tokenizer
from tests.web_pairs import good_rows, turns, write_llava, write_parquet

pytestmark = pytest.mark.xdist_group("published-training")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("web") / "data", CONTRACT, train=24, validation=4)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """Two sources, in both layouts: colours in Parquet (some with two questions), names in LLaVA's JSON."""
    home = tmp_path_factory.mktemp("pairs")
    write_parquet(
        home / "colours/rows.parquet", [*good_rows(20), {"image": {"bytes": b"no", "path": None}, "conversations": turns("a", "b")}]
    )
    make_listing(home / "colours", home / "list-colours", Silent(), hold_out=0.2)
    make_listing(write_llava(home / "names", 7), home / "list-names", Silent(), hold_out=0.0)
    web = (
        WebSource(name="colours", path=str(home / "list-colours"), rate=0.25, style="vqa"),
        WebSource(name="names", path=str(home / "list-names"), rate=0.125),
    )
    return replace(CONFIG, global_batch=8, micro_batch=4, published=replace(CONFIG.published, web=web, open_loop_samples=0))


@pytest.fixture(scope="module")
def arm(config, frozen) -> PublishedArm:
    return PublishedArm(config, frozen)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_questions_see_the_images_and_themselves(implementation):
    model = make_network(replace(small_config(), attention=implementation)).eval()
    documents = Documents((3, 9), parts=((), (4, 2, 3)))
    expected = [[0, 1, 2], [3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 9, 10, 11]]
    mask = documents.mask()[0, 0]
    assert [mask[row].nonzero().flatten().tolist() for row in (2, 8, 11)] == expected
    assert mask[6].nonzero().flatten().tolist() == [3, 4, 5, 6]
    places = torch.tensor([[0, 1, 2, *range(4), 4, 5, 4, 5, 6]])
    x_BLD = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model.trunk(x_BLD, places, documents), model.trunk(x_BLD, places, documents.mask()), atol=1e-5)


def test_several_questions_packed_are_the_published_sequence(arm):
    """Against `training_sequence`, whose ids, positions and weights are golden, under its whole mask."""
    model, source = arm.module, arm._web.train[0]
    place = next(place for place in range(len(source)) if len(source._ids(int(source.places_N[place]))) == 2)
    example, other = source.example(place), arm.members[0].train.example(0, "depth")
    packed, gradients = loss_and_gradients(model, packed_batch([other, example]))
    before, others = loss_and_gradients(model, packed_batch([other]))
    questions, answers = source._pairs.texts(int(source.places_N[place]))
    annotations = [Annotation(question=f"vqa: {one}", answer=answer) for one, answer in zip(questions, answers, strict=True)]
    made = training_sequence(tokenizer(), example.images.image_grids, annotations)
    model.zero_grad()
    hidden = model.embed(torch.from_numpy(made.input_ids_L)[None], model.encode_images(**collate_images([example.images])))
    seen = seen_tokens(torch.from_numpy(made.subsegments_L)[None])
    states = model.trunk(hidden, torch.from_numpy(made.positions_L)[None], seen)[0]
    learned = made.weights_L > 0
    targets = RowTargets(labels_N=torch.from_numpy(made.targets_L[learned]), weights_N=torch.from_numpy(made.weights_L[learned]))
    sums = answer_row_loss(model.lm_head, states[torch.from_numpy(learned)], targets)
    sums.loss.backward()
    assert packed.loss.item() == pytest.approx(sums.loss.item() + before.loss.item(), rel=1e-5)
    expected = {name: p.grad + others[name] for name, p in model.named_parameters() if p.grad is not None}
    assert_equal_gradients(gradients, expected, tolerance=1e-4)
    assert source.answer_tokens(place) == pytest.approx(float(made.weights_L.sum()), rel=1e-6)
    with pytest.raises(SpecError, match="padded rows hold one question"):
        padded_batch([example], length=400, pad_id=0)


def test_an_example_asks_in_its_style_and_learns_answers_alone(arm):
    source = arm._web.train[0]
    example = source.example(0)
    asked = len(source._ids(int(source.places_N[0])))
    learned = [text(example.ids_L[first:end]) for first, end in example.answers]
    assert len(learned) == asked
    assert all(one.startswith((" It is ", " No, ")) for one in learned)
    assert text(example.ids_L[: example.answer_start]) == "User: vqa: Which colour is it? Assistant:"
    tall = next(place for place in range(len(source)) if source._pairs.sizes_N2[source.places_N[place]].tolist() == [120, 50])
    grids = source.example(tall).images.image_grids[0]
    assert grids[1][0] > grids[1][1], "an image of the web is cut into crops, not shrunk as a robot's frame is"


def drawn(arm: PublishedArm, config: TrainConfig, steps: range) -> list[int]:
    found: list[int] = []
    for step in steps:
        indices = batch_indices(config.seed, step, config.global_batch, arm.num_samples)
        for micro in range(config.global_batch // config.micro_batch):
            mine = indices[micro * config.micro_batch : (micro + 1) * config.micro_batch]
            found += [place for place, kind in arm._drawn(mine, (config.seed, step, micro)) if kind == "web"]
    return found


def test_rows_are_drawn_at_their_rates_each_before_any_again(arm, config):
    assert arm.num_samples == 24 + 6 + 3
    colours, names = (len(one) for one in arm._web.train)
    assert (colours + len(arm._web.held_out[0]), names, len(arm._web.held_out[1])) == (20, 7, 0)
    steps = range(33 * 6 // 8)
    found = [place - 24 for place in drawn(arm, config, steps)]
    assert len(found) == pytest.approx(9 * 6, abs=3)
    counts = Counter(found)
    for size, first in ((colours, 0), (names, colours)):
        times = [counts[first + row] for row in range(size)]
        assert max(times) - min(times) <= 2, "the last epoch is cut off anywhere"
    first_names = [place for place in drawn(arm, config, range(33 * 2 // 8 + 1)) if place - 24 >= colours]
    assert len(set(first_names[:6])) == 6, "two epochs draw six of seven names"
    assert drawn(arm, config, steps) == [place + 24 for place in found]


def test_a_step_is_the_mean_over_all_its_answer_tokens(arm, config):
    step, tokens, total = 5, 0.0, 0.0
    indices = batch_indices(config.seed, step, config.global_batch, arm.num_samples)
    losses = []
    for micro in range(2):
        batch = arm.batch(indices[micro * 4 : micro * 4 + 4], seed=config.seed, step=step, micro=micro)
        losses.append(arm.loss(arm.module, batch)[0].item())
        total += float(batch.targets.weights_N.sum())
        tokens += sum(arm._train.answer_tokens(*one) for one in arm._drawn(indices[micro * 4 : micro * 4 + 4], (config.seed, step, micro)))
    assert total / 2 == pytest.approx(1.0, rel=1e-5)
    assert tokens > 0
    assert np.mean(losses) > 1


def test_it_learns_the_answers_and_measures_each_source(config, frozen):
    config = replace(config, published=replace(config.published, validation_samples=3))
    arm = PublishedArm(config, frozen)
    before = web_values(arm.module, arm._web.held_out, config, arm.loss)
    assert before.keys() == {"validation_loss/web/colours", "validation_accuracy/web/colours"}, "the other holds nothing out"
    optimizer = torch.optim.Adam(arm.module.parameters(), lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        arm.loss(arm.module, arm.batch(np.arange(24, 28), seed=0, step=step, micro=0))[0].backward()
        optimizer.step()
    found = measured(arm)
    assert found["validation_loss/web/colours"] < 0.7 * before["validation_loss/web/colours"]
    kinds = config.published.groups[0].kinds
    assert found["validation_loss"] == pytest.approx(sum(found[f"validation_loss/{kind}"] * kinds[kind] for kind in kinds), rel=1e-6)


def test_the_account_names_sources_rows_and_reasons(arm, config, frozen):
    short = replace(config, steps=2, warmup_steps=1)
    rows = {row["source"]: row for row in web_account(short, frozen)}
    assert rows.keys() == {"web:colours", "web:names"}
    expected = {place - 24 for place in drawn(arm, short, range(2))}
    colours = len(arm._web.train[0])
    assert rows["web:colours"]["frames"] == sum(place < colours for place in expected)
    assert rows["web:names"]["frames"] == sum(place >= colours for place in expected)
    reasons = {one["reason"]: one["frames"] for one in rows["web:colours"]["dropped"]}
    assert reasons["the image cannot be read"] == 1
    assert reasons["held out for validation"] == len(arm._web.held_out[0])
    robots = trained_on(frozen, lambda size: drawn_samples(short, size), drawing_order_of(short))
    assert sum(row["frames"] for row in robots) + len(drawn(arm, short, range(2))) == 16
    every = {row["source"]: row for row in web_account(replace(config, steps=100, warmup_steps=1), frozen)}
    assert (every["web:colours"]["frames"], every["web:names"]["frames"]) == (colours, 7)


def lengths(arm: PublishedArm) -> list[int]:
    return [len(one.example(place).ids_L) for one in (arm._web.train[0], arm._web.held_out[0]) for place in range(len(one))]


def test_rows_that_are_too_long_are_left_out_and_counted(arm, config, frozen):
    every = sorted(lengths(arm))
    short = replace(config, published=replace(config.published, max_tokens=every[len(every) // 2]))
    shape = arm.network
    mixture = WebMixture(short, shape, web_processor(shape.processor), first=0, robot_draws=24)
    left = sum(length > short.published.max_tokens for length in every)
    assert 0 < left < len(every)
    assert mixture.train[0].too_long + mixture.held_out[0].too_long == left
    dropped = {one["reason"]: one["frames"] for one in web_account(short, frozen)[0]["dropped"]}
    assert dropped[f"longer than {short.published.max_tokens} tokens"] == left
    with pytest.raises(DatasetError, match=r"web source 'colours': none of its .* at most 20 tokens"):
        PublishedArm(replace(config, published=replace(config.published, max_tokens=20)), frozen)


def test_a_frozen_tower_sees_web_images_as_whole_training_does(arm, config, frozen):
    published = replace(config.published, freeze_tower=True)
    other = PublishedArm(replace(config, published=published, precision="fp32"), frozen)
    batches = [one.batch(np.arange(22, 26), seed=0, step=0, micro=0) for one in (arm, other)]
    assert "features_BCPD" in batches[1].images
    losses = [one.loss(one.module, batch)[0].item() for one, batch in zip((arm, other), batches, strict=True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_contents_name_the_training_and_places_do_not(arm, config, frozen, tmp_path):
    one, two = config.published.web
    moved = replace(config.published, web=(replace(one, path="/elsewhere"), two))
    assert curve_digest(replace(config, published=moved)) == curve_digest(config)
    assert curve_digest(replace(config, published=replace(config.published, web=(replace(one, rate=0.3), two)))) != curve_digest(config)
    assert curve_digest(replace(config, published=replace(config.published, web=()))) == curve_digest(
        replace(CONFIG, global_batch=8, micro_batch=4, published=replace(CONFIG.published, open_loop_samples=0))
    )
    make_listing(write_llava(tmp_path / "names", 6), tmp_path / "list", Silent())
    fewer = replace(config.published, web=(one, replace(two, path=str(tmp_path / "list"))))
    assert PublishedArm(replace(config, published=fewer), frozen).data_digest != arm.data_digest


def test_what_cannot_be_mixed_is_refused(config, tmp_path):
    web = config.published.web
    for changes, message in (
        ({"packing": False}, r"train.published.web: padded rows .*Fix: --set train.published.packing=true"),
        ({"loss_ids": "language"}, r"only ids of the robot's language compete.*Fix: --set train.published.loss_ids=all"),
        ({"freeze_tower": True, "feature_cache": "somewhere"}, r"keeps the views of robots"),
        ({"web": (web[0], web[0])}, "two sources have one name"),
    ):
        with pytest.raises(SpecError, match=message):
            PublishedTraining(**{"web": web, **changes})
    for wrong, message in (({"rate": 0.0}, "rate must be above 0"), ({"path": ""}, "path is empty"), ({"name": "a b"}, "needs a name")):
        with pytest.raises(SpecError, match=message):
            WebSource(**{"name": "a", "path": "b", **wrong})
    gone = replace(config.published, web=(WebSource(name="gone", path=str(tmp_path / "none")),))
    with pytest.raises(DatasetError, match="no listing of image and text pairs is here"):
        check_start(Recipe(name="x", train=replace(config, published=gone)))


def test_the_plan_counts_their_tokens(config):
    recipe = get_recipe("loop_published")
    without = plan_training(replace(recipe, train=replace(config, published=replace(config.published, web=()))), accelerator("h100"))
    found = plan_training(replace(recipe, train=config), accelerator("h100"))
    assert found.example.answer < without.example.answer, "their answers are short"
    assert found.example.crops >= without.example.crops
    assert Recipe.from_json(replace(recipe, train=config).to_json()).train == config
