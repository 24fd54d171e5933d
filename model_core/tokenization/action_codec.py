"""Actions as bins and bins as symbols, without a silent extreme anywhere.

    physical --stats--> [-1, 1] --256 edges--> bin 1..256 --table--> symbol
    physical <--stats-- [-1, 1] <-255 centres- bin 1..256 <--table--- symbol

Edges are linspace(-1, 1, 256), centres their 255 midpoints: bin 128 is exactly 0, bins 255 and 256 both mean .99608.
Source: MolmoAct release, `preprocess/processors.py` and `parse_action`. There an unknown symbol becomes bin 1, the
lowest action; here it raises `GrammarError`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, SpecError, require
from model_core.spec.stats import UnnormStats

NUM_BINS = 256
EDGES = np.linspace(-1.0, 1.0, NUM_BINS)
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2.0
PUBLISHED_FIRST_ID = 151642  # bin 1; bin d is id 151643 - d of the Qwen2 table


def bins_of(normalized: NDArray[np.floating]) -> NDArray[np.int64]:
    """[-1, 1] (...) -> bins 1..256, outside is clipped. Raises `SpecError` on NaN or inf."""
    if not np.isfinite(normalized).all():
        raise SpecError("actions hold NaN or inf; expected finite numbers before binning")
    return np.digitize(np.clip(normalized, -1.0, 1.0), EDGES).astype(np.int64)


def values_of(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """Bins 1..256 (...) -> centres in [-1, 1]. Raises `SpecError` on any other bin."""
    require(np.issubdtype(bins.dtype, np.integer), "action bins must be integers", got=bins.dtype)
    if bins.size and not (bins.min() >= 1 and bins.max() <= NUM_BINS):
        raise SpecError(f"action bins must be 1..{NUM_BINS}, got {int(bins.min())}..{int(bins.max())}")
    return CENTRES[np.minimum(bins.astype(np.int64), NUM_BINS - 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCodec:
    """Physical actions <-> bins, with the statistics of a contract."""

    stats: UnnormStats

    def encode(self, actions: NDArray[np.floating]) -> NDArray[np.int64]:
        """Physical actions (..., A) -> bins 1..256."""
        self._check(actions)
        return bins_of(self.stats.normalize(actions))

    def recall(self, actions_DA: NDArray[np.floating], predicted_DA: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Actions that a policy predicted (D, A) -> the bins that it predicted them with.

        Two bins mean the highest value, so a value alone does not tell. predicted_DA: bins that are assumed to have been predicted;
        they stand wherever they mean what is given, for as many actions as there are. Without them the highest value is bin 256: the
        one with which all actions at or past the end of the range are trained.
        """
        bins_DA = self.encode(actions_DA)
        bins_DA[bins_DA == NUM_BINS - 1] = NUM_BINS
        if predicted_DA is not None and len(predicted_DA):
            actions = min(len(predicted_DA), len(bins_DA))
            likely_DA = predicted_DA[:actions]
            same_DA = (np.minimum(likely_DA, NUM_BINS - 1) == np.minimum(bins_DA[:actions], NUM_BINS - 1)) & (likely_DA <= NUM_BINS)
            bins_DA[:actions][same_DA] = likely_DA[same_DA]
        return bins_DA

    def decode(self, bins: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bins (..., A) -> physical actions, within half a bin of what `encode` was given inside [q01, q99]."""
        self._check(bins)
        return self.stats.unnormalize(values_of(bins)).astype(np.float32)

    def _check(self, array: NDArray[np.generic]) -> None:
        require(array.ndim >= 1 and array.shape[-1] == len(self.stats), f"actions must be (..., {len(self.stats)})", got=array.shape)


@cache
def published_symbols() -> tuple[str, ...]:
    """The 256 byte-level surface strings of MolmoAct's action bins: symbols[d - 1] is bin d."""
    document = json.loads(files("model_core.tokenization").joinpath("action_symbols.json").read_text(encoding="utf-8"))
    symbols = tuple(document["symbols"])
    require(len(set(symbols)) == NUM_BINS and document["first_id"] == PUBLISHED_FIRST_ID, "action_symbols.json is damaged")
    return symbols


@cache
def _published_bins() -> dict[str, int]:
    return {symbol: index + 1 for index, symbol in enumerate(published_symbols())}


def symbols_of(bins_KA: NDArray[np.integer]) -> list[list[str]]:
    """The published symbols of a chunk, K actions of A symbols. Raises `SpecError` for a bin outside 1..256 or no chunk."""
    require(bins_KA.ndim == 2 and bins_KA.size > 0, "action bins must be (K, A)", got=bins_KA.shape)
    require(bins_KA.min() >= 1 and bins_KA.max() <= NUM_BINS, f"action bins must be 1..{NUM_BINS}", got=bins_KA.tolist())
    return [[published_symbols()[action_bin - 1] for action_bin in bins_A] for bins_A in bins_KA.tolist()]


def bin_of_symbol(symbol: str) -> int:
    """The bin 1..256 of a published symbol. Raises `GrammarError` for any other text."""
    found = _published_bins().get(symbol)
    if found is None:
        raise GrammarError(f"expected one of the {NUM_BINS} action symbols, got {symbol!r}", 0, len(symbol))
    return found
