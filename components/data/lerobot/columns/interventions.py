"""Where a person acted in an episode: frame by frame, in our own table of episodes, or in the columns of other writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    from components.data.sources.interface import EpisodeSource

NAME = "intervention"
COLUMNS = (NAME, "complementary_info.is_intervention")  # of LeRobot's recorders


def entry(episode: Episode) -> dict[str, list[bool] | None]:
    """What our table of episodes keeps: a flag a frame; None where the recording does not say."""
    return {NAME: None if episode.intervention_T is None else episode.intervention_T.tolist()}


def kept(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the column where no episode says anything, so that such a set has the bytes that it always had."""
    if any(row[NAME] is not None for row in rows):
        return [dict(row) for row in rows]
    return [{name: value for name, value in row.items() if name != NAME} for row in rows]


def stated(where: str, ours: Mapping[str, Any], columns: Mapping[str, NDArray[Any]], length: int) -> NDArray[np.bool_] | None:
    """The flags of an episode's frames (T,), from our table, else from a column of its frames; None where neither says it.

    Raises `DatasetError` for flags that are not one a frame.
    """
    found = ours.get(NAME)
    values = next((columns[name] for name in COLUMNS if name in columns), None) if found is None else np.asarray(found, bool)
    if values is None:
        return None
    flags_T = np.asarray(values).reshape(-1)
    if len(flags_T) != length or not np.isfinite(flags_T.astype(np.float64)).all():
        raise DatasetError(
            f"{where}: expected {length} flags of intervention, got {len(flags_T)}, or some are missing. Fix: export it again"
        )
    return flags_T != 0


def spans(flags_T: NDArray[np.bool_]) -> list[list[int]]:
    """[first frame, frame after the last] of every stretch in which a person acted."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags_T, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """Where a person acted in one episode. spans: (first frame, frame after the last) of every stretch; None where it is not recorded."""

    index: int
    episode_id: str
    length: int
    spans: tuple[tuple[int, int], ...] | None

    @property
    def frames(self) -> int:
        """In how many frames a person acted."""
        return sum(end - first for first, end in self.spans or ())


def acted_in(source: EpisodeSource) -> tuple[Acted, ...]:
    """Every episode of a source, in order. No image is read."""
    found: list[Acted] = []
    for row in source.rows:
        flags_T = source.episode(row.index, images=False, depth=False).intervention_T
        stretches = None if flags_T is None else tuple((first, end) for first, end in spans(flags_T))
        found.append(Acted(index=row.index, episode_id=row.episode_id, length=row.length, spans=stretches))
    return tuple(found)
