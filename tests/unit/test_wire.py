"""The wire: exact inverses, and one exception for every other byte string."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import SpecError, WireError
from model_core.spec.protocol import episode_file, strict_msgpack, wire
from model_core.spec.types import LEVELS, Observation, RefusalCode, Trace
from tests.fakes import make_contract, make_embodiment, make_episode, make_observation

names = st.text(max_size=20)
numbers = st.floats(0, 1e5)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    height, width, seed = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    return Observation(
        images={name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in draw(st.lists(names, max_size=3, unique=True))},
        proprio_P=rng.standard_normal(draw(st.integers(0, 8))).astype(np.float32),
        instruction=draw(st.text(max_size=50)),
    )


def codes() -> st.SearchStrategy[np.ndarray | None]:
    return st.none() | st.integers(0, 27).map(lambda first: np.arange(first, first + 100))


def points(dtype: str = "int64") -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=5).map(lambda p: np.array(p, dtype))


counts = st.dictionaries(names, st.integers(0, 2**40), max_size=4)
chunks = st.builds(
    wire.Chunk,
    session_id=names,
    epoch=st.integers(0, 9),
    seq=st.integers(0, 2**40),
    chunk_id=names,
    contract_id=names,
    model_version=names,
    actions_KA=st.integers(1, 9).map(lambda k: np.arange(k * 4, dtype=np.float32).reshape(k, 4)),
    control_hz=st.floats(0.1, 1000),
    expires_ms=numbers,
    depth_codes_G=codes(),
    trace_N2=st.none() | points(),
    timing_ms=st.dictionaries(names, numbers, max_size=4),
    batch=st.integers(1, 8),
    level=st.sampled_from(("", *LEVELS)),
    bundle_digest=names,
    committed=st.integers(0, 7),
    flags=st.lists(names, max_size=3).map(tuple),
    guard=st.dictionaries(names, st.floats(-1e6, 1e6), max_size=3),
    counts=counts,
    applied_revision=st.integers(0, 9),
)
encoded = st.builds(
    wire.EncodedImage,
    encoding=st.sampled_from(("jpeg", "png")),
    data=st.binary(max_size=50),
    shape=st.tuples(st.integers(1, 99), st.integers(1, 99), st.just(3)),
)
steerings = st.builds(
    wire.SteeringInput,
    points_N2=points("float32"),
    image=names,
    width=st.integers(1, 999),
    height=st.integers(1, 999),
    revision=st.integers(0, 9),
    author=names,
    ttl_ms=numbers,
    ahead_N2=st.none() | points("float32"),
)
edits = st.builds(wire.Edit, depth_codes_G=codes(), trace_N2=points(), revision=st.integers(0, 9), author=names)
messages = st.one_of(
    st.builds(
        wire.Hello,
        cell=names,
        epoch=st.integers(0, 9),
        embodiment=st.just(make_embodiment()),
        software=names,
        strategies=st.lists(names, max_size=3).map(tuple),
        accepts_parts=st.booleans(),
    ),
    st.builds(
        wire.Ready,
        session_id=names,
        epoch=st.integers(0, 9),
        model_version=names,
        contract=st.just(make_contract()),
        lease_s=numbers,
        levels=st.dictionaries(st.sampled_from(LEVELS), st.dictionaries(names, numbers, max_size=2), max_size=3),
        conversions=st.lists(names, max_size=3).map(tuple),
        bundle_digest=names,
        min_interval_ms=numbers,
        max_in_flight=st.integers(1, 4),
    ),
    st.builds(
        wire.Part,
        session_id=names,
        epoch=st.integers(0, 9),
        seq=st.integers(0, 99),
        field=st.sampled_from(("depth", "trace")),
        depth_codes_G=codes(),
        trace_N2=st.none() | points(),
    ),
    st.builds(
        wire.Control,
        kind=st.sampled_from(wire.CONTROL_KINDS),
        session_id=names,
        epoch=st.integers(0, 9),
        seq=st.integers(0, 99),
        value=st.floats(-1e6, 1e6),
        text=names,
    ),
    st.builds(
        wire.Observe,
        session_id=names,
        epoch=st.integers(0, 9),
        seq=st.integers(0, 2**40),
        episode_id=names,
        step=st.integers(0, 999),
        deadline_ms=numbers,
        observation=observations(),
        age_ms=st.dictionaries(names, numbers, max_size=3),
        encoded=st.dictionaries(names, encoded, max_size=2),
        level=st.sampled_from(("", *LEVELS)),
        previous_chunk_id=names,
        consumed=st.integers(0, 9),
        committed_DA=st.none() | st.integers(0, 4).map(lambda d: np.ones((d, 4), np.float32)),
        steering=st.none() | steerings,
        edit=st.none() | edits,
    ),
    chunks,
    st.builds(
        wire.Reject,
        code=st.sampled_from(RefusalCode),
        reason=st.text(max_size=80),
        seq=st.integers(0, 99),
        retryable=st.booleans(),
        retry_after_ms=numbers,
        details=st.lists(names, max_size=4).map(tuple),
    ),
    st.builds(wire.End, session_id=names, epoch=st.integers(0, 9), episode_id=names, stop_reason=names, success=st.booleans()),
)


@settings(max_examples=120, deadline=None)
@given(messages)
def test_message_round_trip(message: wire.Message) -> None:
    data = wire.encode_message(message)
    assert same(wire.decode_message(data), message)
    assert wire.encode_message(wire.decode_message(data)) == data


@settings(max_examples=300, deadline=None)
@given(messages, st.data())
def test_mutated_bytes_decode_or_raise_wire_error(message: wire.Message, data: st.DataObject) -> None:
    raw = bytearray(wire.encode_message(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for attempt in (bytes(raw), bytes(raw[:cut])):
        with contextlib.suppress(WireError):
            wire.decode_message(attempt)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_wire_error(data: bytes) -> None:
    for attempt in (data, b"\x02" + data):
        with contextlib.suppress(WireError):
            wire.decode_message(attempt)
    with pytest.raises(WireError):
        wire.decode_episode(data)


def chunk_with(**changes: object) -> bytes:
    """An OBSERVE whose proprio array is written by hand."""
    proprio = {"dtype": "float32", "shape": [1], "data": b"\0\0\0\0", **changes}
    observation = {"images": {}, "proprio_P": proprio, "instruction": "", "steering": None}
    body = {
        "session_id": "",
        "epoch": 1,
        "seq": 1,
        "episode_id": "",
        "step": 0,
        "deadline_ms": 1.0,
        "observation": observation,
        "age_ms": {},
    }
    return b"\x02" + msgpack.packb({"type": "OBSERVE", **body})


def test_hand_written_array_is_the_reference() -> None:
    message = wire.decode_message(chunk_with())
    assert isinstance(message, wire.Observe)
    assert message.observation.proprio_P.tolist() == [0.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "object"},
        {"dtype": "|O"},
        {"dtype": "V4"},
        {"dtype": "float64"},
        {"dtype": ["f", "4"]},
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": [2**62]},
        {"shape": [True]},
        {"shape": [1.0]},
        {"shape": [1, 1]},
        {"shape": []},
        {"shape": "1"},
        {"data": "text"},
        {"data": b"\0" * 5},
        {"packing": "delta-deflate"},
        {"packing": "pickle"},
    ],
    ids=str,
)
def test_array_that_lies_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(WireError, match="proprio_P"):
        wire.decode_message(chunk_with(**changes))


def nested(depth: int) -> bytes:
    return b"\x02" + b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "two bytes"),
        (b"\x03\x80", "version 3"),
        (b"\x02\xc0", "map"),
        (b"\x02\x80", "unknown message type"),
        (b"\x02" + msgpack.packb({"type": "EVAL"}), "unknown message type"),
        (b"\x02" + msgpack.packb({"type": "OBSERVE"}), "lacks the field"),
        (b"\x02" + msgpack.packb({1: 2}), "not msgpack|expected"),
        (nested(50), "deeper"),
        (nested(5000), "deeper"),
        (b"\x02\xdd" + struct.pack(">I", 2**31), "past the end"),
        (b"\x02\xc6" + struct.pack(">I", 2**31), "past the end"),
        (b"\x02\xdf\xff\xff\xff\xff", "past the end"),
        (b"\x02" + msgpack.packb([0] * 30_000), "items"),
        (b"\x02" + msgpack.packb(msgpack.ExtType(5, b"abc")), "not allowed"),
        (b"\x02" + msgpack.packb(msgpack.Timestamp(1)), "not allowed"),
        (b"\x02\xc1", "not allowed"),
        (b"\x02\x80\x80", "follow"),
        (b"\x02\x81\xa1\xff\xc0", "not msgpack"),
        (b"\x02\x82\xa1a\xc0\xa1a\xc0", "twice"),
        (b"\x02" + msgpack.packb({b"type": "END"}), "text as the key"),
    ],
)
def test_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        wire.decode_message(data)


def test_a_quick_look_gives_up_in_time_and_a_full_one_does_not() -> None:
    many = b"\x02" + msgpack.packb({"type": "END", "x": [0] * 1000})
    long = b"\x02" + msgpack.packb({"type": "END", "x": "a" * 100_000})
    for data in (many, long):
        with pytest.raises(strict_msgpack.NotQuick):
            wire.decode_message(data, quick=True)
        with pytest.raises(WireError, match="lacks the field"):
            wire.decode_message(data)
    ordinary = wire.Observe(session_id="", epoch=1, seq=1, episode_id="", step=0, deadline_ms=1, observation=make_observation())
    assert isinstance(wire.decode_message(wire.encode_message(ordinary), quick=True), wire.Observe)


def test_size_is_checked_first() -> None:
    with pytest.raises(WireError, match="at most 100 bytes"):
        wire.decode_message(b"\x02" + bytes(200), max_bytes=100)


def test_unknown_fields_are_ignored_and_known_ones_checked() -> None:
    end = {"type": "END", "session_id": "s", "epoch": 1, "episode_id": "e", "stop_reason": "success"}
    assert wire.decode_message(b"\x02" + msgpack.packb({**end, "novelty": [1, 2]})) is not None
    for bad in ({"epoch": True}, {"epoch": -1}, {"epoch": 1.5}, {"success": 1}, {"episode_id": "x" * 999}, {"session_id": None}):
        with pytest.raises(WireError, match=next(iter(bad))):
            wire.decode_message(b"\x02" + msgpack.packb({**end, **bad}))


def test_a_value_that_no_field_allows_is_not_written() -> None:
    episode_of_floats = make_observation()
    bad = Observation(images={"front": np.zeros((4, 4, 3))}, proprio_P=episode_of_floats.proprio_P, instruction="")  # type: ignore[dict-item]
    with pytest.raises(WireError, match="uint8"):
        wire.encode_message(wire.Observe(session_id="", epoch=1, seq=1, episode_id="", step=0, deadline_ms=1, observation=bad))


def test_steering_does_not_travel_inside_the_observation() -> None:
    steered = replace(make_observation(), steering=Trace(points_N2=np.array([[1, 2]])))
    with pytest.raises(WireError, match=r"OBSERVE\.steering"):
        wire.encode_message(wire.Observe(session_id="", epoch=1, seq=1, episode_id="", step=0, deadline_ms=1, observation=steered))


def test_a_refusal_and_nothing_else_is_written_for_a_peer_of_version_1() -> None:
    refusal = wire.Reject(code=RefusalCode.CONTRACT, reason="install matching versions")
    assert wire.version_of(wire.encode_message(refusal, version=1)) == 1
    with pytest.raises(WireError, match="only of version 2"):
        wire.encode_message(wire.End(session_id="", epoch=1, episode_id="", stop_reason=""), version=1)
    with pytest.raises(WireError, match="matching versions"):
        wire.decode_message(b"\x01\x80")


def test_pictures_are_views_of_the_message_and_other_arrays_are_aligned() -> None:
    seen = Observation(
        images={"front": np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)},
        proprio_P=np.arange(5, dtype=np.float32),
        instruction="x",
    )
    data = wire.encode_message(wire.Observe(session_id="", epoch=1, seq=1, episode_id="", step=0, deadline_ms=1, observation=seen))
    back = wire.decode_message(data)
    assert isinstance(back, wire.Observe)
    assert np.shares_memory(back.observation.images["front"], np.frombuffer(data, np.uint8))
    assert back.observation.proprio_P.flags.aligned
    assert np.array_equal(back.observation.images["front"], seen.images["front"])


@pytest.mark.parametrize(
    ("what", "build"),
    [
        ("shape", lambda: wire.EncodedImage(encoding="jpeg", data=b"", shape=(100_000, 100_000, 3))),
        ("encoding", lambda: wire.EncodedImage(encoding="gif", data=b"", shape=(1, 1, 3))),
        ("changes", lambda: wire.Edit()),
        ("depth codes", lambda: wire.Edit(depth_codes_G=np.zeros(7, np.int64))),
        ("points", lambda: wire.SteeringInput(points_N2=np.zeros((0, 2), np.float32), image="a", width=1, height=1)),
    ],
)
def test_parts_of_messages_check_themselves(what: str, build: Callable[[], object]) -> None:
    with pytest.raises(SpecError, match=what):
        build()


def test_numbers_that_are_not_finite_do_not_pass_as_deadlines() -> None:
    message = wire.Observe(session_id="", epoch=1, seq=1, episode_id="", step=0, deadline_ms=float("nan"), observation=make_observation())
    with pytest.raises(WireError, match="deadline_ms"):
        wire.encode_message(message)


def test_episode_round_trip_is_lossless_and_deterministic() -> None:
    episode = make_episode(steps=9)
    episode.depth_m["front"][0, 0, 0] = np.nan
    data = wire.encode_episode(episode)
    assert same(wire.decode_episode(data), episode)
    assert wire.encode_episode(wire.decode_episode(data)) == data


def test_still_pictures_are_small() -> None:
    episode = make_episode(steps=1)
    still = type(episode)(**{f.name: getattr(episode, f.name) for f in fields(episode)} | {
        "images": {"front": np.repeat(episode.images["front"], 50, axis=0)},
        "depth_m": {},
    })  # fmt: skip
    assert len(wire.encode_episode(still)) < 3 * len(wire.encode_episode(episode))


def test_damaged_episode_is_named_damaged() -> None:
    data = bytearray(wire.encode_episode(make_episode()))
    with pytest.raises(WireError, match="damaged"):
        wire.decode_episode(bytes(data[:-10]))
    data[len(data) // 2] ^= 1
    with pytest.raises(WireError, match="damaged"):
        wire.decode_episode(bytes(data))
    with pytest.raises(WireError, match="format 9"):
        wire.decode_episode(wire.EPISODE_MAGIC + b"\x09" + bytes(40))


def test_deflate_bomb_is_stopped_at_the_promised_size() -> None:
    import zlib

    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(WireError, match="inflated"):
        episode_file._inflate_series(bomb, "uint8", [1, 2, 2, 3], 12)
