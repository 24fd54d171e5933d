"""The tables of an MP4 file say what its packets say, or nothing.

Run: .venv/bin/python -m pytest tests/unit/test_film_tables.py
"""

import struct
from pathlib import Path

import numpy as np
import pytest

from components.adapters.scheduling import scheduling_kept
from components.data.inspection.folder import films
from components.data.inspection.folder.film_tables import read_film_tables
from components.data.inspection.folder.films import FilmScan, scan_film

SIZE, PICTURES = 32, 37


def film(path: Path, codec: str = "libx264", *, first: int = 0, jump: int = 0, **options: str) -> Path:
    """Pictures at 20 a second from tick `first` on, with `jump` ticks left out in the middle."""
    import av

    rng = np.random.default_rng(0)
    with scheduling_kept(), av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=20)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "12"}
        for number in range(PICTURES):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), format="rgb24")
            frame.pts = first + number + (jump if number >= PICTURES // 2 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def by_packets(path: Path, monkeypatch: pytest.MonkeyPatch) -> FilmScan:
    with monkeypatch.context() as patched:
        patched.setattr(films, "_tables", lambda path: None)
        return scan_film(path, digests=False)


def are_equal(one: FilmScan, other: FilmScan) -> bool:
    same = all(getattr(one, name) == getattr(other, name) for name in ("pts", "is_key", "stated", "width", "height", "error"))
    return same and np.array_equal(one.times_s, other.times_s)


@pytest.mark.parametrize(
    "made",
    [
        {},  # pictures are stored in another order than they are shown in
        {"movflags": "faststart"},
        {"codec": "mpeg4"},
        {"codec": "libsvtav1"},
        {"first": 7},
        {"jump": 5},
        {"use_editlist": "0"},
    ],
)
def test_tables_say_what_packets_say(made, tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", **made)
    assert read_film_tables(path) is not None
    found = scan_film(path, digests=False)
    assert len(found.times_s) == PICTURES
    assert are_equal(found, by_packets(path, monkeypatch))


@pytest.mark.parametrize("made", [{"movflags": "frag_keyframe+empty_moov"}, {"name": "film.mkv"}])
def test_other_files_are_left_to_their_packets(made, tmp_path):
    path = film(tmp_path / made.pop("name", "film.mp4"), **made)
    assert read_film_tables(path) is None
    assert len(scan_film(path, digests=False).times_s) == PICTURES


def changed(path: Path, box: bytes, place: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, content.rindex(box) + 4 + place, value)
    path.write_bytes(content)


def test_what_is_cut_off_or_contradicts_itself_is_left_to_its_packets(tmp_path, monkeypatch):
    whole = film(tmp_path / "film.mp4").read_bytes()
    path = tmp_path / "other.mp4"
    for length in (0, 7, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_film_tables(path) is None
        assert are_equal(scan_film(path, digests=False), by_packets(path, monkeypatch))
    for box, place, value in (
        (b"stsz", 8, PICTURES + 1),  # more pictures than times
        (b"stco", 8, len(whole)),  # a chunk behind the end of the file
        (b"stsc", 12, 1),  # chunks that hold fewer
        (b"elst", 8, 100),  # an edit that ends early
        (b"stts", 4, 2**31),
    ):
        path.write_bytes(whole)
        changed(path, box, place, value)
        assert read_film_tables(path) is None, box
    moved = film(tmp_path / "moved.mp4", movflags="faststart").read_bytes()
    path.write_bytes(moved[: len(moved) - 30])  # the header is whole, the pictures are not
    assert read_film_tables(path) is None
    assert are_equal(scan_film(path, digests=False), by_packets(path, monkeypatch))
