"""How far predicted actions are from recorded ones on held-out episodes: the evidence where no suite can lay out a scene.

It does not show that a policy solves a task: errors add up once it acts by itself. It shows that the policy learned something of the
demonstrations that always predicting their mean does not know. The image-swap check comes first, as before rollouts.

    out/report.json                      of a checkpoint of one embodiment
    out/embodiments/<name>/report.json   of each embodiment, where there are several: the policy of each is measured on its own episodes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.step_manifest import checkpoint_digest
from components.config.judging.verdict import ERROR_RATIO
from components.config.recipe import EvalConfig
from components.config.records import EvalReport, HeldOutRow, Interval, Progress
from components.data.frozen_dataset import FrozenSplit, column_of, load_split, observation_of
from components.data.frozen_members import FrozenMember, open_frozen
from components.evaluation.image_swap import (
    ImageDependence,
    check_image_dependence,
    image_dependence_numbers,
    measure_image_dependence,
)
from components.evaluation.intervals import CONFIDENCE, wilson
from components.evaluation.policy_loader import DEFAULT_POLICY, open_policy, own_checkpoint
from model_core.spec.contract import PolicyContract, digest_of, document_of
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.files import atomic_write
from model_core.spec.types import Policy

SUITE = "held-out episodes"
MOST_FRAMES = 512
_VARIES = 1e-6  # of the range of a dimension: less is rounding


def evaluate_open_loop(cfg: EvalConfig, checkpoint: Path, frozen: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Compare a checkpoint with the validation episodes of `frozen`, and write its report; returns the record (an `EvalReport`, or
    {"embodiments": one for each}).

    Raises `GateError` for a model that ignores the image (of several embodiments: of all; of the released one the gate decides),
    `DatasetError` where nothing is held out.
    """
    members, digest = open_frozen(frozen).members, checkpoint_digest(checkpoint)
    if len(members) == 1:
        report, _ = _report_of(cfg, checkpoint, members[0], digest, progress, stops=True)
        return _written(report, out / "report.json")
    reports: dict[str, Any] = {}
    blind: list[GateError] = []
    for member in members:
        part = own_checkpoint(checkpoint, lambda name=member.name: name, out / "scratch" / "parts")
        report, swapped = _report_of(cfg, part, member, digest, progress, stops=False)
        reports[member.name] = _written(report, out / "embodiments" / member.name / "report.json")
        try:
            check_image_dependence(swapped, cfg.min_image_swap_change)
        except GateError as error:
            blind.append(error)
    if len(blind) == len(members):
        raise GateError(f"for none of {', '.join(reports)}: {blind[0]}")
    return {"embodiments": reports}


def _written(report: EvalReport, path: Path) -> dict[str, Any]:
    document = to_document(report)
    atomic_write(path, json.dumps(document, indent=1, sort_keys=True))
    return document


def _report_of(
    cfg: EvalConfig, checkpoint: Path, member: FrozenMember, digest: str, progress: Progress, *, stops: bool
) -> tuple[EvalReport, Mapping[str, ImageDependence]]:
    """The report of one embodiment's policy, and what exchanging images did. digest: of the whole checkpoint. stops: a policy that ignores
    the image is measured no further.
    """
    held_out = member.manifest["split"]["validation"]
    if not held_out:
        raise DatasetError(f"{member.folder} holds out no episode, so nothing can be measured. Fix: record at least two episodes")
    policy, contract = open_policy(DEFAULT_POLICY, checkpoint, cfg.reasoning)
    split = load_split(member.folder, "validation")
    found: Mapping[str, ImageDependence] = {}
    if cfg.image_swap_frames:
        progress.update(0, 2, "exchanging images: does the policy use them?")
        found = measure_image_dependence(policy, split, contract, frames_per_task=cfg.image_swap_frames)
        if stops:
            check_image_dependence(found, cfg.min_image_swap_change)
    progress.update(1, 2, "predicting held-out actions")
    mean_A = column_of(member.folder, "train", "actions_NKA")[:, 0].mean(axis=0)
    episode_N = column_of(member.folder, "validation", "episode_idx_N").astype(np.int64)
    chosen_N = spread_frames(episode_N)
    predicted = predict(policy, split, contract, chosen_N)
    names_N = [str(member.manifest["episodes"][episode]) for episode in episode_N[chosen_N]]
    low, high = wilson(0, 0, CONFIDENCE)
    report = EvalReport(
        checkpoint_digest=digest,
        contract_id=contract.contract_id,
        successes=0,
        trials=0,
        interval=Interval(low=low, high=high, confidence=CONFIDENCE),
        per_task={},
        episodes=(),
        protocol={
            "suite": SUITE,
            "suite_version": digest_of(held_out)[:16],
            "control_hz": contract.embodiment.control_hz,
            "reasoning": cfg.reasoning,
            "execute_horizon": contract.execute_horizon,
            "action": digest_of(document_of(contract.embodiment.action))[:16],
        },
        blindness=image_dependence_numbers(found) if found else {},
        open_loop=open_loop_numbers(predicted, contract, mean_A),
        held_out=held_out_rows(predicted, names_N, contract, mean_A),
    )
    progress.update(2, 2, f"{contract.embodiment.name}: error {report.open_loop[ERROR_RATIO]:.2f} of that of the mean action")
    return report, found


