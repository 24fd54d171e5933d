"""All episodes that this machine knows: which places are looked at, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline.data_sets import catalogue
from flows.platform.settings import Settings
from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    from components.config.records import Progress
    from components.data.editing.catalogue import Catalogue
    from components.data.episodes.frames import FrameStore
    from components.data.episodes.index import EpisodeIndex
    from components.data.episodes.place import Place
    from components.data.episodes.refresh import Refreshed
    from components.data.revisions.book import RevisionBook
    from components.data.second_labels.opinion import AskedFrame, OpinionBook

INDEX = "episodes.sqlite"
REVISIONS, SECOND_LABELS = "revisions", "second_labels"  # under data/, which people keep
_IN_STEPS = ("dataset", "recordings", "audit")  # folders of finished steps that may hold episodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which frames a second person is asked about: `count` of one camera ("": the first one), drawn by `seed`."""

    count: int = 200
    seed: int = 0
    camera: str = ""


@dataclass(frozen=True)
class EpisodeLibrary:
    """The episodes of one machine. Cheap to make; the table is opened when it is first asked for."""

    settings: Settings
    _books: dict[str, RevisionBook] = field(default_factory=dict)

    @cached_property
    def index(self) -> EpisodeIndex:
        """The table, under `home`: it may be deleted, and is made again."""
        from components.data.episodes.index import EpisodeIndex

        return EpisodeIndex(self.settings.home.resolve() / INDEX)

    @cached_property
    def edits(self) -> Catalogue:
        """The edits of this machine."""
        return catalogue(self.settings)

    @cached_property
    def frames(self) -> FrameStore:
        """Frames and signals of episodes."""
        from components.data.episodes.frames import FrameStore

        return FrameStore(self.edits)

    def places(self, further: Sequence[Path] = ()) -> list[Place]:
        """Edits, data stages, sets and recordings of finished steps, places that were named before, and `further` ones, each once.

        Raises `DatasetError` where a further one holds no episodes.
        """
        from components.data.episodes.place import place_at

        named = [place_at(path) for path in further]
        remembered = [place for place, _, _ in self.index.places() if place.path.exists()]
        found = {place.path: place for place in (*self._here(), *remembered, *named)}
        return list(found.values())

    def refresh(self, further: Sequence[Path], progress: Progress) -> list[Refreshed]:
        """Read what has changed into the table; places that are gone are taken out of it."""
        from components.data.episodes.refresh import refresh

        for place, _, _ in self.index.places():
            if not place.path.exists():
                self.index.forget(place)
        places = self.places(further)
        done = refresh(self.index, places, self.edits, progress)
        for place in places:
            self.tell_revisions(place)
        return done

    def book(self, place: Place) -> RevisionBook:
        """The revisions of a place."""
        from components.data.revisions.book import RevisionBook

        if place.key not in self._books:
            self._books[place.key] = RevisionBook(self.settings.data.resolve() / REVISIONS, place)
        return self._books[place.key]

    def opinions(self, place: Place) -> OpinionBook:
        """The second labels of a place."""
        from components.data.second_labels.opinion import OpinionBook

        return OpinionBook(self.settings.data.resolve() / SECOND_LABELS, place)

    def asked_frames(self, place: Place, draw: Draw) -> list[AskedFrame]:
        """The frames of a place that a second person is asked about. Raises `DatasetError` where the place has no episodes."""
        from components.data.episodes.query import EpisodeQuery
        from components.data.second_labels.opinion import drawn_frames

        lengths = {one.row.episode_id: one.row.length for one in self.index.every(EpisodeQuery(place=place.key))}
        if not lengths:
            raise DatasetError(f"{place.name} has no episodes. Fix: name a data set")
        first = self.index.find(place.key, next(iter(lengths)))
        camera = draw.camera or next(iter(self.frames.cameras(first)), "")
        return drawn_frames(lengths, camera, draw.count, draw.seed)

    def asked_images(self, place: Place, draw: Draw) -> Iterator[tuple[AskedFrame, bytes, tuple[int, int]]]:
        """The same frames, each as a PNG with its (width, height)."""
        from components.data.episodes.frames import FrameName

        for asked in self.asked_frames(place, draw):
            episode, frame = self.index.find(place.key, asked.episode), FrameName(camera=asked.camera, number=asked.frame)
            height, width = self.frames.pixels(episode, frame).shape[:2]
            yield asked, self.frames.image(episode, frame, "png"), (width, height)

    def tell_revisions(self, place: Place) -> None:
        """Let the table show what people stated of a place."""
        book = self.book(place)
        if (head := book.head) == self.index.revised_head(place):
            return
        stated = [
            (name, one.outcome, one.instruction, one.length, None if one.included is None else int(one.included), " ".join(one.causes), n)
            for name, one in book.revised.items()
            for n in [len(one.revisions)]
        ]
        self.index.put_revised(place, head, stated)

    def place(self, name: str) -> Place:
        """The place that a person named: a path, its key, or its name where only one has it. Raises `DatasetError`."""
        from components.data.episodes.place import place_at

        if Path(name).exists():
            return place_at(Path(name))
        known = [place for place, _, _ in self.index.places()]
        found = [place for place in known if name == place.key] or [place for place in known if name == place.name]
        if len(found) != 1:
            said = "names no place of episodes" if not found else f"names {len(found)} places"
            listed = ", ".join(sorted({place.name for place in known})) or "none"
            raise DatasetError(
                f"{name!r} {said}; the table has {listed}. Fix: give its path; `actwright episodes list --place PATH` adds it to the table"
            )
        return found[0]

    def _here(self) -> list[Place]:
        from components.data.episodes.place import place_at

        made: list[Place] = []
        folders = sorted(path for path in self.settings.data.resolve().glob("*") if path.is_dir() and path != self.edits.folder)
        steps = [found for name in _IN_STEPS for found in sorted(self.settings.store_root.glob(f"*/*/{name}"))]
        for path in (*(path for path, _ in self.edits.edits()), *folders, *steps):
            name = path.stem if path.is_file() else path.name if path in folders else f"{path.parents[1].name}/{path.parent.name[:8]}"
            try:
                made.append(place_at(path, name))
            except DatasetError:  # a stage that holds no episodes
                continue
        return made


def episode_library(settings: Settings) -> EpisodeLibrary:
    """The library of these settings."""
    return EpisodeLibrary(settings)
