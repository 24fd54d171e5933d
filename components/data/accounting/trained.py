"""The account of a training: which frames of the frozen data set its steps drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.accounting.tally import Tally
from components.data.frozen_dataset import sources_of
from components.data.frozen_members import open_frozen


def trained_on(
    frozen: Path, drawn: Callable[[int], NDArray[np.int64]], order: Callable[[Path], NDArray[np.int64]] | None = None
) -> list[dict[str, Any]]:
    """The account of a training on `frozen`, by source: frames that were drawn, held out, or never drawn.

    drawn: for the number of samples in the order of drawing, which of them the steps draw. order: that order as (N, 2), member and place;
    None: as the weights of the sources say.
    """
    tally = Tally("train")
    found = open_frozen(frozen)
    order_N2 = found.order("train") if order is None else order(frozen)
    drawn_N2 = order_N2[drawn(len(order_N2))]
    for place, member in enumerate(found.members):
        _count(tally, member.folder, drawn_N2[drawn_N2[:, 0] == place, 1])
    return tally.rows()


def _count(tally: Tally, frozen: Path, drawn_N: NDArray[np.int64]) -> None:
    """Add the samples of one embodiment, by source. drawn_N: places in its training split, each once or more."""
    sources, episode_N = sources_of(frozen, "train")
    is_drawn_N = np.zeros(len(sources), bool)
    is_drawn_N[drawn_N] = True
    held_out, held_out_episode_N = sources_of(frozen, "validation")
    for source in sorted({*sources, *held_out}):
        mine_N = np.array([one == source for one in sources], bool)
        kept = len(np.unique(episode_N[mine_N & is_drawn_N]))
        never = len(np.unique(episode_N[mine_N])) - kept
        tally.keep(source, int((mine_N & is_drawn_N).sum()), kept)
        away_N = np.array([one == source for one in held_out], bool)
        tally.drop(source, "held out for validation", int(away_N.sum()), len(np.unique(held_out_episode_N[away_N])))
        tally.drop(source, "drawn by no step", int((mine_N & ~is_drawn_N).sum()), never)
