"""A policy on recorded episodes: its error in each action dimension, and how likely it finds what was recorded, before any robot moves.

The likelihood is teacher-forced: each token of the recorded answer (depth, trace, action) is predicted from the frame and the recorded
tokens before it, as in training. A low error on recorded frames does not show that a task is solved: errors add up once a policy acts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.judging.verdict import ERROR_RATIO
from components.config.records import EvalReport, HeldOutRow
from components.data.frozen_dataset import FrozenSplit, load_split

SAMPLES, BATCH = 256, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionError:
    """One action dimension: mean absolute error in its own unit, that of always predicting the mean action, and their ratio.

    low, high: 95 % interval of the ratio, by resampling whole episodes.
    """

    name: str
    unit: str
    error: float
    mean_error: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedResult:
    """A policy on the held-out episodes of a frozen data set. data: its version. likelihood: nats a token of each field of the answer and
    "perplexity/<field>"; empty where it was not measured, and then `lack` says why.
    """

    policy: str
    contract: str
    data: str
    episodes: int
    frames: int
    refused: int
    dimensions: tuple[DimensionError, ...]
    likelihood: Mapping[str, float]
    lack: str = ""


def recorded_result(report: EvalReport, units: Mapping[str, str], likelihood: Mapping[str, float], lack: str = "") -> RecordedResult:
    """Of an open-loop evaluation. units: of each action dimension."""
    rows = [row for row in report.held_out if row.rows]
    names = [name for name in (rows[0].error if rows else {}) if f"{name}/{ERROR_RATIO}" in report.open_loop]
    return RecordedResult(
        policy=report.checkpoint_digest,
        contract=report.contract_id,
        data=str(report.protocol.get("suite_version", "")),
        episodes=len(report.held_out),
        frames=int(report.open_loop["frames"]),
        refused=int(report.open_loop["refused"]),
        dimensions=tuple(_dimension(name, units.get(name, ""), rows) for name in names),
        likelihood=likelihood,
        lack=lack,
    )


def _dimension(name: str, unit: str, rows: Sequence[HeldOutRow]) -> DimensionError:
    error_E, mean_E = (np.array([getattr(row, field)[name] for row in rows]) for field in ("error", "mean_error"))
    count_E = np.array([row.rows for row in rows])
    low, high = _resampled(error_E, mean_E)
    return DimensionError(
        name=name,
        unit=unit,
        error=float(error_E.sum() / count_E.sum()),
        mean_error=float(mean_E.sum() / count_E.sum()),
        ratio=float(error_E.sum() / mean_E.sum()),
        low=low,
        high=high,
    )


def _resampled(error_E: NDArray[np.floating], mean_E: NDArray[np.floating], draws: int = 2_000) -> tuple[float, float]:
    """Percentile bootstrap over episodes (Efron 1979): frames of one episode are too alike to count as independent."""
    chosen_DE = np.random.Generator(np.random.PCG64(0)).integers(0, len(error_E), (draws, len(error_E)))
    ratios_D = error_E[chosen_DE].sum(axis=1) / mean_E[chosen_DE].sum(axis=1)
    low, high = np.quantile(ratios_D, [0.025, 0.975])
    return float(low), float(high)


def likelihood_of(checkpoint: Path, frozen: Path, samples: int = SAMPLES) -> dict[str, float]:
    """Nats a token of each field of the recorded answers, over evenly spaced held-out frames, and "perplexity/<field>".

    Empty where no held-out episode is as long as a chunk. Raises `CheckpointError` for a checkpoint of the published language, whose fields
    are text.
    """
    import torch

    from model_core.checkpoint import load_checkpoint
    from model_core.training import LossConfig, answer_loss

    read = load_checkpoint(checkpoint)
    split, layout = load_split(frozen, "validation"), read.layout
    chosen_N = _spread(split, samples)
    sums: dict[str, float] = {}
    with torch.no_grad():
        for start in range(0, len(chosen_N), BATCH):
            part_B = chosen_N[start : start + BATCH]
            _, parts = answer_loss(read.model, _batch(split, read, part_B), layout, LossConfig(smoothing_bins=0.0))
            for name, value in parts.items():
                if name.startswith("loss_"):
                    field = name.removeprefix("loss_")
                    sums[field] = sums.get(field, 0.0) + float(value) * len(part_B) / len(chosen_N)
    return {**sums, **{f"perplexity/{field}": math.exp(value) for field, value in sums.items()}}


def _spread(split: FrozenSplit, samples: int) -> NDArray[np.int64]:
    """Evenly spaced frames whose chunk was recorded whole: what stands past the end of an episode is no demonstration."""
    whole_N = np.arange(len(split)) if split.is_padded_NK is None else np.flatnonzero(~split.is_padded_NK.any(axis=1))
    if not len(whole_N):
        return whole_N
    return whole_N[np.linspace(0, len(whole_N) - 1, min(samples, len(whole_N))).astype(np.int64)]


def _batch(split: FrozenSplit, read: Any, part_B: NDArray[np.int64]) -> Any:
    """The recorded answers of these frames, the whole chain that the policy was taught."""
    from model_core.network.queries import ActionHead
    from model_core.tokenization.compact.layout import ReasoningMode
    from model_core.tokenization.observation import ContractActions, PolicyInputs
    from model_core.training import training_batch

    layout, contract = read.layout, read.contract
    inputs, levels = PolicyInputs(layout=layout, contract=contract), contract.reasoning.levels
    trace, depth = split.trace_N52, split.depth_codes_NG
    mode = ReasoningMode.ACTION if trace is None or levels[0] == "action" else ReasoningMode.TRACE_ACTION
    if depth is not None and levels[0] == "full" and mode is not ReasoningMode.ACTION:
        mode = ReasoningMode.FULL
    tokens = layout.batch(
        mode=mode,
        words_BW=inputs.word_table(split.instructions)[split.instruction_idx_N[part_B]],
        proprio_bins_BP=inputs.proprio_bins(split.proprio_NP[part_B]),
        bins_BKA=ContractActions(contract=contract).bins(split.actions_NKA[part_B]),
        depth_codes_BG=depth[part_B] if depth is not None and mode is ReasoningMode.FULL else None,
        trace_B52=trace[part_B] if trace is not None and mode is not ReasoningMode.ACTION else None,
    )
    head = ActionHead.PARALLEL if contract.reasoning.kind == "parallel" else ActionHead.CAUSAL
    return training_batch(layout, tokens, split.images_NVHW3[part_B], mode, head=head)


def recorded_markdown(result: RecordedResult) -> str:
    """The result as tables."""
    lines = [
        f"# Recorded episodes: {result.frames} frames of {result.episodes} held-out episodes, {result.refused} refused",
        "",
        f"Policy {result.policy[:16]}, contract {result.contract}, data {result.data}.",
        "",
        "| action dimension | mean absolute error | of the mean action | ratio | 95 % interval (episodes resampled) |",
        "|---|---|---|---|---|",
        *(
            f"| {one.name} | {one.error:.4g} {one.unit} | {one.mean_error:.4g} {one.unit} | {one.ratio:.3f} | "
            f"{one.low:.3f} to {one.high:.3f} |"
            for one in result.dimensions
        ),
    ]
    fields = [name for name in result.likelihood if "/" not in name]
    if fields:
        lines += ["", "| field of the answer | nats a token (teacher-forced) | perplexity |", "|---|---|---|"]
        lines += [f"| {name} | {result.likelihood[name]:.4f} | {result.likelihood[f'perplexity/{name}']:.2f} |" for name in fields]
    return "\n".join([*lines, *(["", result.lack] if result.lack else [])]) + "\n"
