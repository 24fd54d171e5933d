"""Rows of embedding and head that the sentences of the data hold: training them alone is training all of them, without the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.training.published.model import PublishedArm
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.finetuning.answer_rows import RowTargets, answer_row_loss
from model_core.network.finetuning.chosen_rows import ChosenEmbedding, ChosenHead, choose_rows, join_rows, write_rows
from model_core.network.model import MolmoAct
from model_core.spec.errors import SpecError
from tests.tiny_arm_data import write_small_frozen
from tests.unit.test_published_training import CONFIG, CONTRACT, PUBLISHED, measured

pytestmark = pytest.mark.xdist_group("published-training")
ALL = replace(CONFIG, precision="fp32", published=replace(PUBLISHED, loss_ids="language", open_loop_samples=1))
ROWS = replace(ALL, published=replace(ALL.published, trained_rows="language"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    return write_small_frozen(tmp_path_factory.mktemp("rows") / "data", CONTRACT, train=8, validation=2)


def trained(arm: PublishedArm, steps: int = 2) -> list[float]:
    """Losses of some steps of AdamW without weight decay."""
    optimizer = torch.optim.AdamW([p for p in arm.module.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        loss, _ = arm.loss(arm.module, arm.batch(np.arange(2), seed=0, step=step, micro=0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_losses_and_weights_are_those_of_a_training_of_all_rows(frozen, tmp_path):
    whole, chosen = PublishedArm(ALL, frozen), PublishedArm(ROWS, frozen)
    counts = [sum(p.numel() for p in arm.module.parameters() if p.requires_grad) for arm in (whole, chosen)]
    assert counts[1] < counts[0] / 10
    assert chosen.flops_at(0) == whole.flops_at(0), "the same products are needed"
    expected = trained(whole)
    assert trained(chosen) == pytest.approx(expected, rel=1e-6)
    assert measured(chosen) == pytest.approx(measured(whole), rel=1e-5)
    chosen.export({name: value.clone() for name, value in chosen.module.state_dict().items()}, tmp_path / "out")
    written = load_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(written[name], value, rtol=1e-4, atol=1e-6, msg=lambda told, name=name: f"{name}: {told}")


def test_ids_outside_are_read_from_the_whole_table(frozen):
    model = PublishedArm(ALL, frozen).module
    ids_BL = torch.tensor([[3, 5, 7, 152_064]])
    before = model.model.transformer.wte(ids_BL).detach()
    choose_rows(model, np.array([3, 7, 152_064]), np.array([3, 7]))
    embedding = model.model.transformer.wte
    assert isinstance(embedding, ChosenEmbedding)
    assert isinstance(model.lm_head, ChosenHead)
    assert torch.equal(embedding(ids_BL), before)
    with torch.no_grad():
        embedding.rows_XD += 1.0
        model.lm_head.rows_XD += 2.0
    assert torch.equal(embedding(ids_BL), before + torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None])
    head_5 = model.lm_head.weight[5].clone()
    write_rows(model)
    assert torch.equal(model.lm_head.weight[3], model.lm_head.rows_XD[0])
    assert torch.equal(model.lm_head.weight[5], head_5)
    with pytest.raises(SpecError, match="rows of some ids only"):
        answer_row_loss(model.lm_head, torch.zeros(1, 8), RowTargets(labels_N=torch.tensor([3]), weights_N=torch.ones(1)))
    with pytest.raises(SpecError, match="may not compete"):
        replace(ROWS.published, loss_ids="all")
    with pytest.raises(SpecError, match="plain head"):
        choose_rows(model, np.array([3]), np.array([3]))
    joined = join_rows(model)
    assert isinstance(joined, MolmoAct)
    assert not any("rows_XD" in name for name in joined.state_dict())
    assert torch.equal(joined.model.transformer.wte(ids_BL), before + torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None])


@pytest.mark.parametrize(("change", "said"), [({"lora_rank": 2}, "trained_rows"), ({"zero_stage": 3}, "trained_rows")])
def test_what_cannot_train_some_rows_is_refused(change, said):
    with pytest.raises(SpecError, match=said):
        replace(ROWS, **change)
