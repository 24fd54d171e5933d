"""Camera images with what a policy predicted: rollout strips, example sheets of held-out frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.records import RolloutRow
from components.drawing.images import Panel, example_sheet, rollout_strip, save_png
from components.evaluation.rollout import RolloutFrame
from model_core.spec.types import Policy, Trace

if TYPE_CHECKING:
    from components.data.frozen_dataset import FrozenSplit
    from model_core.spec.contract import PolicyContract

DepthDecoder = Callable[[NDArray[np.integer]], NDArray[np.floating] | None]


def depth_decoder(checkpoint: Path) -> DepthDecoder:
    """Depth codes (G,) -> a map in metres, by the codebook beside the weights; gives None where there are no codes or no codebook."""
    folder = checkpoint / "vqvae"
    if not (folder / "config.json").is_file():
        return lambda codes_G: None
    from model_core.tokenization.depth.codec import DepthCodec

    codec = DepthCodec.load(folder)
    return lambda codes_G: codec.decode(codes_G[None])[0] if len(codes_G) else None


def draw_rollout_strip(frames: Sequence[RolloutFrame], row: RolloutRow, control_hz: float, decode: DepthDecoder, path: Path) -> Path:
    """One rollout as a strip: camera with the predicted trace, the predicted depth below, seconds under both."""
    panels = [
        Panel(
            image_HW3=frame.image_HW3,
            caption=f"{frame.step / control_hz:.1f} s",
            predicted=Trace(points_N2=frame.trace_N2) if len(frame.trace_N2) else None,
            depth_HW=decode(frame.codes_G),
        )
        for frame in frames
    ]
    how = f"solved in {row.steps / control_hz:.1f} s" if row.success else f"not solved: {row.stop_reason.replace('_', ' ')}"
    return save_png(rollout_strip(panels, title=f"{row.task}, seed {row.seed}: {how}, {row.decisions} decisions"), path)


def draw_examples(
    policy: Policy, split: FrozenSplit, contract: PolicyContract, decode: DepthDecoder, path: Path, *, count: int = 6
) -> Path:
    """Held-out frames with predicted and true trace and depth."""
    from components.data.frozen_dataset import observation_of

    chosen = [int(i) for i in np.linspace(0, len(split) - 1, min(count, len(split)))]
    decisions = policy.decide_many([observation_of(split, contract, frame, split.images_NVHW3[frame]) for frame in chosen])
    panels = []
    for frame, decision in zip(chosen, decisions, strict=True):
        reasoning = decision.reasoning
        points = np.zeros((0, 2), np.int64) if split.trace_N52 is None else _points(split.trace_N52[frame])
        panels.append(
            Panel(
                image_HW3=split.images_NVHW3[frame][0],
                caption=split.tasks[int(split.task_idx_N[frame])],
                predicted=reasoning.trace if reasoning else None,
                true=Trace(points_N2=points) if len(points) else None,
                depth_HW=decode(reasoning.depth.codes_G) if reasoning and reasoning.depth else None,
                true_depth_HW=None if split.depth_codes_NG is None else decode(split.depth_codes_NG[frame]),
            )
        )
    return save_png(example_sheet(panels), path)


def _points(trace_52: NDArray[np.int16]) -> NDArray[np.int64]:
    """The points that a padded trace has."""
    return trace_52[trace_52[:, 0] >= 0].astype(np.int64)
