"""The handshake's comparison: what is converted, what is refused by name, and that conversions are really applied."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec, mismatches
from model_core.spec.conversion import Comparison, camera_names, compare, convert_actions, convert_committed, convert_observation
from model_core.spec.errors import ContractError, WireError
from model_core.spec.protocol.image_codec import decode_image, encode_image, with_decoded
from model_core.spec.protocol.wire import EncodedImage
from model_core.spec.types import Observation
from tests.fakes import make_contract


def body() -> EmbodimentSpec:
    """Two cameras with roles, a state in metres and radians, a gripper in metres."""
    return EmbodimentSpec(
        name="arm",
        cameras=(
            CameraSpec(name="front", width=6, height=4, role="front", encodings=("raw", "jpeg")),
            CameraSpec(name="wrist", width=5, height=3, role="wrist"),
        ),
        proprio=VectorSpec(dims=(DimSpec(name="x", unit="m", low=-1.0, high=1.0), DimSpec(name="q", unit="rad", low=-3.0, high=3.0))),
        action=VectorSpec(
            dims=(
                DimSpec(name="dx", unit="m", low=-0.1, high=0.1, soft_low=-0.05, soft_high=0.05),
                DimSpec(name="grip", unit="m", low=0.0, high=0.08),
            ),
            mode="absolute",
        ),
        control_hz=10.0,
        gripper_dim="grip",
        gripper_open=0.08,
        hold=(0.0, None),
        gripper_range=(0.0, 0.08),
        gripper_threshold=0.04,
    )


def in_millimetres(spec: EmbodimentSpec) -> EmbodimentSpec:
    """The same body, said in millimetres and degrees."""

    def scaled(dim: DimSpec) -> DimSpec:
        unit, factor = ("mm", 1000.0) if dim.unit == "m" else ("deg", 180 / math.pi)
        soft = {k: None if getattr(dim, k) is None else getattr(dim, k) * factor for k in ("soft_low", "soft_high")}
        return replace(dim, unit=unit, low=dim.low * factor, high=dim.high * factor, **soft)

    return replace(
        spec,
        proprio=replace(spec.proprio, dims=tuple(map(scaled, spec.proprio.dims))),
        action=replace(spec.action, dims=tuple(map(scaled, spec.action.dims))),
        gripper_open=80.0,
        gripper_range=(0.0, 80.0),
        gripper_threshold=40.0,
    )


def renamed(spec: EmbodimentSpec) -> EmbodimentSpec:
    """Cameras under other names, the other way round, blue first."""
    front, wrist = spec.cameras
    return replace(spec, cameras=(replace(wrist, name="hand_cam"), replace(front, name="base_cam", color="bgr", encodings=("jpeg",))))


def kinds(found: Comparison) -> list[str]:
    return [c.kind for c in found.conversions]


def fields(found: Comparison) -> list[str]:
    return [m.field for m in found.refusals]


def test_the_same_body_needs_nothing() -> None:
    assert compare(body(), body()) == Comparison(refusals=(), conversions=())


def test_everything_of_the_list_at_once_is_converted_and_comes_back() -> None:
    made, offered = body(), in_millimetres(renamed(body()))
    found = compare(made, offered)
    assert found.refusals == ()
    expected = ["camera order", "camera rename", "channel order", "image encoding", "camera rename"] + 4 * ["unit scale"]
    assert kinds(found) == expected
    assert camera_names(found.conversions) == {"base_cam": "front", "hand_cam": "wrist"}
    assert all(c.field in c.explain() for c in found.conversions)
    rng = np.random.default_rng(0)
    blue_first = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    seen = Observation(
        images={"hand_cam": np.zeros((3, 5, 3), np.uint8), "base_cam": blue_first},
        proprio_P=np.array([250.0, 90.0], np.float32),
        instruction="go",
    )
    taken = convert_observation(found.conversions, seen, made)
    assert list(taken.images) == ["front", "wrist"]
    assert np.array_equal(taken.images["front"], blue_first[..., ::-1])
    assert taken.proprio_P == pytest.approx([0.25, math.pi / 2])
    actions_KA = np.array([[0.05, 0.08], [-0.1, 0.0]], np.float32)
    theirs = convert_actions(found.conversions, actions_KA)
    assert theirs == pytest.approx(np.array([[50.0, 80.0], [-100.0, 0.0]]))
    assert convert_committed(found.conversions, theirs) == pytest.approx(actions_KA)


def test_without_conversions_nothing_is_copied() -> None:
    seen = Observation(images={"front": np.zeros((4, 6, 3), np.uint8)}, proprio_P=np.zeros(2, np.float32), instruction="")
    actions = np.zeros((2, 2), np.float32)
    assert convert_observation((), seen, body()) is seen
    assert convert_actions((), actions) is actions


def change_dim(spec: EmbodimentSpec, vector: str, place: int, **changes: object) -> EmbodimentSpec:
    dims = list(getattr(spec, vector).dims)
    dims[place] = replace(dims[place], **changes)
    return replace(spec, **{vector: replace(getattr(spec, vector), dims=tuple(dims))})


def change_camera(spec: EmbodimentSpec, place: int, **changes: object) -> EmbodimentSpec:
    cameras = list(spec.cameras)
    cameras[place] = replace(cameras[place], **changes)
    return replace(spec, cameras=tuple(cameras))


@pytest.mark.parametrize(
    ("field", "offered"),
    [
        ("name", replace(body(), name="leg")),
        ("control_hz", replace(body(), control_hz=5.0)),
        ("gripper_open", replace(body(), gripper_open=0.0)),
        ("gripper_range", replace(body(), gripper_range=(0.08, 0.0))),
        ("gripper_range", replace(body(), gripper_range=None)),
        ("gripper_threshold", replace(body(), gripper_threshold=0.01)),
        ("gripper_dim", replace(body(), gripper_dim="dx")),
        ("hold[0]", replace(body(), hold=(None, None))),
        ("action.mode", replace(body(), action=replace(body().action, mode="delta"))),
        ("action.dims[0].mode", change_dim(body(), "action", 0, mode="relative")),
        ("action.dims[0].unit", change_dim(body(), "action", 0, unit="rad")),
        ("action.dims[0].frame", change_dim(body(), "action", 0, frame="tool")),
        ("action.dims[0].high", change_dim(body(), "action", 0, high=0.2)),
        ("proprio.dims[0].low", change_dim(body(), "proprio", 0, low=-2.0)),
        ("proprio.dims[1].name", change_dim(body(), "proprio", 1, name="p")),
        ("proprio.dims", replace(body(), proprio=VectorSpec(dims=body().proprio.dims[:1]))),
        ("cameras[0].width", change_camera(body(), 0, width=7)),
        ("cameras[0].max_age_ms", change_camera(body(), 0, max_age_ms=900.0)),
        ("cameras[0].resize", change_camera(body(), 0, resize="cell")),
        ("cameras[1].encodings", change_camera(body(), 1, encodings=("jpeg",))),
        ("cameras[0].role", change_camera(body(), 0, role="side")),
        ("cameras[0].name", change_camera(body(), 0, name="other", role="side")),
        ("cameras", replace(body(), cameras=body().cameras[:1])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_refuses_and_names_the_field(field: str, offered: EmbodimentSpec) -> None:
    assert any(found.startswith(field) for found in fields(compare(body(), offered)))


def test_two_cameras_that_swapped_their_roles_are_refused() -> None:
    front, wrist = body().cameras
    swapped = replace(body(), cameras=(replace(front, role="wrist"), replace(wrist, role="front")))
    assert fields(compare(body(), swapped)) == ["cameras[0].role", "cameras[1].role"]


def test_scaled_limits_must_still_be_the_limits() -> None:
    wrong = change_dim(in_millimetres(body()), "action", 0, high=200.0)
    assert fields(compare(body(), wrong)) == ["action.dims[0].high"]
    assert compare(body(), in_millimetres(body())).refusals == ()


def test_a_rate_within_the_tolerance_passes() -> None:
    contract = replace(make_contract(), hz_tolerance=0.5)
    close, far = replace(contract.embodiment, control_hz=20.4), replace(contract.embodiment, control_hz=21.0)
    assert compare(contract, close).refusals == ()
    assert fields(compare(contract, far)) == ["control_hz"]
    assert fields(compare(contract.embodiment, close)) == ["control_hz"]


def test_what_an_old_contract_does_not_state_cannot_differ() -> None:
    old = make_contract().embodiment
    dims = tuple(replace(d, source="joint encoder") for d in old.proprio.dims)
    new = replace(old, cameras=(replace(old.cameras[0], role="front"),), proprio=replace(old.proprio, dims=dims), gripper_range=(1.0, -1.0))
    assert mismatches(old, new) == []
    assert [m.field for m in mismatches(new, old)] == ["gripper_range", *(f"proprio.dims[{i}].source" for i in range(4))]


@settings(max_examples=60, deadline=None)
@given(
    st.permutations([0, 1, 2]),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.sampled_from(("rgb", "bgr")), min_size=3, max_size=3),
)
def test_any_order_names_and_colours_lead_to_the_same_observation(
    order: list[int], rename: tuple[bool, ...], colors: tuple[str, ...]
) -> None:
    made = replace(body(), cameras=tuple(CameraSpec(name=f"c{i}", width=2, height=2, role=f"r{i}") for i in range(3)))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    theirs = [replace(c, name=f"their{i}" if rename[i] else c.name, color=colors[i]) for i, c in enumerate(made.cameras)]
    offered = replace(made, cameras=tuple(theirs[i] for i in order))
    found = compare(made, offered)
    assert found.refusals == ()
    sent = {theirs[i].name: pixels[i] if colors[i] == "rgb" else pixels[i, ..., ::-1] for i in order}
    taken = convert_observation(found.conversions, Observation(images=sent, proprio_P=np.zeros(2, np.float32), instruction=""), made)
    assert list(taken.images) == ["c0", "c1", "c2"]
    assert all(np.array_equal(taken.images[f"c{i}"], pixels[i]) for i in range(3))


def gradient(height: int = 4, width: int = 6) -> np.ndarray:
    return np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)


def test_png_is_lossless_and_jpeg_is_close() -> None:
    picture = gradient(32, 48)
    assert np.array_equal(decode_image(encode_image(picture, "png")), picture)
    assert np.abs(decode_image(encode_image(picture, "jpeg", quality=95)).astype(int) - picture).mean() < 12


def test_a_picture_that_lies_is_refused_before_it_is_decoded() -> None:
    small, large = encode_image(gradient(), "png"), encode_image(np.zeros((900, 900, 3), np.uint8), "png")
    with pytest.raises(WireError, match="promised was 4x6"):
        decode_image(EncodedImage(encoding="png", data=large.data, shape=(4, 6, 3)))
    with pytest.raises(WireError, match="at most 10 pixels"):
        decode_image(small, max_pixels=10)
    for bad in (
        EncodedImage(encoding="jpeg", data=small.data, shape=small.shape),
        replace(small, data=small.data[:40]),
        replace(small, data=b""),
    ):
        with pytest.raises(WireError, match="not a readable"):
            decode_image(bad)


def test_encoded_cameras_are_opened_in_order_and_only_where_the_contract_takes_them() -> None:
    raw_wrist = np.zeros((3, 5, 3), np.uint8)
    seen = Observation(images={"wrist": raw_wrist}, proprio_P=np.zeros(2, np.float32), instruction="")
    opened = with_decoded(seen, {"front": encode_image(gradient(), "jpeg")}, body())
    assert list(opened.images) == ["front", "wrist"]
    assert opened.images["front"].shape == (4, 6, 3)
    assert with_decoded(seen, {}, body()) is seen
    front_only = Observation(images={"front": gradient()}, proprio_P=seen.proprio_P, instruction="")
    for name, encoding, where in (("wrist", "jpeg", front_only), ("side", "png", seen), ("wrist", "png", seen)):
        with pytest.raises(ContractError, match=name):
            with_decoded(where, {name: encode_image(gradient(3, 5), encoding)}, body())
