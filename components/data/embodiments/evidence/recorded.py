"""The numbers of a recorded set as an embodiment is drafted and checked on: state and action of each episode, names, rate, cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.meta.info import names_of
from components.data.lerobot.reader import DatasetReader
from model_core.spec.errors import DatasetError

STATE, ACTION = "proprio", "action"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCamera:
    """A camera as the set states it. height, width: pixels; None where it does not say."""

    name: str
    height: int | None
    width: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedSet:
    """State and action of all episodes, one after the other.

    state_NP, actions_NA: float32. times_N: seconds. starts_E, lengths_E: first row and number of rows of each episode.
    state_names, action_names: empty where the set names none. robot: "" where it names none.
    """

    name: str
    robot: str
    fps: float
    state_NP: NDArray[np.float32]
    actions_NA: NDArray[np.float32]
    times_N: NDArray[np.float64]
    starts_E: NDArray[np.int64]
    lengths_E: NDArray[np.int64]
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    cameras: tuple[RecordedCamera, ...] = ()

    @property
    def described(self) -> str:
        """How much there is, for evidence."""
        return f"{len(self.actions_NA)} rows of {len(self.starts_E)} episodes"

    @cached_property
    def step_s(self) -> NDArray[np.float64]:
        """Time between two rows of one episode, seconds."""
        inside = np.ones(max(len(self.times_N) - 1, 0), bool)
        inside[self.starts_E[1:] - 1] = False
        return np.diff(self.times_N)[inside]

    def values(self, vector: str) -> NDArray[np.float32]:
        """(N, D) of "proprio" or "action"."""
        return self.state_NP if vector == STATE else self.actions_NA

    def names(self, vector: str) -> tuple[str, ...]:
        """The names of the dimensions of "proprio" or "action"; numbers where the set names none."""
        stated, count = (self.state_names, self.state_NP.shape[1]) if vector == STATE else (self.action_names, self.actions_NA.shape[1])
        return stated if len(stated) == count else tuple(f"dim_{place}" for place in range(count))

    def sampled(self, rows: int) -> RecordedSet:
        """Whole episodes, evenly spread, of about `rows` rows at most; at least two."""
        episodes = len(self.starts_E)
        if len(self.actions_NA) <= rows or episodes <= 2:
            return self
        kept = max(2, round(episodes * rows / len(self.actions_NA)))
        return self._of(np.unique(np.linspace(0, episodes - 1, kept).astype(int)))

    def _of(self, chosen: Sequence[int] | NDArray[np.int64]) -> RecordedSet:
        rows = np.concatenate([np.arange(self.starts_E[e], self.starts_E[e] + self.lengths_E[e]) for e in chosen])
        lengths = self.lengths_E[np.asarray(chosen)]
        return replace(
            self,
            state_NP=self.state_NP[rows],
            actions_NA=self.actions_NA[rows],
            times_N=self.times_N[rows],
            starts_E=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
            lengths_E=lengths,
        )


def read_recorded(root: Path) -> RecordedSet:
    """What a LeRobot folder holds, without decoding an image. Raises `DatasetError` where it is torn, or has no state or action."""
    reader = DatasetReader(root)
    try:
        rows, columns = reader.rows, reader.table.columns
        for name in (layout.STATE, layout.ACTION):
            if name not in columns:
                raise DatasetError(
                    f"{root.name} has no column {name!r}; it has {', '.join(columns)}. Fix: export the set with its state and actions"
                )
        return RecordedSet(
            name=root.name,
            robot=str(reader.info.get("robot_type") or ""),
            fps=reader.fps,
            state_NP=columns[layout.STATE],
            actions_NA=columns[layout.ACTION],
            times_N=columns.get(layout.RECORDED, columns["timestamp"]),
            starts_E=np.array([row.start for row in rows], np.int64),
            lengths_E=np.array([row.length for row in rows], np.int64),
            state_names=_names(reader, layout.STATE),
            action_names=_names(reader, layout.ACTION),
            cameras=tuple(_camera(reader, name) for name in reader.cameras),
        )
    finally:
        reader.close()


def _names(reader: DatasetReader, feature: str) -> tuple[str, ...]:
    stated: Any = reader.features.get(feature)
    names = tuple(names_of(stated)) if stated else ()
    return names if len(set(names)) == len(names) else ()


def _camera(reader: DatasetReader, name: str) -> RecordedCamera:
    height, width = reader.picture_size(name) or (None, None)
    return RecordedCamera(name=name.removeprefix(layout.IMAGE_PREFIX), height=height, width=width)
