"""Notes that a film's container carries and no viewer shows: the place where it was taken, a person's name."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

_TOLD_BY = {  # word in the name of a note -> what the note tells
    **dict.fromkeys(("location", "xyz", "loci", "gps", "iso6709"), "the place where it was taken"),
    **dict.fromkeys(("author", "auth", "aut", "artist", "art", "owner", "performer", "perf"), "a person's name"),
}


def told_by_notes(names: Iterable[str]) -> tuple[str, ...]:
    """What notes of these names tell of somebody: note and meaning. Values are not read."""
    found: list[str] = []
    for name in names:
        words = re.findall(r"[a-z0-9]+", name.lower())
        found += [f"{_TOLD_BY[word]} ({name})" for word in words[-2:] if word in _TOLD_BY][:1]
    return tuple(found)


def note_names(header: bytes) -> list[str]:
    """Names of the notes in the box moov of an MP4 file: those of QuickTime (`udta`), of iTunes (`ilst`) and named keys."""
    found: list[str] = []
    for kind, part in _inner(header):
        if kind == b"meta":
            found += _of_meta(part)
        elif kind == b"udta":
            for note, content in _inner(part):
                found += _of_meta(content) if note == b"meta" else [note.decode("latin-1")]
    return found


def _of_meta(content: bytes) -> Iterator[str]:
    is_full = content[4:8] != b"hdlr"  # QuickTime leaves out the four bytes of version and flags
    for kind, part in _inner(content[4:] if is_full else content):
        if kind == b"keys":
            yield from (key.decode("utf-8", "replace") for _, key in _inner(part[8:]))
        elif kind == b"ilst":
            yield from (note.decode("latin-1") for note, _ in _inner(part) if note[:2] != b"\0\0")  # else the number of a key


def _inner(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes in a box, as far as they are whole: notes of any program are read, never judged."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8 or place + length > len(content):
            return
        yield kind, content[place + 8 : place + length]
        place += length
