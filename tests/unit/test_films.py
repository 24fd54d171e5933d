"""Pictures of films of other writers: each episode gets its own, turned as the film says, or the film is refused by what is wrong with it.

Run: .venv/bin/python -m pytest tests/unit/test_films.py
"""

import contextlib
import os
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest

from components.adapters.scheduling import scheduling_kept
from components.data.export.codecs import CODECS
from components.data.lerobot.film_spans import FilmError, FilmSpan, number_pictures
from components.data.lerobot.pictures import key_places
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.video import LOSSLESS, VideoReader, VideoWriter, turned
from model_core.spec.errors import DatasetError
from tests.plain_set import PlainLayout, change_info, change_rows, mark_of, plain_episode, write_film, write_plain_set

SIZE, LENGTH, FPS = 32, 10, 20
MADE = [plain_episode(n, length=LENGTH, size=SIZE) for n in range(4)]
FRAMES = np.concatenate([one.frames_THW3 for one in MADE])
FILM = "videos/observation.images.front/chunk-000/file-000.mp4"
FROM, TO = "videos/observation.images.front/from_timestamp", "videos/observation.images.front/to_timestamp"
WHOLE = FilmSpan(begin=0, end=40, taken=40)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_plain_set(tmp_path_factory.mktemp("films") / "set", MADE)


@pytest.fixture
def copy(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "set")


def marks(root, index):
    return [mark_of(frame) for frame in DatasetReader(root).episode(index).images["front"]]


def are_right(root):
    assert [marks(root, index) for index in (3, 0, 1, 2)] == [[(n, step) for step in range(LENGTH)] for n in (3, 0, 1, 2)]


def refused(root, words, index=0):
    with pytest.raises(DatasetError, match=words) as told:
        DatasetReader(root).episode(index)
    assert "Fix:" in str(told.value)


# --- starts in the film -------------------------------------------------------------------------------------------------


def drifted(frames):
    def change(row):
        late = frames * row["episode_index"] / FPS
        return row | {FROM: row[FROM] + late, TO: row[TO] + late}

    return change


@pytest.mark.parametrize("frames", [0.2, 0.3, 0.6, -0.6])
def test_a_start_between_frames_is_refused_for_the_whole_set_before_anything_is_read(copy, frames):
    change_rows(copy, drifted(frames))
    with pytest.raises(DatasetError, match=rf"episode 1 begins in the film .* which is frame {10 + frames:.3f} at 20 frames a second"):
        _ = DatasetReader(copy).rows


def test_starts_in_float32_and_with_the_error_of_adding_are_whole(copy):
    change_rows(copy, lambda row: row | {FROM: float(np.float32(row[FROM] + 1e-4)), TO: float(np.float32(row[TO]))})
    are_right(copy)


def test_a_drift_cannot_pass_to_the_next_whole_frame_unseen():
    """A slow drift over many episodes: every one that has left its own frame comes after one that is refused."""
    from components.data.lerobot.film_spans import film_spans

    for step in np.linspace(0.001, 0.099, 25):
        entries = [
            {
                "episode_index": n,
                "length": LENGTH,
                "videos/k/chunk_index": 0,
                "videos/k/file_index": 0,
                "videos/k/from_timestamp": n * (LENGTH + step) / FPS,
                "videos/k/to_timestamp": (n + 1) * (LENGTH + step) / FPS,
            }
            for n in range(1500)
        ]
        with pytest.raises(DatasetError, match="expected a whole frame"):
            film_spans(entries, ["k"], FPS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row | {TO: row[TO] + 1 / FPS}, r"episode 0 has 10 frames, but takes 11.000 frames of the film"),
        (lambda row: row | ({FROM: 0.3, TO: 0.8} if row["episode_index"] == 1 else {}), r"episodes 0 and 1 both take frame 6 of the film"),
        (lambda row: row | {FROM: float("nan")}, r"begins in the film .* at nan s"),
    ],
)
def test_a_span_that_is_not_the_episodes_is_refused(copy, change, words):
    change_rows(copy, change)
    with pytest.raises(DatasetError, match=words):
        _ = DatasetReader(copy).rows


