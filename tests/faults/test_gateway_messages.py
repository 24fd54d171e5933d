"""What a client can do wrong to the service: bytes, pictures, steering, versions, repeats. Real sockets, the real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from model_core.spec.contract import PROTOCOL_VERSION, CameraSpec, DimSpec, VectorSpec
from model_core.spec.protocol.wire import Chunk, EncodedImage, Observe, Ready, Reject, SteeringInput, encode_message
from model_core.spec.types import RefusalCode
from serving.fault_injection.catalog import BYTES
from serving.fault_injection.damage import damage
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.sessions.gateway import Gateway
from tests.faults.peer import CONTRACT, Peer, greeted, is_own_answer, observation, other_body, refused, stub_service
from tests.faults.verdicts import covers


@pytest.fixture(scope="module")
def policy() -> StubPolicy:
    return StubPolicy(contract=CONTRACT)


@pytest.fixture(scope="module")
def service(policy: StubPolicy) -> Iterator[tuple[str, Gateway]]:
    with stub_service(policy) as running:
        yield running


@pytest.fixture
def address(service: tuple[str, Gateway]) -> str:
    return service[0]


def raw_observe(peer: Peer, seq: int) -> bytes:
    assert peer.ready is not None
    return encode_message(
        Observe(
            session_id=peer.ready.session_id,
            epoch=peer.ready.epoch,
            seq=seq,
            episode_id="e",
            step=1,
            deadline_ms=5000,
            observation=observation(),
        )
    )


@covers("F8", I1="the same request twice is one inference and one chunk id", I7="a repeated request costs no second inference")
def test_the_same_request_twice_is_one_inference(address: str, policy: StubPolicy) -> None:
    policy.service_s = 0.05
    with greeted(address, "twice") as peer:
        before = len(policy.calls)
        peer.observe(1, value=9)
        peer.observe(1, value=9)
        first, second = peer.answer(), peer.answer()
        third = peer.ask(1, value=200)
        assert encode_message(first) == encode_message(second) == encode_message(third)
        assert is_own_answer(first, 9, 1)
        assert len(policy.calls) == before + 1
    policy.service_s = 0.0


@covers("F8", I1="after a reconnect the old number is a new request of a new epoch, not an old answer")
def test_a_retry_after_reconnect_is_answered_for_itself(address: str) -> None:
    with Peer(address, "again", epoch=1) as old:
        old.greet()
        assert is_own_answer(old.ask(1, value=10), 10, 1)
    with Peer(address, "again", epoch=2) as new:
        new.greet()
        assert is_own_answer(new.ask(1, value=20), 20, 1)


@covers("F10", I8="corrupt bytes are refused with DECODE; the process lives, its session goes on, others do not notice")
@pytest.mark.parametrize("name", sorted(BYTES))
def test_corrupt_bytes_are_refused(address: str, service: tuple[str, Gateway], name: str) -> None:
    rng = np.random.default_rng(11)
    with greeted(address, "rude") as rude, greeted(address, "good") as good:
        bad = damage(name, raw_observe(rude, 1), rng, count=40)
        rude.send(bad)
        answer = rude.answer()
        assert isinstance(answer, Reject | Chunk)
        if name != "flip":
            refused(answer, RefusalCode.DECODE)
        assert is_own_answer(rude.ask(2, value=31), 31, 2)
        assert is_own_answer(good.ask(1, value=32), 32, 1)
    assert service[1].is_ready


@covers("F10", I7="a peer that sends only garbage is let go after a bounded number of messages")
def test_a_peer_that_sends_only_garbage_is_let_go(address: str, service: tuple[str, Gateway]) -> None:
    rng = np.random.default_rng(5)
    with greeted(address, "rude") as rude:
        for _ in range(service[1].limits.max_bad_messages + 2):
            try:
                rude.send(rng.bytes(100))
            except Exception:
                break
        assert rude.is_hung_up()


def tampered(peer: Peer, seq: int, **changes: object) -> bytes:
    """A well-formed OBSERVE whose picture says `changes` about itself."""
    data = raw_observe(peer, seq)
    document = msgpack.unpackb(data[1:])
    document["observation"]["images"]["front"].update(changes)
    return data[:1] + bytes(msgpack.packb(document))  # type: ignore[arg-type]


@covers("F11", I8="object, void and string dtypes, shape lies and overflows are refused; nothing crashes")
@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "object"},
        {"dtype": "|O"},
        {"dtype": "|V8"},
        {"dtype": "<U4"},
        {"dtype": "complex128"},
        {"dtype": "float32"},
        {"dtype": ["uint8"]},
        {"dtype": {"names": ["a"], "formats": ["O"]}},
        {"shape": [16, 16, 4]},
        {"shape": [-16, -16, 3]},
        {"shape": [2**62, 2**62, 3]},
        {"shape": [16, 16]},
        {"shape": [16, 16, 3, 1]},
        {"shape": [16.0, 16, 3]},
        {"shape": [True, 16, 3]},
        {"shape": "16,16,3"},
        {"data": b""},
        {"data": b"\x00" * 767},
        {"data": "x" * 768},
        {"data": None},
        {"packing": "delta-deflate"},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_arrays_that_lie_are_refused(address: str, changes: dict[str, object]) -> None:
    with greeted(address, "liar") as peer:
        peer.send(tampered(peer, 1, **changes))
        refused(peer.answer(), RefusalCode.DECODE)
        assert is_own_answer(peer.ask(2, value=5), 5, 2)


def jpeg(width: int, height: int) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(out, "JPEG")
    return out.getvalue()


@covers("F12", I1="a picture that is not the contract's gives no chunk, by name and size", I7="a bomb is refused before it is decoded")
@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"images": {}}, {RefusalCode.CONTRACT}),
        ({"images": {"wrist": np.zeros((16, 16, 3), np.uint8)}}, {RefusalCode.CONTRACT}),
        ({"images": {"front": np.zeros((8, 16, 3), np.uint8)}}, {RefusalCode.CONTRACT}),
        ({"images": {"front": np.zeros((16, 16, 4), np.uint8)}}, {RefusalCode.CONTRACT}),
        ({"images": {"front": np.zeros((2000, 2000, 3), np.uint8)}}, {RefusalCode.CONTRACT, RefusalCode.TOO_LARGE}),
    ],
    ids=["none", "other camera", "other size", "four channels", "oversize"],
)
def test_pictures_outside_the_contract_are_refused(address: str, policy: StubPolicy, changes: dict, codes: set[RefusalCode]) -> None:
    with greeted(address, "painter") as peer:
        before = len(policy.calls)
        answer = peer.ask(1, observation=replace(observation(), **changes))
        assert isinstance(answer, Reject)
        assert answer.code in codes
        assert len(policy.calls) == before
        assert is_own_answer(peer.ask(2, value=5), 5, 2)


@covers("F12", I7="a compressed picture that is not what it says costs bounded memory and is refused")
@pytest.mark.parametrize(
    ("data", "shape"),
    [(jpeg(4000, 4000), (16, 16, 3)), (b"\xff\xd8" + b"\x00" * 500, (16, 16, 3)), (b"", (16, 16, 3)), (jpeg(16, 16)[:-40], (16, 16, 3))],
    ids=["bomb", "not a jpeg", "empty", "cut off"],
)
def test_a_compressed_picture_that_lies_is_refused(address: str, data: bytes, shape: tuple[int, int, int]) -> None:
    with greeted(address, "bomber") as peer:
        seen = replace(observation(), images={})
        answer = peer.ask(1, observation=seen, encoded={"front": EncodedImage(encoding="jpeg", data=data, shape=shape)})
        assert isinstance(answer, Reject)
        assert answer.code in {RefusalCode.CONTRACT, RefusalCode.DECODE, RefusalCode.TOO_LARGE}
        assert is_own_answer(peer.ask(2, value=5), 5, 2)


@covers("F13", I1="an old picture or state gives no chunk, and the age is named", I2="nothing is made from what is too old")
@pytest.mark.parametrize("age_ms", [{"front": 501.0}, {"proprio": 100_000.0}], ids=["camera", "state"])
def test_old_senses_are_refused(address: str, age_ms: dict[str, float]) -> None:
    with greeted(address, "slow-eyes") as peer:
        reject = refused(peer.ask(1, age_ms=age_ms), RefusalCode.STALE_OBS)
        assert f"{next(iter(age_ms.values())):.0f} ms old" in reject.reason


def changed_dims(place: int, **changes: object) -> VectorSpec:
    dims = list(CONTRACT.embodiment.action.dims)
    dims[place] = replace(dims[place], **changes)
    return VectorSpec(dims=tuple(dims), mode=CONTRACT.embodiment.action.mode)


DRIFTS = {
    "control_hz": {"control_hz": 5.0},
    "gripper_open": {"gripper_open": 1.0},
    "action.mode": {"action": VectorSpec(dims=CONTRACT.embodiment.action.dims, mode="absolute")},
    "action.dims[0].low": {"action": changed_dims(0, low=-0.5)},
    "action.dims": {"action": VectorSpec(dims=CONTRACT.embodiment.action.dims[:3], mode="delta"), "hold": (0.0, 0.0, 0.0)},
    "cameras": {"cameras": (*CONTRACT.embodiment.cameras, CameraSpec(name="wrist", width=16, height=16))},
    "cameras[0].width": {"cameras": (CameraSpec(name="front", width=32, height=16),)},
    "proprio.dims": {"proprio": VectorSpec(dims=(DimSpec(name="x", unit="m", low=-2, high=2),))},
}


@covers("F16", I1="another body is refused before motion and the field is named", I5="no session begins under another contract")
@pytest.mark.parametrize("field", sorted(DRIFTS))
def test_a_body_that_drifted_is_refused_by_field(address: str, field: str) -> None:
    with Peer(address, "drifted") as peer:
        reject = refused(peer.greet(embodiment=other_body(**DRIFTS[field])), RefusalCode.CONTRACT)
        stem = field.split("[")[0]
        assert any(stem in detail for detail in reject.details), reject.details
        assert peer.is_hung_up()


@covers("F16", I5="statistics, chunk length and everything else that the hash covers must be the expected ones")
def test_another_contract_hash_is_refused(address: str) -> None:
    stats = replace(CONTRACT, stats=replace(CONTRACT.stats, count=11))
    length = replace(CONTRACT, chunk_length=16)
    assert len({CONTRACT.contract_id, stats.contract_id, length.contract_id}) == 3
    for other in (stats, length):
        with Peer(address, "hash") as peer:
            reject = refused(peer.greet(expected_contract_id=other.contract_id), RefusalCode.CONTRACT)
            assert "contract_id" in reject.details[0]


def steer(**changes: object) -> SteeringInput:
    base = SteeringInput(points_N2=np.array([[4, 4], [8, 8]], np.float32), image="front", width=16, height=16, revision=3, author="ann")
    return replace(base, **changes)


@covers("F33", I1="steering that cannot be meant refuses the question, with the reason", I6="what was applied is recorded in the chunk")
@pytest.mark.parametrize(
    "changes",
    [
        {"points_N2": np.array([[4, 4], [99, 8]], np.float32)},
        {"points_N2": np.array([[-1, 4]], np.float32)},
        {"points_N2": np.array([[np.nan, 4]], np.float32)},
        {"image": "wrist"},
        {"width": 32},
        {"height": 99},
        {"points_N2": np.zeros((5000, 2), np.float32)},
    ],
    ids=["outside", "negative", "nan", "no such camera", "other width", "other height", "huge list"],
)
def test_bad_steering_is_refused(address: str, changes: dict[str, object]) -> None:
    with greeted(address, "steered") as peer:
        answer = peer.ask(1, steering=steer(**changes))
        assert isinstance(answer, Reject), answer
        assert "steer" in answer.reason.lower() or answer.code in {RefusalCode.DECODE, RefusalCode.TOO_LARGE}, answer
        assert is_own_answer(peer.ask(2, value=5), 5, 2)


@covers("F33", I6="the applied revision is in the chunk; a stale revision and a second author do not pass silently")
def test_revisions_of_steering_are_kept_apart(address: str) -> None:
    with greeted(address, "revised") as peer:
        first = peer.ask(1, steering=steer(revision=3))
        assert isinstance(first, Chunk), first
        assert first.applied_revision == 3
        stale = peer.ask(2, steering=steer(revision=2))
        assert isinstance(stale, Reject), stale
        other = peer.ask(3, steering=steer(revision=3, author="bob", points_N2=np.array([[1, 1]], np.float32)))
        assert isinstance(other, Reject), other
        newer = peer.ask(4, steering=steer(revision=4))
        assert isinstance(newer, Chunk)
        assert newer.applied_revision == 4


@covers("F33", I2="steering that has run out steers no more, and the chunk says so")
def test_steering_that_ran_out_is_flagged(address: str) -> None:
    with greeted(address, "expired") as peer:
        answer = peer.ask(1, steering=steer(ttl_ms=0.0))
        assert isinstance(answer, Chunk), answer
        assert "steering:expired" in answer.flags
        assert answer.applied_revision == 0


@covers("F36", I5="a cell of another protocol is refused in words it can read", I8="nobody else notices")
@pytest.mark.parametrize("version", [1, 3])
def test_protocol_versions_that_differ_are_refused_in_words(address: str, version: int) -> None:
    with Peer(address, "old") as peer:
        hello = encode_message(replace(peer.hello, protocol=version))
        peer.send(bytes([version]) + hello[1:])
        data = peer.socket.recv(timeout=20)
        assert isinstance(data, bytes)
        # A version 1 peer gets the refusal in its own version; the map has the same form.
        assert data[0] in {version, PROTOCOL_VERSION}
        reject = msgpack.unpackb(data[1:])
        assert reject["type"] == "REJECT"
        assert "version" in reject["reason"] or "protocol" in reject["reason"]
        assert peer.is_hung_up()
    with greeted(address, "new") as peer:
        assert isinstance(peer.ready, Ready)


@covers("F12", I6="black and frozen pictures are served and flagged in the chunk, so that a cell and an audit can see them")
def test_black_and_frozen_pictures_are_flagged(address: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with greeted(address, "blind") as peer:
        black = peer.ask(1, observation=replace(observation(), images={"front": np.zeros((16, 16, 3), np.uint8)}))
        assert isinstance(black, Chunk)
        assert "blank:front" in black.flags
        flags: list[str] = []
        for seq in range(2, 6):
            state = np.full(4, seq / 100, np.float32)
            answer = peer.ask(seq, observation=replace(observation(), images={"front": noise}, proprio_P=state), consumed=2)
            assert isinstance(answer, Chunk), answer
            flags = list(answer.flags)
        assert "frozen:front" in flags
