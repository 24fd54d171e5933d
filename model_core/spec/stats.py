"""Unnormalisation statistics: q01 and q99 per action dimension, and a mask that is data.

Normalising maps [q01, q99] onto [-1, 1] where the mask is true; a masked-out dimension (MolmoAct: the gripper)
passes through unchanged. Source: MolmoAct release, action processor; the published code special-cases the last
dimension, here only the mask decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_core.spec.documents import Number
from model_core.spec.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnormStats:
    """Quantiles and mask per action dimension, from `count` steps. Plain tuples, so that they hash and compare."""

    q01: tuple[Number, ...]
    q99: tuple[Number, ...]
    mask: tuple[bool, ...]
    count: int = 0

    def __post_init__(self) -> None:
        require(len(self.q01) == len(self.q99) == len(self.mask), "q01, q99 and mask need one value per dimension")
        require(bool(np.isfinite([*self.q01, *self.q99]).all()), "statistics hold NaN or inf")
        for dim, (low, high) in enumerate(zip(self.q01, self.q99, strict=True)):
            require(low <= high, f"statistics of dimension {dim}: q01 must not exceed q99", got=(low, high))

    def __len__(self) -> int:
        return len(self.q01)

    def normalize(self, actions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Physical units (..., A) -> [-1, 1], clipped; a dimension with q01 == q99 becomes 0."""
        low, high, mask = self._arrays()
        span = high - low
        scaled = np.where(span > 0, 2.0 * (actions - low) / np.where(span > 0, span, 1.0) - 1.0, 0.0)
        return np.where(mask, np.clip(scaled, -1.0, 1.0), np.clip(actions, -1.0, 1.0))

    def unnormalize(self, normalized: NDArray[np.floating]) -> NDArray[np.float64]:
        """[-1, 1] (..., A) -> physical units; the inverse of `normalize` inside [q01, q99]."""
        low, high, mask = self._arrays()
        return np.where(mask, 0.5 * (normalized + 1.0) * (high - low) + low, normalized)

    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        return np.array(self.q01), np.array(self.q99), np.array(self.mask)

    @staticmethod
    def of(actions_TA: NDArray[np.floating], mask: tuple[bool, ...]) -> UnnormStats:
        """Statistics of recorded actions (T, A): numpy's linear quantiles, as in the published preparation."""
        require(
            actions_TA.ndim == 2 and actions_TA.shape[1] == len(mask),
            "actions must be (T, A) with one mask value per A",
            got=actions_TA.shape,
        )
        q01, q99 = np.quantile(actions_TA.astype(np.float64), [0.01, 0.99], axis=0)
        return UnnormStats(q01=tuple(map(float, q01)), q99=tuple(map(float, q99)), mask=mask, count=len(actions_TA))
