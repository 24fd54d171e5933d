"""Actions as bins and bins as symbols, without a silent extreme anywhere.

    physical --stats--> [-1, 1] --256 edges--> bin 1..256 --spelling--> symbol
    physical <--stats-- [-1, 1] <-255 centres- bin 1..256 <-spelling--- symbol

Edges are linspace(-1, 1, 256), centres their 255 midpoints: bin 128 is exactly 0, bins 255 and 256 both mean .99608.
Source: MolmoAct release, `preprocess/processors.py` and `parse_action`. There an unknown symbol becomes bin 1, the
lowest action; here it raises `GrammarError`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, SpecError, require
from model_core.spec.stats import UnnormStats

NUM_BINS = 256
EDGES = np.linspace(-1.0, 1.0, NUM_BINS)
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2.0
PUBLISHED_FIRST_ID = 151642  # bin 1; bin d is id 151643 - d of the Qwen2 table

PieceT = TypeVar("PieceT", str, int)


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

    def recall(self, actions_DA: NDArray[np.floating], said_DA: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Rows that a policy said (D, A) -> the bins that it said them with.

        Two bins mean the highest value, so a value alone does not tell. said_DA: bins that are believed to have been said; they stand
        wherever they mean what is given, for as many rows as there are. Without them the highest value is bin 256: the one that all
        actions at or past the end of the range are taught with.
        """
        bins_DA = self.encode(actions_DA)
        bins_DA[bins_DA == NUM_BINS - 1] = NUM_BINS
        if said_DA is not None and len(said_DA):
            rows = min(len(said_DA), len(bins_DA))
            likely_DA = said_DA[:rows]
            same_DA = (np.minimum(likely_DA, NUM_BINS - 1) == np.minimum(bins_DA[:rows], NUM_BINS - 1)) & (likely_DA <= NUM_BINS)
            bins_DA[:rows][same_DA] = likely_DA[same_DA]
        return bins_DA

    def decode(self, bins: NDArray[np.integer]) -> NDArray[np.float32]:
        """Bins (..., A) -> physical actions, within half a bin of what `encode` was given inside [q01, q99]."""
        self._check(bins)
        return self.stats.unnormalize(values_of(bins)).astype(np.float32)

    def _check(self, array: NDArray[np.generic]) -> None:
        require(array.ndim >= 1 and array.shape[-1] == len(self.stats), f"actions must be (..., {len(self.stats)})", got=array.shape)


class ActionSpelling(Protocol[PieceT]):
    """One symbol per bin. `spell_bin` and `read_piece` are inverse; a foreign piece raises `GrammarError`."""

    @property
    def name(self) -> str:
        """As in `ReasoningSpec.spelling`."""
        ...

    def spell_bin(self, action_bin: int) -> PieceT:
        """Bin 1..256 -> symbol."""
        ...

    def read_piece(self, piece: PieceT) -> int:
        """Symbol -> bin 1..256."""
        ...


@cache
def published_symbols() -> tuple[str, ...]:
    """The 256 byte-level surface strings of MolmoAct's action bins: symbols[d - 1] spells bin d."""
    document = json.loads(files("model_core.tokenization").joinpath("action_symbols.json").read_text(encoding="utf-8"))
    symbols = tuple(document["symbols"])
    require(len(set(symbols)) == NUM_BINS and document["first_id"] == PUBLISHED_FIRST_ID, "action_symbols.json is damaged")
    return symbols


@cache
def _published_bins() -> dict[str, int]:
    return {symbol: index + 1 for index, symbol in enumerate(published_symbols())}


@dataclass(frozen=True, slots=True)
class PublishedSpelling:
    """MolmoAct's: each value is the surface string of one of the last 256 entries of the Qwen2 table, 2..5 LM tokens."""

    name: str = "published"

    def spell_bin(self, action_bin: int) -> str:
        """Bin 1..256 -> surface string."""
        _check_bin(action_bin)
        return published_symbols()[action_bin - 1]

    def read_piece(self, piece: str) -> int:
        """Surface string -> bin 1..256."""
        found = _published_bins().get(piece)
        if found is None:
            raise GrammarError(f"expected one of the {NUM_BINS} action symbols, got {piece!r}", 0, len(piece))
        return found


@dataclass(frozen=True, slots=True)
class CompactSpelling:
    """One id a value: bin d is id `first_id` + d - 1 (`CompactVocabulary.action.start`)."""

    first_id: int
    name: str = "compact"

    def spell_bin(self, action_bin: int) -> int:
        """Bin 1..256 -> id."""
        _check_bin(action_bin)
        return self.first_id + action_bin - 1

    def read_piece(self, piece: int) -> int:
        """Id -> bin 1..256."""
        if not self.first_id <= piece < self.first_id + NUM_BINS:
            raise GrammarError(f"expected an action id {self.first_id}..{self.first_id + NUM_BINS - 1}, got {piece}", 0, 1)
        return int(piece) - self.first_id + 1


@dataclass(frozen=True, slots=True)
class SpeltActions(Generic[PieceT]):
    """Chunks through a spelling: bins (K, A) <-> K rows of A symbols."""

    spelling: ActionSpelling[PieceT]

    def spell(self, bins_KA: NDArray[np.integer]) -> list[list[PieceT]]:
        """Raises `SpecError` on a bin outside 1..256 or a wrong number of dimensions."""
        require(bins_KA.ndim == 2 and bins_KA.size > 0, "action bins must be (K, A)", got=bins_KA.shape)
        return [[self.spelling.spell_bin(int(action_bin)) for action_bin in row_A] for row_A in bins_KA]

    def read(self, rows: Sequence[Sequence[PieceT]]) -> NDArray[np.int64]:
        """Raises `GrammarError` naming row and column of a foreign symbol, or rows of different length."""
        if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
            raise GrammarError(f"expected K rows of A action symbols, got rows of length {[len(row) for row in rows]}", 0, len(rows))
        bins = []
        for row_index, row in enumerate(rows):
            for column, piece in enumerate(row):
                try:
                    bins.append(self.spelling.read_piece(piece))
                except GrammarError as error:
                    raise GrammarError(f"action {row_index}, dimension {column}: {error}", row_index, row_index + 1) from error
        return np.array(bins, np.int64).reshape(len(rows), -1)


def _check_bin(action_bin: int) -> None:
    require(1 <= action_bin <= NUM_BINS, f"an action bin must be 1..{NUM_BINS}", got=action_bin)
