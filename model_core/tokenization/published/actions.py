"""Actions counted exactly as the published preparation and parser count them, defects included.

For comparison with the release, and to know what data and checkpoints that were made with it mean. What the platform itself does is
`tokenization.action_codec`: the mask decides which dimension is normalised, in float64, and what cannot be meant is refused.
As published: six dimensions are normalised in float32 with 1e-8 in the denominator, the seventh becomes one minus itself (which decoding
does not undo), further ones stay raw; a span within 1e-8 + 1e-5 |q01| counts as constant; NaN becomes bin 256; in decoding the last
dimension is never brought back to its unit, and without a mask all others are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import ContractError, require
from model_core.spec.stats import UnnormStats
from model_core.tokenization.action_codec import CENTRES, EDGES, PUBLISHED_FIRST_ID
from model_core.tokenization.published.text_encoding import byte_to_surface, qwen2_ranks

NORMALIZED_DIMS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedStats:
    """The entry `action` of a data set in published `norm_stats`. mask: None where the entry has none."""

    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mask: tuple[bool, ...] | None = None

    @classmethod
    def of(cls, norm_stats: Mapping[str, Any], key: str | None = None) -> PublishedStats:
        """The statistics under `key`; without one there must be exactly one entry. Raises `ContractError` for no such entry."""
        if key is None:
            require(len(norm_stats) == 1, "unnorm_key must say which statistics are meant", got=sorted(norm_stats), error=ContractError)
            key = next(iter(norm_stats))
        require(key in norm_stats, f"no statistics {key!r}; there are {sorted(norm_stats)}", error=ContractError)
        entry = norm_stats[key]["action"]
        q01, q99 = (tuple(float(value) for value in entry[name]) for name in ("q01", "q99"))
        mask = tuple(bool(value) for value in entry["mask"]) if "mask" in entry else None
        return cls(q01=q01, q99=q99, mask=mask)

    def sound(self) -> UnnormStats:
        """As statistics whose mask says all.

        Raises `ContractError` where the published decoding would disagree with the mask: none is given, or it claims the last dimension.
        """
        if self.mask is None:
            raise ContractError("the statistics have no mask. Fix: state which dimensions were normalised when the data were made")
        if self.mask[-1]:
            raise ContractError(
                "the mask says that the last dimension is normalised, published checkpoints never bring it back to its unit. "
                "Fix: state in the mask what was done when the data were made"
            )
        return UnnormStats(q01=self.q01, q99=self.q99, mask=self.mask)


def published_normalized(actions_TA: NDArray[np.floating], stats: PublishedStats, *, dims: int = NORMALIZED_DIMS) -> NDArray[np.float32]:
    """Raw actions (..., A) -> what is binned, float32.

    dims: how many dimensions, from the first, are normalised. The one behind them (the gripper) becomes one minus itself, the rest stays.
    """
    actions_TA = np.asarray(actions_TA, np.float32)
    q01, q99 = np.array(stats.q01, np.float32), np.array(stats.q99, np.float32)
    scaled = np.clip(2.0 * (actions_TA - q01) / (q99 - q01 + np.float32(1e-8)) - 1.0, -1.0, 1.0)
    made = np.where(np.isclose(q99, q01), np.float32(0.0), scaled).astype(np.float32)
    made[..., dims:] = actions_TA[..., dims:]
    made[..., dims : dims + 1] = 1.0 - actions_TA[..., dims : dims + 1]
    return made


def published_bins(normalized: NDArray[np.floating]) -> NDArray[np.int64]:
    """Bins 1..256 of any numbers; those outside [-1, 1] go to the ends, NaN to 256."""
    return np.digitize(np.clip(normalized, -1.0, 1.0), EDGES).astype(np.int64)


def published_window(bins_TA: NDArray[np.int64], step: int, length: int) -> NDArray[np.int64]:
    """The chunk (K, A) that begins at `step`; behind the end of the episode the last action is repeated."""
    return bins_TA[np.minimum(step + np.arange(length), len(bins_TA) - 1)]


def published_statistics(
    actions_TA: NDArray[np.floating], proprio_TP: NDArray[np.floating] | None = None, *, trajectories: int
) -> dict[str, Any]:
    """The statistics of a data set as the published preparation writes them: `norm_stats[key]`.

    Without proprio it writes zeros, as many as there are action dimensions.
    """
    first = [True] * min(NORMALIZED_DIMS, actions_TA.shape[1])
    mask = first + [False] * (actions_TA.shape[1] - len(first))
    proprio = _moments(proprio_TP) if proprio_TP is not None else _moments(np.zeros((1, actions_TA.shape[1]), np.float32))
    return {
        "action": {**_moments(actions_TA), "mask": mask},
        "proprio": proprio,
        "num_transitions": len(actions_TA),
        "num_trajectories": trajectories,
    }


def _moments(values_TA: NDArray[np.floating]) -> dict[str, list[float]]:
    values_TA = np.asarray(values_TA, np.float32)
    found = {
        "mean": values_TA.mean(0),
        "std": values_TA.std(0),
        "min": values_TA.min(0),
        "max": values_TA.max(0),
        "q01": np.quantile(values_TA, 0.01, axis=0),
        "q99": np.quantile(values_TA, 0.99, axis=0),
    }
    return {name: value.astype(np.float32).tolist() for name, value in found.items()}


@cache
def _byte_of() -> Mapping[str, int]:
    return {char: byte for byte, char in enumerate(byte_to_surface())}


def published_values(pieces: Sequence[str]) -> NDArray[np.float64]:
    """What the published parser makes of one action's pieces, in [-1, 1].

    A piece that is no entry of the Qwen2 table becomes the lowest value, an ordinary entry the highest; neither is an error.
    """
    ranks, byte_of = qwen2_ranks(None), _byte_of()
    numbers = []
    for piece in pieces:
        known = all(char in byte_of for char in piece)
        token = ranks.get(bytes(byte_of[char] for char in piece)) if known else None
        numbers.append(0 if token is None else min(PUBLISHED_FIRST_ID - token, len(CENTRES) - 1))
    return CENTRES[np.array(numbers, np.int64)]


def published_physical(values_KA: NDArray[np.float64], stats: PublishedStats) -> NDArray[np.float64]:
    """Values in [-1, 1] (..., A) -> physical units, but for the last dimension."""
    q01, q99 = np.array(stats.q01, np.float32), np.array(stats.q99, np.float32)
    mask = np.ones(len(q01), bool) if stats.mask is None else np.array(stats.mask)
    mask[-1] = False
    return np.where(mask, 0.5 * (values_KA + 1.0) * (q99 - q01) + q01, values_KA)  # the span in float32, the rest in float64
