"""Which cells fit the contract, and how the images of an accepted cell are watched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_core.spec.protocol.wire import Hello, Observe, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.sessions.handshake import Accepted, greet
from serving.gateway.sessions.observation_adapter import ObservationAdapter
from tests.fakes import make_contract, make_embodiment, make_observation
from tests.gateway_parts import observe

READY = Ready(session_id="s", epoch=1, model_version="m", contract=make_contract())


def hello(**changes: object) -> Hello:
    return Hello(**{"cell": "a", "epoch": 1, "embodiment": make_embodiment(), **changes})  # type: ignore[arg-type]


def test_an_equal_embodiment_is_accepted_without_conversions() -> None:
    answer = greet(hello(), READY)
    assert isinstance(answer, Accepted)
    assert (answer.ready.conversions, answer.adapter.converts) == ((), False)


def test_every_difference_is_listed() -> None:
    answer = greet(hello(embodiment=replace(make_embodiment(), control_hz=5.0, gripper_open=1.0)), READY)
    assert isinstance(answer, Reject)
    assert answer.code is RefusalCode.CONTRACT
    assert [detail.split(":")[0] for detail in answer.details] == ["control_hz", "gripper_open"]
    assert "2 field(s)" in answer.reason


def test_another_contract_or_protocol_is_refused_by_name() -> None:
    other = greet(hello(expected_contract_id="0" * 16), READY)
    assert isinstance(other, Reject)
    assert other.details[0].startswith("contract_id")
    old = greet(hello(protocol=1), READY)
    assert isinstance(old, Reject)
    assert "protocol" in old.reason


def test_a_camera_in_another_channel_order_is_converted_and_said_so() -> None:
    body = make_embodiment()
    answer = greet(hello(embodiment=replace(body, cameras=(replace(body.cameras[0], color="bgr"),))), READY)
    assert isinstance(answer, Accepted)
    assert answer.adapter.converts
    assert any("bgr" in line for line in answer.ready.conversions)
    sent = observe(READY)
    image_HW3 = sent.observation.images["front"].copy()
    image_HW3[..., 0] = 99
    sent = replace(sent, observation=replace(sent.observation, images={"front": image_HW3}))
    prepared = answer.adapter.prepare(sent, 0.0, lambda: 0.0)
    assert prepared.wrong is None
    np.testing.assert_array_equal(prepared.observe.observation.images["front"], image_HW3[..., ::-1])


def frame(value: np.ndarray, consumed: int) -> Observe:
    seen = replace(make_observation(), images={"front": value})
    return replace(observe(READY), observation=seen, consumed=consumed)


def test_an_image_that_repeats_while_the_robot_moves_is_flagged_as_frozen() -> None:
    adapter = ObservationAdapter(make_contract())
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    flags = [adapter.prepare(frame(noise[n], consumed), 0.0, lambda: 0.0).flags for n, consumed in ((0, 4), (0, 0), (0, 4), (1, 4))]
    assert flags == [(), (), ("frozen:front",), ()]  # without movement an equal image is no fault


def test_an_image_of_one_colour_is_flagged_as_blank() -> None:
    adapter = ObservationAdapter(make_contract())
    assert adapter.prepare(frame(np.full((16, 16, 3), 9, np.uint8), 0), 0.0, lambda: 0.0).flags == ("blank:front",)


def test_what_breaks_the_contract_is_noted_and_never_raised() -> None:
    adapter = ObservationAdapter(make_contract())
    small = frame(np.zeros((8, 8, 3), np.uint8), 0)
    prepared = adapter.prepare(small, 0.0, lambda: 0.0)
    assert prepared.wrong is not None
    assert prepared.wrong[0] is RefusalCode.CONTRACT
    assert "(16, 16, 3)" in prepared.wrong[1]
