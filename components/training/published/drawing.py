"""Which samples a training of published examples draws, how often, and which kind each becomes.

An epoch is a list of (sample, group) pairs: a pair stands there as often as its group's rate and its source's share say, relative to the
rarest. What a draw becomes is random, from (seed, step, micro batch), among the kinds that its sample can be made into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.config.published.networks import is_published
from components.config.published.training import KINDS, WEB, ExampleGroup
from components.config.published.web import WebSource
from components.config.train_config import TrainConfig
from components.data.frozen_dataset import column_of, repeated, sources_of
from components.data.frozen_members import FrozenMembers, open_frozen
from model_core.spec.errors import DatasetError, SpecError

_DRAW = 0xE8A


def drawing_pairs(frozen: FrozenMembers, groups: Sequence[ExampleGroup]) -> NDArray[np.int64]:
    """(M, 2): place among the training samples of all embodiments, one after the other, and number of the group, for one epoch.

    One group of all sources draws as the recipe weighs its sources. Raises `DatasetError` for a source that is not in the data, `SpecError`
    where groups and weights of sources both say how often a source is drawn.
    """
    if len(groups) == 1 and not groups[0].sources:
        order_M2 = frozen.order("train")
        places_M = _starts(frozen)[order_M2[:, 0]] + order_M2[:, 1]
        return np.stack([places_M, np.zeros_like(places_M)], axis=1)
    if any("weights" in member.manifest for member in frozen.members):
        raise SpecError("data weights and train.published.groups both say how often a source is drawn. Fix: leave out the weights")
    sources = [source for member in frozen.members for source in sources_of(member.folder, "train")[0]]
    found = [(np.flatnonzero(_is_of(group, sources)), group) for group in groups]
    weights = [_weights(places_N, group, sources) for places_N, group in found]
    least = min(float(weight_N.min()) for weight_N in weights)
    pairs = []
    for number, ((places_N, _), weight_N) in enumerate(zip(found, weights, strict=True)):
        drawn_N = places_N[repeated(weight_N / least)]
        pairs.append(np.stack([drawn_N, np.full_like(drawn_N, number)], axis=1))
    return np.concatenate(pairs)


def drawing_order_of(config: TrainConfig) -> Callable[[Path], NDArray[np.int64]] | None:
    """What gives the order of drawing of a frozen set as (N, 2), member and place, for the account of a training; None where the weights
    of sources decide it. Places of web sources are of member -1."""
    if not is_published(config.network):
        return None

    def order(folder: Path) -> NDArray[np.int64]:
        frozen = open_frozen(folder)
        published = config.published
        places_M, starts = drawing_pairs(frozen, published.groups)[:, 0], _starts(frozen)
        members_M = np.searchsorted(starts, places_M, side="right") - 1
        web_M2 = np.full_like(web_places(published.web, published.groups, len(places_M)), -1)
        return np.concatenate([np.stack([members_M, places_M - starts[members_M]], axis=1), web_M2])

    return order


def drawn_kinds(
    pairs_B2: NDArray[np.int64], groups: Sequence[ExampleGroup], possible: Mapping[str, NDArray[np.bool_]], draw: tuple[int, int, int]
) -> list[str]:
    """The kind of each draw; one behind the groups is of a web source. draw: (seed, step, micro batch)."""
    values_B = np.random.Generator(np.random.PCG64([_DRAW, *draw])).random(len(pairs_B2))
    kinds: list[str] = []
    for (place, number), value in zip(pairs_B2, values_B, strict=True):
        if number >= len(groups):
            kinds.append(WEB)
            continue
        weights = np.array([groups[number].kinds.get(kind, 0.0) * possible[kind][place] for kind in KINDS])
        edges = np.cumsum(weights)
        kinds.append(KINDS[int(np.searchsorted(edges, value * edges[-1], side="right").clip(max=len(KINDS) - 1))])
    return kinds


def web_places(sources: Sequence[WebSource], groups: Sequence[ExampleGroup], robot_draws: int) -> NDArray[np.int64]:
    """(M, 2): the places of all web sources in an epoch in which the groups have `robot_draws`, each source at least one: number of the
    place, and of the source behind the groups."""
    rates = sum(group.rate for group in groups)
    found = [np.zeros((0, 2), np.int64)]
    for number, source in enumerate(sources):
        count = max(1, round(robot_draws * source.rate / rates))
        found.append(np.stack([np.arange(count), np.full(count, len(groups) + number)], axis=1))
    return np.concatenate(found)


def check_possible(pairs_M2: NDArray[np.int64], groups: Sequence[ExampleGroup], possible: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise `DatasetError` for samples of which none of their group's kinds can be made."""
    for number, group in enumerate(groups):
        places_N = np.unique(pairs_M2[pairs_M2[:, 1] == number, 0])
        wanted = [kind for kind, weight in group.kinds.items() if weight > 0]
        none_N = ~np.any([possible[kind][places_N] for kind in wanted], axis=0)
        if none_N.any():
            raise DatasetError(
                f"group {group.name!r}: of {int(none_N.sum())} of {len(places_N)} samples none of {', '.join(wanted)} can be made: depth "
                "needs depth codes, a trajectory a point, a drawn one two. Fix: label the data (annotate), or ask for other kinds"
            )


def _starts(frozen: FrozenMembers) -> NDArray[np.int64]:
    """The place of each embodiment's first training sample among all."""
    sizes = [len(column_of(member.folder, "train", "episode_idx_N")) for member in frozen.members]
    return np.cumsum([0, *sizes[:-1]])


def _is_of(group: ExampleGroup, sources: Sequence[str]) -> NDArray[np.bool_]:
    known = {source: source.rpartition(":")[2] for source in set(sources)}
    strangers = [name for name in group.sources if name not in known and name not in known.values()]
    if strangers:
        raise DatasetError(
            f"group {group.name!r}: no source {strangers[0]!r}; the data are of {', '.join(sorted(known))}. Fix: name one of these"
        )
    wanted = set(group.sources)
    return np.array([not wanted or source in wanted or known[source] in wanted for source in sources], bool)


def _weights(places_N: NDArray[np.int64], group: ExampleGroup, sources: Sequence[str]) -> NDArray[np.float64]:
    """Of each place its share of the draws: the group's rate, over its sources by the square root of their size, over their samples."""
    _, number_N, size_S = np.unique([sources[place] for place in places_N], return_inverse=True, return_counts=True)
    share_S = np.sqrt(size_S) / np.sqrt(size_S).sum()
    return group.rate * (share_S / size_S)[number_N]
