"""Any frame of any episode by its number, as an encoded image: the player's way to the data. What was decoded or opened lately is kept.

A film is entered at the key frame before the frame that is asked for. Someone who goes backwards meets that cost again at each frame, so
then the frames before are decoded together.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from components.artifacts.audit_files import read_audit
from components.data.editing.catalogue import Catalogue
from components.data.episodes.audited import AuditEpisode
from components.data.episodes.index import IndexedEpisode
from components.data.episodes.opened import HeldEpisode, OpenedEpisode, SetEpisode
from components.data.episodes.place import Place
from components.data.episodes.refresh import open_place
from components.data.episodes.signals import Signals
from components.data.sources.interface import EpisodeSource
from components.drawing.images import depth_image, png_bytes
from model_core.spec.errors import DatasetError, WireError
from model_core.spec.protocol.episode_file import decode_episode

Form = Literal["jpeg", "webp", "png"]
FORMS: tuple[Form, ...] = ("jpeg", "webp", "png")
_QUALITY = 90
_BACKWARDS = 16  # frames that are decoded together when someone goes backwards
_OPEN_SETS, _OPEN_EPISODES = 8, 8
_FRAME_BYTES, _IMAGE_BYTES = 128 * 2**20, 64 * 2**20
Value = TypeVar("Value")


class _Lately(Generic[Value]):
    """Values by key, the ones used last, up to a total of `most` (of `size`)."""

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._kept: OrderedDict[Any, Value] = OrderedDict()
        self._total = 0

    def get(self, key: Any) -> Value | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Any, value: Value) -> None:
        if key not in self._kept:
            self._total += self._size(value)
        self._kept[key] = value
        while self._total > self._most and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._total -= self._size(old)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameName:
    """One frame: of which camera, and which one from 0."""

    camera: str
    number: int


class FrameStore:
    """Frames, depth and signals of indexed episodes. May be used from several threads: each set is read by one at a time."""

    def __init__(self, edits: Catalogue) -> None:
        self._edits = edits
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self._sources: _Lately[EpisodeSource] = _Lately(_OPEN_SETS, lambda _: 1)
        self._episodes: _Lately[OpenedEpisode] = _Lately(_OPEN_EPISODES, lambda _: 1)
        self._decoded: _Lately[NDArray[np.uint8]] = _Lately(_FRAME_BYTES, lambda frame: frame.nbytes)
        self._images: _Lately[bytes] = _Lately(_IMAGE_BYTES, len)
        self._last: dict[tuple[str, str, str], int] = {}

    def image(self, episode: IndexedEpisode, frame: FrameName, form: Form = "jpeg") -> bytes:
        """One frame, encoded. Raises `DatasetError` for a camera or frame that the episode does not have, or a damaged film."""
        key = (*_key(episode), frame, form)
        with self._guard:
            found = self._images.get(key)
        if found is None:
            found = encoded(self.pixels(episode, frame), form)
            with self._guard:
                self._images.put(key, found)
        return found

    def pixels(self, episode: IndexedEpisode, frame: FrameName) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        key = _key(episode)
        with self._lock(episode.place):
            opened = self._opened(episode)
            _check(opened, episode, frame)
            with self._guard:
                found = self._decoded.get((*key, frame))
            if found is None:
                found = self._decode(opened, key, frame)
            self._last[(*key, frame.camera)] = frame.number
            return found

    def cameras(self, episode: IndexedEpisode) -> dict[str, int]:
        """Camera -> how many frames there are of it."""
        with self._lock(episode.place):
            opened = self._opened(episode)
            return {camera: opened.count(camera) for camera in opened.cameras}

    def depth(self, episode: IndexedEpisode, frame: FrameName) -> bytes:
        """The depth of one frame as a PNG in colour, near bright. Raises `DatasetError` where there is none."""
        with self._lock(episode.place):
            opened = self._opened(episode)
            _check(opened, episode, frame)
            metres_HW = opened.depth(frame.camera, frame.number)
        if metres_HW is None:
            raise DatasetError(f"episode {episode.row.episode_id} has no depth of camera {frame.camera!r}. Fix: ask for its images")
        return png_bytes(depth_image(np.where(metres_HW > 0, metres_HW, np.nan)))

    def signals(self, episode: IndexedEpisode) -> Signals:
        """Everything but images."""
        with self._lock(episode.place):
            return self._opened(episode).signals()

    def _decode(self, opened: OpenedEpisode, key: tuple[str, str], frame: FrameName) -> NDArray[np.uint8]:
        last = self._last.get((*key, frame.camera), -1)
        goes_back = frame.number < last <= frame.number + _BACKWARDS
        first = max(0, frame.number - _BACKWARDS + 1) if goes_back else frame.number
        frames_THW3 = opened.frames(frame.camera, range(first, frame.number + 1))
        with self._guard:
            for number, pixels_HW3 in enumerate(frames_THW3, start=first):
                self._decoded.put((*key, FrameName(camera=frame.camera, number=number)), pixels_HW3.copy())
        return frames_THW3[-1]

    def _lock(self, place: Place) -> threading.RLock:
        with self._guard:
            return self._locks.setdefault(place.key, threading.RLock())

    def _opened(self, episode: IndexedEpisode) -> OpenedEpisode:
        key = _key(episode)
        with self._guard:
            found = self._episodes.get(key)
        if found is None:
            found = self._open(episode)
            with self._guard:
                self._episodes.put(key, found)
        return found

    def _open(self, episode: IndexedEpisode) -> OpenedEpisode:
        place, path = episode.place, episode.place.path / episode.row.file
        if place.kind == "audit":
            return AuditEpisode(read_audit(path))
        if place.kind == "recordings":
            try:
                return HeldEpisode(decode_episode(path.read_bytes()))
            except (OSError, WireError) as error:
                raise DatasetError(f"recording {path} cannot be read ({error}). Fix: restore it") from error
        key = (place.key, episode.state)  # a set that was changed, and read into the table again, is opened again
        with self._guard:
            source = self._sources.get(key)
        if source is None:
            source = open_place(place, self._edits)
            with self._guard:
                self._sources.put(key, source)
        return SetEpisode(source, episode.row.number)


def encoded(pixels_HW3: NDArray[np.uint8], form: Form) -> bytes:
    """The bytes of an image file."""
    from PIL import Image

    buffer = io.BytesIO()
    more = {"compress_level": 1} if form == "png" else {"quality": _QUALITY}
    Image.fromarray(pixels_HW3).save(buffer, form.upper(), **more)
    return buffer.getvalue()


def _key(episode: IndexedEpisode) -> tuple[str, str]:
    row = episode.row
    return episode.place.key, f"{row.episode_id} {row.file} {row.length} {episode.state}"


def _check(opened: OpenedEpisode, episode: IndexedEpisode, frame: FrameName) -> None:
    if frame.camera not in opened.cameras:
        raise DatasetError(
            f"episode {episode.row.episode_id} has no camera {frame.camera!r}. Fix: name one of {', '.join(opened.cameras) or 'none'}"
        )
    if not 0 <= frame.number < opened.count(frame.camera):
        raise DatasetError(
            f"episode {episode.row.episode_id} has frames 0 to {opened.count(frame.camera) - 1} of camera {frame.camera!r}, got "
            f"{frame.number}. Fix: ask for one of them"
        )
