"""The table of episodes and the places that it is made of; what has changed on the disk is read behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from components.config.records import Silent
from components.data.episodes.index import IndexedEpisode
from components.data.episodes.query import EpisodeQuery
from flows.pipeline.episodes.library import EpisodeLibrary
from flows.web.http.endpoint import Call, Endpoint, not_found
from model_core.access import Role
from model_core.spec.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeAsk:
    """What is asked of the table: as `components.data.episodes.query.EpisodeQuery`."""

    text: str = ""
    place: str = ""
    kind: str = ""
    task: str = ""
    robot: str = ""
    outcome: str = ""
    ending: str = ""
    producer: str = ""
    model: str = ""
    cell: str = ""
    min_frames: int = 0
    max_frames: int = 0
    findings: str = ""
    choice: str = ""
    sort: str = "set"
    descending: bool = False
    offset: int = 0
    limit: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeLine:
    """One row. place: key of its place; set: its name. outcome, instruction, length: what a person stated, else what was recorded.

    choice: included, left_out or "". findings: of the inspection; -1 where there was none. revisions: how many count.
    """

    place: str
    set: str
    kind: str
    episode: str
    task: str
    instruction: str
    robot: str
    outcome: str
    ending: str
    producer: str
    model: str
    cell: str
    length: int
    seconds: float
    at: str
    choice: str
    causes: tuple[str, ...]
    findings: int
    revisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeTable:
    """A part of the table. total: of all rows that were asked for."""

    total: int
    offset: int
    rows: tuple[EpisodeLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueCount:
    """A value of a column and how many episodes have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeValues:
    """Column -> its values."""

    values: Mapping[str, tuple[ValueCount, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRow:
    """A place of episodes. problem: why it cannot be read ("")."""

    key: str
    name: str
    kind: str
    path: str
    episodes: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceList:
    """Every place. is_reading: what has changed is being read."""

    is_reading: bool
    places: tuple[PlaceRow, ...]


class Reader:
    """Brings the table up to date in a thread of its own, one at a time; the table answers meanwhile with what it has."""

    def __init__(self, library: EpisodeLibrary) -> None:
        self._library = library
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    @property
    def is_reading(self) -> bool:
        """Whether it is at work; the first call starts it."""
        with self._guard:
            if self._thread is None:
                self._start()
            return self._thread is not None and self._thread.is_alive()

    def again(self) -> None:
        """Read what has changed since, unless that is being done."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._start()

    def wait(self) -> None:
        """Return when it has finished."""
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._read, name="episodes", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self._library.refresh((), Silent())
        except Exception:  # the table keeps what it has, and the next call tries again
            logger.exception("console.episodes.unread")


def table_endpoints(library: EpisodeLibrary, reader: Reader) -> Sequence[Endpoint]:
    """The table, its values and its places."""

    def table(call: Call) -> EpisodeTable:
        asked = EpisodeQuery(**asdict(call.query))
        page = library.index.page(asked)
        return EpisodeTable(total=page.total, offset=asked.offset, rows=tuple(line_of(one) for one in page.episodes))

    def values(call: Call) -> EpisodeValues:
        found = library.index.values(EpisodeQuery(**asdict(call.query)))
        return EpisodeValues(values={name: tuple(ValueCount(value=v, count=n) for v, n in pairs) for name, pairs in found.items()})

    def again(_: Call) -> PlaceList:
        reader.again()
        return _places(library, reader)

    return (
        Endpoint(
            method="GET", path="/api/episodes", does="Episodes of all places, a part of the table", role=Role.OBSERVE,
            answer=EpisodeTable, handle=table, query=EpisodeAsk,
        ),
        Endpoint(
            method="GET", path="/api/episodes/values", does="Which values the columns of the table have", role=Role.OBSERVE,
            answer=EpisodeValues, handle=values, query=EpisodeAsk,
        ),
        Endpoint(
            method="GET", path="/api/places", does="Places of episodes", role=Role.OBSERVE, answer=PlaceList,
            handle=lambda _: _places(library, reader),
        ),
        Endpoint(
            method="POST", path="/api/places/read", does="Read what has changed in the places", role=Role.OPERATE, answer=PlaceList,
            handle=again,
        ),
    )  # fmt: skip


def line_of(one: IndexedEpisode) -> EpisodeLine:
    """The row of an episode."""
    row, stated = one.row, one.revised
    names = ("task", "robot", "ending", "producer", "model", "cell", "seconds", "at")
    return EpisodeLine(
        place=one.place.key,
        set=one.place.name,
        kind=one.place.kind,
        episode=row.episode_id,
        outcome=stated.get("outcome", row.outcome),
        instruction=stated.get("instruction", row.instruction),
        length=stated.get("length", row.length),
        choice={1: "included", 0: "left_out"}.get(stated.get("included", -1), ""),
        causes=tuple(stated.get("causes", "").split()),
        findings=-1 if one.findings is None else len(one.findings),
        revisions=stated.get("revisions", 0),
        **{name: getattr(row, name) for name in names},
    )


def find(library: EpisodeLibrary, place: str, episode: str) -> IndexedEpisode:
    """The episode that was asked for; refused with 404 where there is none."""
    try:
        return library.index.find(place, episode)
    except DatasetError as error:
        raise not_found(f"episode {episode[:80]!r} of place {place[:20]!r}", "choose one of the table") from error


def _places(library: EpisodeLibrary, reader: Reader) -> PlaceList:
    rows = tuple(
        PlaceRow(key=place.key, name=place.name, kind=place.kind, path=str(place.path), episodes=count, problem=problem)
        for place, count, problem in library.index.places()
    )
    return PlaceList(is_reading=reader.is_reading, places=rows)
