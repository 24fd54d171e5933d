"""What is measured of one episode, and of a whole set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.data.inspection.folder.facts import Fact
from components.data.inspection.measurements.origin import OriginMeasurements
from components.data.inspection.measurements.pixels import CameraMeasurements
from components.data.inspection.measurements.rows.coupling import Coupling
from components.data.inspection.measurements.rows.meaning import MeaningMeasurements
from components.data.inspection.measurements.rows.numbers import VectorMeasurements
from components.data.inspection.measurements.rows.time import TimeMeasurements
from components.data.inspection.measurements.statistics import StatisticMeasurements
from model_core.spec.contract import EmbodimentSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeMeasurements:
    """One episode. key: of its content and of the code that measured it, "" where it is not kept.

    cameras: by name; empty where no picture was looked at.
    views: camera -> how its pictures follow the state. frozen: camera -> the longest run of equal pictures while the arm is commanded.
    """

    key: str
    episode_id: str
    number: int
    frames: int
    time: TimeMeasurements
    vectors: Mapping[str, VectorMeasurements]
    meaning: MeaningMeasurements
    cameras: Mapping[str, CameraMeasurements] = field(default_factory=dict[str, CameraMeasurements])
    views: Mapping[str, Coupling] = field(default_factory=dict[str, Coupling])
    frozen: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetMeasurements:
    """A whole set. facts, looked_at: of the folder (`components.data.inspection.folder`). names: column -> names of its dimensions.

    copies: columns that hold the same numbers or texts in every frame. cameras: as the set names them. has_statistics: whether the folder's
    statistics were read, which the episodes of another source do not have.
    """

    name: str
    fps: float
    episodes: tuple[EpisodeMeasurements, ...]
    facts: tuple[Fact, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict[str, int])
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    sentences: Mapping[int, str] = field(default_factory=dict[int, str])
    copies: tuple[tuple[str, str], ...] = ()
    compared_columns: int = 0
    cameras: tuple[str, ...] = ()
    statistics: StatisticMeasurements | None = None
    origin: OriginMeasurements | None = None
    embodiment: EmbodimentSpec | None = None

    @property
    def frames(self) -> int:
        """Rows of all episodes."""
        return sum(episode.frames for episode in self.episodes)

    def dimension(self, column: str, place: int) -> str:
        """A dimension for a person."""
        names = self.names.get(column, ())
        return f"{column} {names[place]}" if place < len(names) else f"{column}[{place}]"