# --- pictures of the film ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_s", [0.1, 0.5, 0.03, 7.0])
def test_a_film_that_begins_after_0_gives_each_episode_its_own_frames(copy, start_s):
    write_film(copy / FILM, FRAMES, FPS, times=[start_s + k / FPS for k in range(40)])
    are_right(copy)


def test_starts_that_count_on_from_the_beginning_of_a_late_film(copy):
    write_film(copy / FILM, FRAMES, FPS, times=[0.5 + k / FPS for k in range(40)])
    change_rows(copy, lambda row: row | {FROM: row[FROM] + 0.5, TO: row[TO] + 0.5})
    are_right(copy)


def test_times_that_are_rounded_to_milliseconds_and_clocks_that_jitter_are_whole_frames(copy):
    rng = np.random.default_rng(3)
    write_film(copy / FILM, FRAMES, FPS, times=[round(k / FPS + abs(rng.uniform(-0.2, 0.2)) / FPS, 3) for k in range(40)])
    are_right(copy)


@pytest.mark.parametrize("rate", [29.97, 30, 24])
def test_every_first_and_last_frame_is_exact_at_rates_that_are_no_round_seconds(tmp_path, rate):
    made = [plain_episode(n, length=7 + 2 * n, size=16) for n in range(6)]
    root = write_plain_set(tmp_path / "set", made, PlainLayout(fps=rate))
    change_rows(root, lambda row: row | {FROM: float(np.float32(row[FROM])), TO: float(np.float32(row[TO]))})
    for index in (5, 2, 0, 1, 4, 3):
        assert marks(root, index) == [(index, step) for step in range(7 + 2 * index)]


@pytest.mark.parametrize("rate", [10, 15, 25, 30, 40])
def test_a_film_of_another_rate_is_named_and_not_called_damaged(copy, rate):
    write_film(copy / FILM, FRAMES, rate)
    refused(copy, rf"file-000.mp4: the film runs at {rate} frames a second and info.json states 20")


def test_the_ntsc_rate_is_seen_once_it_matters(tmp_path):
    times_s = np.arange(900) / (30000 / 1001)
    with pytest.raises(FilmError, match=r"runs at 29.97 frames a second and info.json states 30"):
        number_pictures(times_s, 900, 30.0, FilmSpan(begin=0, end=900, taken=900))
    assert number_pictures(times_s[:200], 200, 30.0, FilmSpan(begin=0, end=200, taken=200)).tolist() == list(range(200))


@pytest.mark.parametrize(
    "kept", [[*range(15), *range(16, 40)], [*range(15), 15, *range(15, 40)]], ids=["a picture was lost", "a picture is there twice"]
)
def test_a_film_with_one_picture_too_few_or_too_many_is_refused_as_a_whole(copy, kept):
    write_film(copy / FILM, FRAMES[kept], FPS)
    refused(copy, rf"the film holds {len(kept)} pictures from frame 0, its episodes take frames 0 to 39")


def test_a_gap_in_the_times_costs_only_the_episode_that_lacks_a_picture(copy):
    kept = [*range(15), *range(16, 40)]
    write_film(copy / FILM, FRAMES[kept], FPS, times=[k / FPS for k in kept])
    refused(copy, r"expected frames 10..19, but there is no picture at the time of frame 15", index=1)
    for index in (0, 2, 3):
        assert marks(copy, index) == [(index, step) for step in range(LENGTH)]


def test_pictures_of_an_episode_that_was_removed_may_stay_in_the_film():
    assert number_pictures(np.arange(40) / FPS, 40, FPS, FilmSpan(begin=0, end=30, taken=30, may_hold_more=True)).tolist() == list(
        range(40)
    )
    with pytest.raises(FilmError, match="holds 40 pictures"):
        number_pictures(np.arange(40) / FPS, 40, FPS, FilmSpan(begin=0, end=30, taken=30))
    with pytest.raises(FilmError, match=r"begins at frame 8\.00, its first episode at frame 0"):
        number_pictures((8 + np.arange(40)) / FPS, 40, FPS, FilmSpan(begin=0, end=40, taken=30))
    assert number_pictures(np.arange(40) / FPS, 40, FPS, WHOLE).tolist() == list(range(40))


