"""Does the policy use the image? Exchange images between episodes of a task and count the decisions that change.

A model can reach a good token accuracy from proprioception and words alone and solve nothing; its loss does not show it.
This check does, in seconds, before any rollout: a policy that uses the image answers a foreign image with other actions, one
that ignores it with the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.judging.verdict import IMAGE_SWAP_CHANGE
from components.data.frozen_dataset import observation_of
from model_core.spec.contract import PolicyContract, VectorSpec
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.types import Observation, Policy

if TYPE_CHECKING:
    from components.data.frozen_dataset import FrozenSplit

# An action has changed when some dimension of its chunk moved by this share of its range: several bins, not a rounding.
CHANGE_TOLERANCE = 0.02
_VARIES = 1e-6  # standard deviation as a share of the range: less is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDependence:
    """What exchanging images did in one task.

    changed: share of decisions whose actions changed, 0..1. correlation: of the first action with its label, own image,
    mean over dimensions whose label varies (a dimension that the policy never changes counts 0). frames: decisions compared.
    """

    changed: float
    correlation: float
    frames: int


def foreign_partners(task_N: NDArray[np.integer], images_NVHW3: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For every frame another frame of its task whose image differs: (N,) int64. Raises `DatasetError` where a task has none.

    Frames of a task are taken as ordered by episode; the partner is half of them away, so it is of another initial state.
    """
    partner_N = np.empty(len(task_N), np.int64)
    for task in np.unique(task_N):
        here = np.flatnonzero(task_N == task)
        for place, frame in enumerate(here):
            others = (int(here[(place + len(here) // 2 + offset) % len(here)]) for offset in range(len(here)))
            found = next((i for i in others if not np.array_equal(images_NVHW3[i], images_NVHW3[frame])), None)
            if found is None:
                raise DatasetError(f"all {len(here)} validation images of task {task} are equal; nothing can be exchanged")
            partner_N[frame] = found
    return partner_N


def image_dependence(
    own_NKA: NDArray[np.floating],
    swapped_NKA: NDArray[np.floating],
    labels_NKA: NDArray[np.floating],
    task_N: NDArray[np.integer],
    tasks: Sequence[str],
    action: VectorSpec,
) -> dict[str, ImageDependence]:
    """Compare decisions (physical units) on own and foreign images, per task. Pure."""
    span_A = action.high - action.low
    changed_N = np.any(np.abs(own_NKA - swapped_NKA) > CHANGE_TOLERANCE * span_A, axis=(1, 2))
    found: dict[str, ImageDependence] = {}
    for index in np.unique(task_N):
        here = task_N == index
        found[tasks[int(index)]] = ImageDependence(
            changed=float(changed_N[here].mean()),
            correlation=_correlation(own_NKA[here, 0] / span_A, labels_NKA[here, 0] / span_A),
            frames=int(here.sum()),
        )
    return found


def _correlation(predicted_NA: NDArray[np.floating], label_NA: NDArray[np.floating]) -> float:
    """Mean over the dimensions whose label varies, both as a share of the dimension's range, so that no unit decides what varies."""
    varies_A = label_NA.std(axis=0) > _VARIES
    values = [
        float(np.corrcoef(predicted_NA[:, dim], label_NA[:, dim])[0, 1]) if predicted_NA[:, dim].std() > _VARIES else 0.0
        for dim in np.flatnonzero(varies_A)
    ]
    return float(np.mean(values)) if values else 0.0


def measure_image_dependence(
    policy: Policy, split: FrozenSplit, contract: PolicyContract, *, frames_per_task: int, batch: int = 32
) -> dict[str, ImageDependence]:
    """Ask `policy` about held-out frames twice, with their own and with a foreign image. A refusal counts as unchanged."""
    chosen = _spread(split.task_idx_N, frames_per_task)
    images_NVHW3, task_N = split.images_NVHW3[chosen], split.task_idx_N[chosen]
    partner_N = foreign_partners(task_N, images_NVHW3)
    shape = (len(chosen), contract.chunk_length, len(contract.embodiment.action))
    answers = []
    for images_seen_NVHW3 in (images_NVHW3, images_NVHW3[partner_N]):
        observations = [observation_of(split, contract, int(frame), images_seen_NVHW3[i]) for i, frame in enumerate(chosen)]
        answers.append(_actions(policy, observations, shape, batch))
    (own_NKA, own_N), (swapped_NKA, swapped_N) = answers
    refused_N = ~(own_N & swapped_N)
    own_NKA[refused_N] = swapped_NKA[refused_N] = 0.0
    return image_dependence(own_NKA, swapped_NKA, split.actions_NKA[chosen], task_N, split.tasks, contract.embodiment.action)


def check_image_dependence(found: Mapping[str, ImageDependence], least: float) -> None:
    """Stop a model that ignores the image here: raises `GateError` naming each task where fewer than `least` of the decisions changed."""
    blind = [f"{task}: {one.changed:.0%} of {one.frames} decisions" for task, one in found.items() if one.changed < least]
    if blind:
        raise GateError(
            f"the policy ignores the image: exchanging it between episodes must change at least {least:.0%} of the decisions, "
            f"it changed {'; '.join(blind)}. Fix: train again with another train.seed or a lower train.learning_rate; rollouts were not run"
        )


def image_dependence_numbers(found: Mapping[str, ImageDependence]) -> dict[str, float]:
    """The measurement as flat numbers for a report: the smallest share of all tasks, then each task's own."""
    numbers = {IMAGE_SWAP_CHANGE: min((one.changed for one in found.values()), default=0.0)}
    for task, one in sorted(found.items()):
        numbers[f"{task}/changed"] = one.changed
        numbers[f"{task}/correlation"] = one.correlation
        numbers[f"{task}/frames"] = float(one.frames)
    return numbers


def _spread(task_N: NDArray[np.integer], frames_per_task: int) -> NDArray[np.int64]:
    """At most so many frames of each task, evenly spread over its episodes."""
    picked = []
    for task in np.unique(task_N):
        here = np.flatnonzero(task_N == task)
        picked.append(here[np.linspace(0, len(here) - 1, min(frames_per_task, len(here))).astype(np.int64)])
    return np.concatenate(picked)


def _actions(
    policy: Policy, observations: list[Observation], shape: tuple[int, int, int], batch: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(actions (N, K, A), whether each was given at all)."""
    actions_NKA, given_N = np.zeros(shape, np.float32), np.zeros(shape[0], np.bool_)
    for start in range(0, len(observations), batch):
        for place, decision in enumerate(policy.decide_many(observations[start : start + batch]), start=start):
            if decision.chunk is not None:
                actions_NKA[place], given_N[place] = decision.chunk.actions_KA, True
    return actions_NKA, given_N
