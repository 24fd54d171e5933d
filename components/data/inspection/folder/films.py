"""The films of a folder: when each picture is shown and a digest of its bytes, without decoding; and decoded frames of a part, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.film_tables import read_film_tables
from components.data.lerobot.pictures import film_errors, open_film


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilmScan:
    """A film as its container describes it. times_s: of every picture, in the order of showing; empty where it cannot be opened.

    digests: of the bytes of each picture, in that order. stated: how many pictures its header states. notes: names of what its
    container notes beside the pictures. error: why it cannot be read.
    """

    times_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    pts: tuple[int, ...] = ()
    is_key: tuple[bool, ...] = ()
    digests: tuple[bytes, ...] = ()
    stated: int = 0
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def rate_hz(self) -> float:
        """Pictures a second over the whole film; 0 where it has less than two."""
        if len(self.times_s) < 2 or self.times_s[-1] <= self.times_s[0]:
            return 0.0
        return (len(self.times_s) - 1) / float(self.times_s[-1] - self.times_s[0])

    def digest(self, begin: int, end: int) -> str:
        """SHA-256 over the bytes that pictures `begin` to before `end` are decoded from."""
        start = next((place for place in range(min(begin, len(self.is_key) - 1), -1, -1) if self.is_key[place]), 0)
        return hashlib.sha256(b"".join(self.digests[start:end]) + f"{begin - start} {self.width}x{self.height}".encode()).hexdigest()


def scan_film(path: Path, *, digests: bool) -> FilmScan:
    """Read the times of all pictures without decoding any, and with `digests` the bytes of each.

    Without `digests`, of a plain MP4 file only the tables are read.
    """
    if not digests and (tables := _tables(path)) is not None:
        return tables
    broken = film_errors()
    pictures: list[tuple[int, bool, bytes]] = []
    try:
        with open_film(path) as container:
            stream: Any = container.streams.video[0]
            base = stream.time_base.numerator / stream.time_base.denominator
            stated, width, height = int(stream.frames), int(stream.width or 0), int(stream.height or 0)
            notes = tuple({**container.metadata, **stream.metadata})
            try:
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size and not packet.is_discard:
                        digest = hashlib.blake2b(bytes(packet), digest_size=12).digest() if digests else b""
                        pictures.append((packet.pts, packet.is_keyframe, digest))
            except broken as error:
                return FilmScan(stated=stated, width=width, height=height, error=f"cannot be read to its end ({error})")
    except broken as error:
        return FilmScan(error=f"cannot be opened ({error}); it is truncated or damaged")
    pictures.sort()
    return FilmScan(
        times_s=np.array([time for time, _, _ in pictures], np.float64) * base,
        pts=tuple(time for time, _, _ in pictures),
        is_key=tuple(key for _, key, _ in pictures),
        digests=tuple(digest for _, _, digest in pictures),
        stated=stated,
        width=width,
        height=height,
        notes=notes,
        error="" if pictures else "holds no picture; it is truncated or damaged",
    )


def _tables(path: Path) -> FilmScan | None:
    try:
        found = read_film_tables(path)
    except OSError:
        return None  # opening it says why
    if found is None:
        return None
    return FilmScan(
        times_s=np.array(found.pts, np.float64) * (1 / found.rate),
        pts=tuple(found.pts.tolist()),
        is_key=tuple(found.is_key.tolist()),
        digests=(b"",) * len(found.pts),
        stated=len(found.pts),
        width=found.width,
        height=found.height,
        notes=found.notes,
    )


class FilmDecoder:
    """Decoded pictures of one film, part by part. Going on where the last part ended costs no seek."""

    def __init__(self, path: Path, scan: FilmScan) -> None:
        self._path, self._scan = path, scan
        self._place = {time: place for place, time in enumerate(scan.pts)}
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = -1
        self._held: Any = None

    def part(self, begin: int, end: int) -> Iterator[Any]:
        """The pictures `begin` to before `end` of the film as `av.VideoFrame`s. Raises `OSError` or `ValueError` where decoding fails."""
        if self._container is None:
            self._container = open_film(self._path)
            self._container.streams.video[0].thread_type = "AUTO"
        if begin != self._next:
            stream = self._container.streams.video[0]
            self._container.seek(self._scan.pts[begin], stream=stream, backward=True)
            self._frames, self._held = self._container.decode(stream), None
        given = begin
        while given < end:
            frame = self._held if self._held is not None else next(self._frames, None)
            self._held = None
            if frame is None:
                raise ValueError(f"the film ends after {given - begin} of {end - begin} pictures")
            place = self._place.get(frame.pts, -1)
            if place < given:
                continue  # between the key frame and the first picture that is wanted
            if place > given:
                raise ValueError(f"picture {given} cannot be decoded; picture {place} follows")
            given += 1
            self._next = given
            yield frame

    def close(self) -> None:
        """Let the file go."""
        if self._container is not None:
            self._container.close()
        self._container, self._next, self._held = None, -1, None