@pytest.mark.parametrize(
    "options", [{"bf": "3", "g": "250"}, {"bf": "2", "g": "12", "x264-params": "open-gop=1"}], ids=["one group", "open groups"]
)
def test_pictures_that_are_stored_in_another_order_than_shown_are_found(copy, options):
    write_film(copy / FILM, FRAMES, FPS, options=options)
    are_right(copy)


# --- turned pictures ------------------------------------------------------------------------------------------------------


def with_matrix(path, *numbers):
    """Write the 2 x 2 part of the display matrix of an mp4: 36 bytes, 40 bytes after the name of its track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[place : place + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (round(number * 65536) for number in numbers)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
        ((1, 0, 0, -1), lambda picture: picture[::-1]),
    ],
    ids=["right", "left", "upside down", "mirrored", "flipped"],
)
def test_pictures_stand_as_the_display_matrix_of_the_film_says(copy, matrix, expected):
    with_matrix(copy / FILM, *matrix)
    read = DatasetReader(copy).episode(1).images["front"]
    assert np.array_equal(read[3], expected(MADE[1].frames_THW3[3]))


def test_a_display_matrix_that_is_no_quarter_turn_is_refused(copy):
    with_matrix(copy / FILM, 0.5, 0.5, -0.5, 0.5)
    refused(copy, r"file-000.mp4: its display matrix \(0.5 0.5; -0.5 0.5\) is no quarter turn")


def test_a_turn_that_contradicts_the_stated_shape_is_refused(tmp_path):
    wide = plain_episode(0, length=LENGTH, size=SIZE)
    root = write_plain_set(tmp_path / "set", [wide])
    write_film(root / FILM, np.concatenate([wide.frames_THW3, wide.frames_THW3[:, :, :16]], axis=2), FPS)
    feature = {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]}
    change_info(root, features={"observation.images.front": feature})
    assert DatasetReader(root).episode(0).images["front"].shape == (LENGTH, 32, 48, 3)
    with_matrix(root / FILM, 0, 1, -1, 0)
    refused(root, r"48 high and 32 wide as the film shows them, meta/info.json states \(32, 48\)")


def test_a_picture_without_a_matrix_is_untouched():
    assert np.array_equal(turned(FRAMES[0], None), FRAMES[0])


def test_frames_further_ahead_are_decoded_on_to_and_all_others_entered_at_their_key_frame(tmp_path):
    writer = VideoWriter(tmp_path / "film.mp4", fps=FPS, width=SIZE, height=SIZE, codec=replace(LOSSLESS, gop=16))
    writer.append(FRAMES)
    writer.close()
    reader = VideoReader(tmp_path / "film.mp4", FPS)
    assert key_places(reader.path, len(FRAMES)).tolist() == [0, 16, 32]
    entered = list[int]()
    enter = reader._seek
    reader._seek = lambda place: (entered.append(place), enter(place))
    asked = (2, 9, 3, 15, 16, 31, 32, 33, 39, 30)  # the last ones: across a key frame, on, on, back
    assert all(np.array_equal(reader.read(number, 1)[0], FRAMES[number]) for number in asked)
    assert entered == [2, 3, 30]
    assert np.array_equal(reader.read(20, 3), FRAMES[20:23])
    assert np.array_equal(reader.read(35, 3), FRAMES[35:38])
    assert entered == [2, 3, 30, 20, 35]


@pytest.mark.parametrize("name", sorted(CODECS))
def test_writing_a_film_leaves_the_scheduling_of_every_thread_as_it_was(tmp_path, name):
    """The encoder of AV1 makes the process of root a real-time one, and all that it starts."""
    writer = VideoWriter(tmp_path / "film.mp4", fps=20, width=SIZE, height=SIZE, codec=CODECS[name])
    writer.append(FRAMES[:4])
    while_encoding = {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
    writer.close()
    assert os.SCHED_FIFO not in while_encoding  # other libraries may have threads of their own, with other policies
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize("error", [None, OSError("the disk is full")], ids=["written", "failed"])
def test_a_thread_that_was_real_time_before_stays_so(error):
    if os.geteuid():
        pytest.skip("only root may become real-time")
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
    try:
        with contextlib.suppress(OSError), scheduling_kept():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(9))
            if error is not None:
                raise error
        assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == (os.SCHED_RR, 3)
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
