"""How far predicted actions are from recorded ones on held-out episodes: the evidence where no suite can lay out a scene.

It does not show that a policy solves a task: errors add up once it acts by itself. It shows that the policy learned something of the
demonstrations that always predicting their mean does not know. The image-swap check comes first, as before rollouts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.step_manifest import checkpoint_digest
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, Interval, Progress
from components.data.frozen_dataset import FrozenSplit, column_of, load_split, observation_of, read_frozen
from components.evaluation.gate import ERROR_RATIO
from components.evaluation.image_swap import check_image_dependence, image_dependence_numbers, measure_image_dependence
from components.evaluation.intervals import CONFIDENCE, wilson
from components.evaluation.policy_loader import DEFAULT_POLICY, open_policy
from model_core.spec.contract import PolicyContract, digest_of
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write
from model_core.spec.types import Policy

SUITE = "held-out episodes"
MOST_FRAMES = 512
_VARIES = 1e-6  # of the range of a dimension: less is rounding


def evaluate_open_loop(cfg: EvalConfig, checkpoint: Path, frozen: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Compare a checkpoint with the validation episodes of `frozen`, and write out/report.json; returns the record (an `EvalReport`).

    Raises `GateError` for a model that ignores the image, `DatasetError` where nothing is held out.
    """
    manifest, _ = read_frozen(frozen)
    if not manifest["split"]["validation"]:
        raise DatasetError(f"{frozen} holds out no episode, so nothing can be measured. Fix: record at least two episodes")
    policy, contract = open_policy(DEFAULT_POLICY, checkpoint, cfg.reasoning)
    split = load_split(frozen, "validation")
    blindness: dict[str, float] = {}
    if cfg.image_swap_frames:
        progress.update(0, 2, "exchanging images: does the policy use them?")
        found = measure_image_dependence(policy, split, contract, frames_per_task=cfg.image_swap_frames)
        check_image_dependence(found, cfg.min_image_swap_change)
        blindness = image_dependence_numbers(found)
    progress.update(1, 2, "predicting held-out actions")
    mean_A = column_of(frozen, "train", "actions_NKA")[:, 0].mean(axis=0)
    low, high = wilson(0, 0, CONFIDENCE)
    report = EvalReport(
        checkpoint_digest=checkpoint_digest(checkpoint),
        contract_id=contract.contract_id,
        successes=0,
        trials=0,
        interval=Interval(low=low, high=high, confidence=CONFIDENCE),
        per_task={},
        episodes=(),
        protocol={
            "suite": SUITE,
            "suite_version": digest_of(manifest["split"]["validation"])[:16],
            "control_hz": contract.embodiment.control_hz,
            "reasoning": cfg.reasoning,
            "execute_horizon": contract.execute_horizon,
        },
        blindness=blindness,
        open_loop=open_loop_numbers(policy, split, contract, mean_A),
    )
    document = to_document(report)
    atomic_write(out / "report.json", json.dumps(document, indent=1, sort_keys=True))
    progress.update(2, 2, f"error {report.open_loop[ERROR_RATIO]:.2f} of that of the mean action")
    return document


def open_loop_numbers(policy: Policy, split: FrozenSplit, contract: PolicyContract, mean_A: NDArray[np.floating]) -> dict[str, float]:
    """Ask `policy` about evenly spread held-out frames; returns `EvalReport.open_loop`. mean_A: the mean action of training.

    Of each chunk the rows that would be executed count, up to the end of the episode. A dimension that never varies does not count.
    """
    chosen_N = np.linspace(0, len(split) - 1, min(len(split), MOST_FRAMES)).astype(np.int64)
    rows = contract.execute_horizon
    label_NKA = split.actions_NKA[chosen_N, :rows]
    given_N, predicted_NKA = np.zeros(len(chosen_N), bool), np.zeros_like(label_NKA)
    for start in range(0, len(chosen_N), 32):
        frames = chosen_N[start : start + 32]
        decisions = policy.decide_many([observation_of(split, contract, int(f), split.images_NVHW3[f]) for f in frames])
        for place, decision in enumerate(decisions, start=start):
            if decision.chunk is not None:
                given_N[place], predicted_NKA[place] = True, decision.chunk.actions_KA[:rows]
    counts_NK = np.ones(label_NKA.shape[:2], bool) if split.is_padded_NK is None else ~split.is_padded_NK[chosen_N, :rows]
    counts_NK &= given_N[:, None]
    named = error_ratios(predicted_NKA[counts_NK], label_NKA[counts_NK], mean_A, contract)
    return {
        ERROR_RATIO: float(np.mean(list(named.values()))) if named else float("inf"),
        "frames": float(len(chosen_N)),
        "refused": float((~given_N).sum()),
        **{f"{name}/{ERROR_RATIO}": ratio for name, ratio in named.items()},
    }


def error_ratios(
    predicted_NA: NDArray[np.floating], label_NA: NDArray[np.floating], mean_A: NDArray[np.floating], contract: PolicyContract
) -> Mapping[str, float]:
    """Mean absolute error over that of the mean action, of each dimension whose recorded action varies."""
    dims = contract.embodiment.action.dims
    error_A = np.abs(predicted_NA - label_NA).mean(axis=0) if len(label_NA) else np.zeros(len(dims))
    plain_A = np.abs(mean_A - label_NA).mean(axis=0) if len(label_NA) else np.zeros(len(dims))
    return {
        dim.name: float(error_A[place] / plain_A[place])
        for place, dim in enumerate(dims)
        if plain_A[place] > _VARIES * (dim.high - dim.low)
    }
