"""A drawn line, from what a person writes to the message that steers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_core.spec.errors import SpecError
from model_core.spec.protocol.steering_input import MAX_DRAWING_BYTES, drawing, read_drawing, typed_points
from model_core.spec.protocol.wire import Observe, SteeringInput, decode_message, encode_message
from serving.workcell.control.operator_input import OperatorInput
from serving.workcell.control.steering_file import SteeringFile
from tests.fakes import make_embodiment, make_observation

BODY = make_embodiment(size=32)


def test_a_line_as_typed_is_the_line_in_a_file() -> None:
    typed = drawing(typed_points("1,2 30.5,4"), BODY, "front")
    filed = read_drawing(b'{"points": [[1, 2], [30.5, 4]], "author": "ann", "ttl_ms": 500}', BODY, "", revision=3)
    assert np.array_equal(typed.points_N2, filed.points_N2)
    assert (typed.image, typed.width, typed.height, typed.revision, typed.ttl_ms) == ("front", 32, 32, 1, 60_000.0)
    assert (filed.image, filed.author, filed.revision, filed.ttl_ms) == ("front", "ann", 3, 500.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[[1, 2]]", "expected"),
        (b'{"points": [[1, 2]], "colour": "red"}', "at most author, camera, ttl_ms"),
        (b'{"points": []}', "at least one"),
        (b'{"points": [[1, 2, 3]]}', "pairs"),
        (b'{"points": [[1, null]]}', "pairs|numbers"),
        (b'{"points": "ab"}', "numbers|pairs"),
        (b'{"points": [[1, NaN]]}', "pairs"),
        (b'{"points": [[1, 2]], "ttl_ms": "soon"}', "numbers"),
        (b'{"points": [[1, 2]], "ttl_ms": Infinity}', "ttl_ms is a number"),
        (b'{"points": [[1, 2]], "ttl_ms": NaN}', "ttl_ms is a number"),
        (b'{"points": [[1, 2]], "ttl_ms": 0}', "ttl_ms is a number above 0"),
        (b'{"points": [[1, 2]], "ttl_ms": 1e30}', "at most 1e.09"),
        (b'{"points": [[1, 2]], "ttl_ms": 1' + b"0" * 400 + b"}", "numbers"),
        (b'{"points": [[1' + b"0" * 400 + b", 2]]}", "numbers"),
        (b"[" * 60_000, "not JSON"),
        (b'{"points": [[1, 32]]}', "outside of front's 32 x 32"),
        (b'{"points": [[1, 2]], "camera": "left"}', "no camera 'left'"),
        (b"1" * (MAX_DRAWING_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_line_is_told(content: bytes, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_drawing(content, BODY, "front")


def test_a_drawing_that_is_taken_can_be_sent() -> None:
    half = read_drawing(b'{"points": [[1, 2]], "author": "\\ud800", "ttl_ms": 1e9}', BODY, "front")
    assert half.author == "?"
    asked = Observe(
        session_id="s", epoch=1, seq=1, episode_id="e", step=1, deadline_ms=100.0, observation=make_observation(BODY), steering=half
    )
    assert isinstance(decode_message(encode_message(asked)), Observe)


@pytest.mark.parametrize("text", ["12 40", "a,b", "1,2,3", "1,2;3,4"])
def test_what_is_typed_wrong_is_told(text: str) -> None:
    with pytest.raises(SpecError, match="12,60 40,48"):
        typed_points(text)


def test_a_file_steers_while_it_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[SteeringInput | None] = []
    path = tmp_path / "line.json"
    file = SteeringFile(path, BODY, "front", told.append)
    file.look()
    assert told == []
    for points in ([[1, 2]], [[1, 2]], [[3, 4], [5, 6]]):
        path.write_text(json.dumps({"points": points}))
        file.look()
    assert [drawn.revision for drawn in told if drawn is not None] == [1, 2]
    path.write_text('{"points": ')  # somebody is still writing
    file.look()
    file.look()
    assert len(told) == 2
    assert caplog.text.count("steering.refused") == 1
    path.unlink()
    file.look()
    assert told[2:] == [None]


def test_a_file_that_cannot_be_read_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[SteeringInput | None] = []
    path = tmp_path / "line.json"
    file = SteeringFile(path, BODY, "front", told.append)
    for _ in range(2):
        path.mkdir()
        file.look()
        file.look()
        path.rmdir()
        file.look()
    assert told == []
    assert caplog.text.count("steering.unreadable") == 2


def test_what_is_drawn_between_episodes_is_for_the_next_and_for_that_alone() -> None:
    wishes, line = OperatorInput(), drawing([[1, 2]], BODY, "front")
    wishes.tell("steering", line)
    assert wishes.take(0.0) == [("steering", "revision 1 by ")]
    wishes.begin("go there")
    assert wishes.steering(1.0, lambda drawn: None) is not None
    wishes.forget()
    wishes.begin("go there")
    assert wishes.steering(2.0, lambda drawn: None) is None
