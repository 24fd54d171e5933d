"""When each picture of an MP4 file is shown, from the tables of its header: no packet is read.

Only files of one plain kind are answered: one video track whose samples stand in its tables, with at most an edit that moves its start.
Every other file, and one whose tables contradict each other or the file's length, is left to a reader of packets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.data.inspection.folder.film_notes import note_names

_CONTAINERS = frozenset((b"trak", b"mdia", b"minf", b"stbl", b"edts"))
_MOST_HEADER = 256 * 2**20  # bytes of the box moov


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilmTables:
    """One video track. pts: of each picture, in the order of showing, in ticks of which a second has `rate`. notes: their names."""

    pts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    rate: int
    width: int
    height: int
    notes: tuple[str, ...] = ()


def read_film_tables(path: Path) -> FilmTables | None:
    """The tables of an MP4 file; None where it is of another kind, cut off or damaged. Raises `OSError` where it cannot be opened."""
    with path.open("rb") as file:
        size, place, header = path.stat().st_size, 0, b""
        while place < size:
            file.seek(place)
            start = file.read(16)
            if len(start) < 8:
                return None
            length, kind = struct.unpack(">I4s", start[:8])
            offset = 16 if length == 1 else 8
            length = int.from_bytes(start[8:16], "big") if length == 1 else length or size - place
            if length < offset or place + length > size or kind == b"moof":
                return None
            if kind == b"moov":
                if header or length > _MOST_HEADER:
                    return None
                file.seek(place + offset)
                header = file.read(length - offset)
            place += length
    try:
        return _tables(header, size) if header else None
    except (struct.error, ValueError, IndexError, KeyError, OverflowError):
        return None


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes in a box, one after the other."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8 or place + length > len(content):
            raise ValueError(f"box {kind!r} at {place} has {length} bytes")
        yield kind, content[place + 8 : place + length]
        place += length


def _inner(content: bytes) -> dict[bytes, bytes]:
    """Kind -> content of all boxes of a track, those within others too. Raises `ValueError` where one is there twice."""
    found: dict[bytes, bytes] = {}
    for kind, part in _boxes(content):
        more = _inner(part) if kind in _CONTAINERS else {kind: part}
        if found.keys() & more.keys():
            raise ValueError(f"box {kind!r} is there twice")
        found |= more
    return found


def _tables(header: bytes, size: int) -> FilmTables | None:
    boxes = list(_boxes(header))
    if any(kind == b"mvex" for kind, _ in boxes):
        return None
    tracks = [_inner(part) for kind, part in boxes if kind == b"trak"]
    films = [track for track in tracks if track[b"hdlr"][8:12] == b"vide"]
    if len(films) != 1:
        return None
    track = films[0]
    long, movie = track[b"mdhd"][0] == 1, next(part for kind, part in boxes if kind == b"mvhd")
    (rate,) = struct.unpack_from(">I", track[b"mdhd"], 20 if long else 12)
    sizes_N = _sizes(track[b"stsz"])
    runs = _table(track[b"stts"], 8, ">u4", 2)
    steps_N = np.repeat(runs[:, 1], runs[:, 0])
    if not len(sizes_N) or len(steps_N) != len(sizes_N) or not (sizes_N > 0).all() or not rate or _end(track, sizes_N) > size:
        return None
    pts_N = np.cumsum(steps_N) - steps_N
    if b"ctts" in track:
        moves = _table(track[b"ctts"], 8, ">i4", 2)
        pts_N = pts_N + np.repeat(moves[:, 1], moves[:, 0])
    (movie_rate,) = struct.unpack_from(">I", movie, 20 if movie[0] == 1 else 12)
    start = _start(track.get(b"elst", b""), rate, movie_rate, int(pts_N.max()) + int(steps_N[-1]))
    if start is None or (pts_N + start).min() < 0:
        return None
    keys_N = np.ones(len(pts_N), np.bool_)
    if b"stss" in track:
        keys_N = np.isin(np.arange(1, len(pts_N) + 1), _table(track[b"stss"], 8, ">u4", 1)[:, 0])
    order_N = np.argsort(pts_N, kind="stable")
    width, height = struct.unpack_from(">HH", track[b"stsd"], 8 + 8 + 24)
    notes = tuple(note_names(header))
    return FilmTables(pts=(pts_N + start)[order_N], is_key=keys_N[order_N], rate=rate, width=width, height=height, notes=notes)


def _table(box: bytes, begin: int, dtype: str, width: int) -> NDArray[np.int64]:
    """Rows of `width` numbers, as many as stand before `begin`."""
    (count,) = struct.unpack_from(">I", box, begin - 4)
    return np.frombuffer(box, dtype, count * width, begin).reshape(count, width).astype(np.int64)


def _sizes(box: bytes) -> NDArray[np.int64]:
    each, count = struct.unpack_from(">II", box, 4)
    return np.full(count, each, np.int64) if each else np.frombuffer(box, ">u4", count, 12).astype(np.int64)


def _end(track: dict[bytes, bytes], sizes_N: NDArray[np.int64]) -> int:
    """The byte of the file after the last picture. Raises `ValueError` where chunks and pictures do not come out even."""
    wide = b"co64" in track
    starts = _table(track[b"co64" if wide else b"stco"], 8, ">u8" if wide else ">u4", 1)[:, 0]
    runs = _table(track[b"stsc"], 8, ">u4", 3)
    chunks = np.diff(np.append(runs[:, 0], len(starts) + 1))
    whose_N = np.repeat(np.arange(len(starts)), np.repeat(runs[:, 1], chunks))
    if len(whose_N) != len(sizes_N):
        raise ValueError(f"chunks hold {len(whose_N)} pictures of {len(sizes_N)}")
    return int((starts + np.bincount(whose_N, sizes_N, len(starts)).astype(np.int64)).max())


def _start(edits: bytes, rate: int, movie_rate: int, end: int) -> int | None:
    """What is added to the times of the media: an edit begins where it says, after an empty one. None for edits that leave pictures out."""
    if not edits:
        return 0
    row = ">qqhh" if edits[0] == 1 else ">iihh"
    (count,) = struct.unpack_from(">I", edits, 4)
    rows = [struct.unpack_from(row, edits, 8 + place * struct.calcsize(row)) for place in range(count)]
    empty = rows.pop(0)[0] if len(rows) == 2 and rows[0][1] == -1 else 0
    if len(rows) != 1 or rows[0][1] < 0 or rows[0][2:] != (1, 0) or not movie_rate:
        return None
    lasts, first = rows[0][0] * rate / movie_rate, rows[0][1]
    if lasts and first + lasts < end - rate / movie_rate:  # a movie's clock is coarser than that of its track
        return None
    return round(empty * rate / movie_rate) - first