def spread_frames(episode_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """Places of the frames that are asked about: every n-th of each episode, where n is the least power of two that leaves `MOST_FRAMES`.

    episode_N: of each frame, whose episodes follow one another. So what is asked of an episode hardly depends on the others.
    """
    starts = np.flatnonzero(np.r_[True, episode_N[1:] != episode_N[:-1]])
    place_N = np.arange(len(episode_N)) - np.repeat(starts, np.diff(np.r_[starts, len(episode_N)]))
    stride = 1
    while (chosen_N := np.flatnonzero(place_N % stride == 0)).size > MOST_FRAMES and stride <= place_N.max():
        stride *= 2
    return chosen_N


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """Predicted and recorded actions of n frames, the rows of their chunks that would be executed.

    given_N: the policy did not refuse. counts_NK: rows that are compared: of frames that were given, up to the end of the episode.
    """

    predicted_NKA: NDArray[np.floating]
    label_NKA: NDArray[np.floating]
    given_N: NDArray[np.bool_]
    counts_NK: NDArray[np.bool_]

    def pairs(self, chosen_N: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Predicted and recorded actions (R, A) of all frames, or of those that are chosen."""
        counts_NK = self.counts_NK if chosen_N is None else self.counts_NK & chosen_N[:, None]
        return self.predicted_NKA[counts_NK], self.label_NKA[counts_NK]


def predict(policy: Policy, split: FrozenSplit, contract: PolicyContract, chosen_N: NDArray[np.int64]) -> Predicted:
    """Ask `policy` about these frames of the split."""
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
    return Predicted(predicted_NKA=predicted_NKA, label_NKA=label_NKA, given_N=given_N, counts_NK=counts_NK & given_N[:, None])


def open_loop_numbers(found: Predicted, contract: PolicyContract, mean_A: NDArray[np.floating]) -> dict[str, float]:
    """`EvalReport.open_loop`. mean_A: the mean action of training. A dimension that never varies does not count."""
    named = error_ratios(*found.pairs(), mean_A, contract)
    return {
        ERROR_RATIO: float(np.mean(list(named.values()))) if named else float("inf"),
        "frames": float(len(found.given_N)),
        "refused": float((~found.given_N).sum()),
        **{f"{name}/{ERROR_RATIO}": ratio for name, ratio in named.items()},
    }


def held_out_rows(
    found: Predicted, names_N: Sequence[str], contract: PolicyContract, mean_A: NDArray[np.floating]
) -> tuple[HeldOutRow, ...]:
    """`EvalReport.held_out`. names_N: the episode of each frame."""
    varies = error_ratios(*found.pairs(), mean_A, contract)
    dims = [(place, dim.name) for place, dim in enumerate(contract.embodiment.action.dims) if dim.name in varies]
    rows: list[HeldOutRow] = []
    for name in dict.fromkeys(names_N):
        predicted_RA, label_RA = found.pairs(np.array([other == name for other in names_N]))
        sums = (np.abs(predicted_RA - label_RA).sum(axis=0), np.abs(mean_A - label_RA).sum(axis=0))
        error, mean_error = ({dim: float(sum_A[place]) for place, dim in dims} for sum_A in sums)
        rows.append(HeldOutRow(episode=name, rows=len(label_RA), error=error, mean_error=mean_error))
    return tuple(rows)


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
