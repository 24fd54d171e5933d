"""Measurement before readiness: every level once without counting it (caches, allocations), then for the table of service times.

The first inference of a process may take twenty times as long as the second; it is never part of a measurement. No frame is used twice:
a policy that caches its last frame is several times faster at the second request with it, and a robot's frames do not repeat.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import PolicyContract
from model_core.spec.types import LEVELS, Decision, DecisionRequest, Observation, RefusalCode, RequestPolicy
from serving.gateway.inference.service_times import BATCH_SIZES, ServiceTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpBudget:
    """How much may be measured. seconds: in all. max_batch: the largest batch."""

    seconds: float
    max_batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpResult:
    """own: the level that the policy serves when none is named ("" where it does not say). works: level -> it answers at it."""

    own: str
    works: Mapping[str, bool]


def synthetic_observation(contract: PolicyContract) -> Observation:
    """Noise in the contract's shapes."""
    rng = np.random.default_rng(0)
    body = contract.embodiment
    return Observation(
        images={c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in body.cameras},
        proprio_P=np.array([(d.low + d.high) / 2 for d in body.proprio.dims], np.float32),
        instruction=contract.words[0] if contract.words else "do nothing",
    )


def moved(observation: Observation) -> Iterator[Observation]:
    """The observation, again and again, with its frames shifted by another distance each time: no two equal, consecutive ones far apart."""

    def far(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
        return np.roll(image, (step, int(0.618 * step * image.shape[1])), axis=(0, 1))

    for step in itertools.count(1):
        yield replace(observation, images={name: far(image, step) for name, image in observation.images.items()})


def warm_up(
    policy: RequestPolicy,
    contract: PolicyContract,
    observation: Observation,
    times: ServiceTimes,
    budget: WarmUpBudget,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> WarmUpResult:
    """Fill `times` and return which levels this policy answers at.

    Stops early when the budget is used up: what was not measured is then estimated from what was.
    """
    ends_at, frames = clock() + budget.seconds, moved(observation)
    first, _ = _timed(policy, [DecisionRequest(observation=observation)], clock)
    own, alone_s = _timed(policy, [DecisionRequest(observation=next(frames))], clock)
    times.add_baseline("", 1, alone_s)
    works: dict[str, bool] = {}
    for level in (level for level in LEVELS if level in contract.reasoning.levels):
        # Only the level that needs a last answer gets one.
        previous = first[0] if level == "reuse-depth" and first[0].refusal is None else None
        asked = [DecisionRequest(observation=next(frames), level=level, previous=previous) for _ in range(3)]
        decisions, seconds = _timed(policy, asked[:1], clock)
        works[level] = not _is_unknown(decisions[0])
        if works[level] and clock() < ends_at:
            again = [_timed(policy, [request], clock)[1] for request in asked[1:]]
            times.add_baseline(level, 1, max(again))
        elif works[level]:
            times.add_baseline(level, 1, seconds)
    own_level = own[0].level
    for rows in (b for b in BATCH_SIZES[1:] if b <= budget.max_batch):
        if clock() + 2 * times.p95("", rows) > ends_at:  # estimated from the sizes so far
            break
        # The first batch of a shape is as slow as a first inference.
        seconds = min(_timed(policy, [DecisionRequest(observation=next(frames)) for _ in range(rows)], clock)[1] for _ in range(2))
        times.add_baseline("", rows, seconds)
        if own_level and works.get(own_level):
            times.add_baseline(own_level, rows, seconds)
    _spread(times, works, alone_s)
    return WarmUpResult(own=own_level, works=works)


def _spread(times: ServiceTimes, works: Mapping[str, bool], alone_s: float) -> None:
    """Other levels grow with the batch as the measured one does."""
    for rows in BATCH_SIZES[1:]:
        measured = times.baseline("", rows)
        if measured is None:
            continue
        for level in (level for level, is_there in works.items() if is_there and times.baseline(level, rows) is None):
            times.add_baseline(level, rows, times.p95(level, 1) * measured / max(alone_s, 1e-6))


def _timed(policy: RequestPolicy, requests: list[DecisionRequest], clock: Callable[[], float]) -> tuple[list[Decision], float]:
    began = clock()
    return policy.answer(requests), clock() - began


def _is_unknown(decision: Decision) -> bool:
    return decision.refusal is not None and decision.refusal.code is RefusalCode.CONTRACT
