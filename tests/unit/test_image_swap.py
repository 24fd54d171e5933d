"""The image-swap measurement tells a policy that looks from one that does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from components.config.judging.verdict import IMAGE_SWAP_CHANGE
from components.data.frozen_dataset import FrozenSplit
from components.evaluation.image_swap import (
    check_image_dependence,
    foreign_partners,
    image_dependence,
    image_dependence_numbers,
    measure_image_dependence,
)
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.types import ActionChunk, Decision, Observation, Refusal, RefusalCode
from tests.fakes import make_contract

CONTRACT = make_contract()
TASKS = ("push", "pull")


def make_split(frames: int = 40) -> FrozenSplit:
    """Each frame's picture is one grey level; the right action is that level, on dx."""
    rng = np.random.default_rng(0)
    level_N = rng.permutation(frames) * (200 // frames)
    camera = CONTRACT.embodiment.cameras[0]
    images = np.broadcast_to(level_N[:, None, None, None, None], (frames, 1, camera.height, camera.width, 3)).astype(np.uint8)
    actions = np.zeros((frames, 8, 4), np.float32)
    actions[:, :, 0] = (level_N / 100.0 - 1.0)[:, None]
    return FrozenSplit(
        images_NVHW3=images,
        proprio_NP=rng.normal(size=(frames, 4)).astype(np.float32),
        actions_NKA=actions,
        depth_codes_NG=np.zeros((frames, 100), np.uint8),
        trace_N52=np.zeros((frames, 5, 2), np.int16),
        instruction_idx_N=np.zeros(frames, np.int64),
        task_idx_N=np.arange(frames) % 2,
        instructions=("push the button",),
        tasks=TASKS,
    )


class Looker:
    """Answers with the picture's grey level on dx (seeing), or with proprioception only (blind); `refuses` every n-th."""

    def __init__(self, *, sees: bool, refuses: int = 0) -> None:
        self.sees, self.refuses, self.asked = sees, refuses, 0

    def decide(self, observation: Observation) -> Decision:
        self.asked += 1
        if self.refuses and self.asked % self.refuses == 0:
            return Decision(contract_id="x", refusal=Refusal(code=RefusalCode.PARSE, reason="mumble"))
        actions = np.zeros((8, 4), np.float32)
        actions[:, 0] = observation.images["front"].mean() / 100.0 - 1.0 if self.sees else np.tanh(observation.proprio_P[0])
        return Decision(contract_id="x", chunk=ActionChunk(actions_KA=actions, control_hz=20.0))

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        return [self.decide(one) for one in observations]


def test_a_seeing_policy_passes() -> None:
    found = measure_image_dependence(Looker(sees=True), make_split(), CONTRACT, frames_per_task=16)
    assert set(found) == set(TASKS)
    assert all(one.changed > 0.9 and one.correlation > 0.99 and one.frames == 16 for one in found.values())
    check_image_dependence(found, 0.2)
    assert image_dependence_numbers(found)[IMAGE_SWAP_CHANGE] == min(one.changed for one in found.values())


def test_a_blind_policy_is_stopped_with_the_number_and_the_task() -> None:
    found = measure_image_dependence(Looker(sees=False), make_split(), CONTRACT, frames_per_task=16)
    assert all(one.changed == 0.0 for one in found.values())
    with pytest.raises(GateError, match=r"push: 0% of 16 decisions.*pull: 0% of 16.*rollouts were not run"):
        check_image_dependence(found, 0.2)


def test_one_blind_task_is_enough() -> None:
    own = np.zeros((4, 8, 4))
    swapped = own.copy()
    swapped[:2, :, 0] = 0.5
    found = image_dependence(own, swapped, own, np.array([0, 0, 1, 1]), TASKS, CONTRACT.embodiment.action)
    assert (found["push"].changed, found["pull"].changed) == (1.0, 0.0)
    with pytest.raises(GateError, match="pull"):
        check_image_dependence(found, 0.2)


def test_a_rounding_is_no_change() -> None:
    own = np.zeros((2, 8, 4))
    found = image_dependence(own, own + 0.03, own, np.array([0, 0]), TASKS, CONTRACT.embodiment.action)  # 0.03 of a range of 2
    assert found["push"].changed == 0.0


def test_a_dimension_that_the_policy_never_moves_counts_as_uncorrelated() -> None:
    labels = np.zeros((8, 8, 4))
    labels[:, 0, 0] = labels[:, 0, 1] = np.linspace(-1, 1, 8)
    own = labels.copy()
    own[:, :, 1] = 0.0  # the label varies, the prediction does not
    found = image_dependence(own, own, labels, np.zeros(8, int), TASKS, CONTRACT.embodiment.action)
    assert found["push"].correlation == pytest.approx(0.5)


def test_the_unit_of_a_dimension_does_not_decide_whether_it_varies() -> None:
    action = CONTRACT.embodiment.action
    in_small_units = replace(action, dims=tuple(replace(dim, low=dim.low * 1e-6, high=dim.high * 1e-6) for dim in action.dims))
    labels = np.zeros((8, 8, 4))
    labels[:, 0, 0] = np.linspace(-1, 1, 8) * 1e-6
    found = image_dependence(labels, labels, labels, np.zeros(8, int), TASKS, in_small_units)
    assert found["push"].correlation == pytest.approx(1.0)


def test_refusals_do_not_count_as_image_dependence() -> None:
    found = measure_image_dependence(Looker(sees=True, refuses=1), make_split(), CONTRACT, frames_per_task=8)
    assert all(one.changed == 0.0 and one.correlation == 0.0 for one in found.values())


def test_partners_are_of_the_same_task_with_another_picture() -> None:
    split = make_split()
    partners = foreign_partners(split.task_idx_N, split.images_NVHW3)
    assert np.array_equal(split.task_idx_N[partners], split.task_idx_N)
    assert all(not np.array_equal(split.images_NVHW3[i], split.images_NVHW3[p]) for i, p in enumerate(partners))
    with pytest.raises(DatasetError, match="all 40 validation images of task 0 are equal"):
        foreign_partners(np.zeros(40, int), np.zeros_like(split.images_NVHW3))
