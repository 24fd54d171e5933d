"""The dimensions of recorded actions: which one is the gripper, and which values the action tokens cannot hold.

A normalised dimension is taught inside q01..q99, one that is passed through (mask False) inside -1..1; what lies outside becomes the
nearest value inside. So a dimension in a unit of its own must not be passed through, and a rarely used value is lost by normalising.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import DimSpec, EmbodimentSpec
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError
from model_core.spec.stats import UnnormStats

_BIN = 2.0 / 255  # width of an action token in -1..1: less than half of it outside is told as exactly as everything inside
_FAR = 0.5  # of q01..q99: tails of a bell curve reach a third of it in ten thousand steps
_COARSE = 32  # tokens


def gripper_mask(embodiment: EmbodimentSpec) -> NDArray[np.bool_]:
    """(A,) True where the action dimension is the gripper; nowhere for an arm that has none."""
    return np.array([dim.name == embodiment.gripper_dim for dim in embodiment.action.dims], bool)


def check_passed_through(episodes: Sequence[Episode], mask: Sequence[bool], body: EmbodimentSpec) -> None:
    """Raise `DatasetError` for a dimension that is passed through and holds values outside -1..1, as actions or as what was executed."""
    for index, is_normalised in enumerate(mask):
        if is_normalised:
            continue
        for what, name in (("action", "actions_TA"), ("executed action", "executed_TA")):
            for episode in episodes:
                values_T = getattr(episode, name)[:, index]
                is_outside_T = ~(np.abs(values_T) <= 1.0 + _BIN / 2)  # NaN is outside, too
                if is_outside_T.any():
                    dim, step = body.action.dims[index], int(np.argmax(is_outside_T))
                    whole = np.concatenate([getattr(one, name)[:, index] for one in episodes])
                    raise DatasetError(
                        f"{what} {dim.name!r} is passed through without normalising (freeze.mask), which needs values in -1..1: got "
                        f"{np.min(whole):.4g}..{np.max(whole):.4g} {dim.unit}, first {values_T[step]:.4g} in frame {step} of episode "
                        f"{episode.episode_id}; they would be taught as -1 or 1. Fix: normalise it, "
                        f"--set 'freeze.mask={_with(mask, index, True)}', or record it in -1..1"
                    )


def action_notes(episodes: Sequence[Episode], stats: UnnormStats, body: EmbodimentSpec) -> list[str]:
    """What a person should know of the actions that are taught: rare values that are lost, and dimensions of few tokens.

    episodes: of the training split, whose statistics `stats` are.
    """
    actions_TA = np.concatenate([episode.actions_TA for episode in episodes]).astype(np.float64)
    places = [f"frame {step} of episode {episode.episode_id}" for episode in episodes for step in range(len(episode))]
    notes = []
    for index, dim in enumerate(body.action.dims):
        values_T = actions_TA[:, index]
        notes.append(_rare(values_T, stats, index, dim, places) if stats.mask[index] else _coarse(values_T, stats, index, dim))
    return [note for note in notes if note]


def _coarse(values_T: NDArray[np.float64], stats: UnnormStats, index: int, dim: DimSpec) -> str:
    tokens = len(np.unique(np.rint(values_T / _BIN)))
    if len(np.unique(values_T)) <= tokens or np.ptp(values_T) >= _COARSE * _BIN:
        return ""
    return (
        f"action {dim.name!r} is passed through without normalising, and its values {values_T.min():.4g}..{values_T.max():.4g} {dim.unit} "
        f"use {tokens} of the 256 action tokens. Fix: if that is too coarse, normalise it, "
        f"--set 'freeze.mask={_with(stats.mask, index, True)}'"
    )


def _rare(values_T: NDArray[np.float64], stats: UnnormStats, index: int, dim: DimSpec, places: Sequence[str]) -> str:
    low, high = stats.q01[index], stats.q99[index]
    beyond_T = np.maximum(low - values_T, values_T - high)
    # a difference of rounding is no other value: float32 has 24 bits
    is_lost_T = beyond_T > max(_FAR * (high - low), 2.0**-20 * max(abs(low), abs(high)))
    if not is_lost_T.any():
        return ""
    lost, lost_N = int(is_lost_T.sum()), values_T[is_lost_T]
    is_passable = bool(np.abs(values_T).max() <= 1.0 + _BIN / 2)
    option = f"--set 'freeze.mask={_with(stats.mask, index, False)}'"
    way = f"pass it through, {option}" if is_passable else f"record it in -1..1 and pass it through ({option})"
    return (
        f"action {dim.name!r}: {lost} of {len(values_T)} steps ({lost / len(values_T):.2%}) hold values of {lost_N.min():.4g}.."
        f"{lost_N.max():.4g} {dim.unit}, far outside q01..q99 ({low:.4g}..{high:.4g}), which are taught as {low:.4g} or {high:.4g}; "
        f"first in {places[int(np.argmax(is_lost_T))]}. Fix: if they matter, {way}, or record more steps that use them; "
        "if they are faults, take these episodes out"
    )


def _with(mask: Sequence[bool], index: int, value: bool) -> str:
    changed = [value if n == index else bool(one) for n, one in enumerate(mask)]
    return "[" + ",".join(str(one).lower() for one in changed) + "]"
