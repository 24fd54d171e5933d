"""Traces from kinematics: a case computed by hand, every lens against its formula, and the simulator's own truth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import Frames, frames_of
from components.data.annotators.kinematics.annotator import open_points
from components.data.annotators.kinematics.document import CameraCalibration
from components.data.annotators.kinematics.projection import project
from components.data.annotators.simulator_truth import TruthPoint
from components.simulation.urdf import UrdfKinematics
from model_core.spec.embodiment import CameraSpec, DimSpec, EmbodimentSpec, VectorSpec
from model_core.spec.errors import DatasetError, SpecError
from tests.episodes import CAMERA, episode

# two links of 0.5 m and 0.3 m that turn about z, a slide along the second, a finger that follows the slide, and a fixed tool
URDF = """<robot name="planar">
  <link name="base"/>
  <link name="upper"><visual><geometry><mesh filename="package://arm/upper.stl"/></geometry></visual></link>
  <link name="fore"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="slider"/><link name="finger"/><link name="tool"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 0.2"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
  <joint name="elbow" type="continuous"><parent link="upper"/><child link="fore"/><origin xyz="0.5 0 0"/><axis xyz="0 0 1"/></joint>
  <joint name="slide" type="prismatic"><parent link="fore"/><child link="slider"/><origin xyz="0.3 0 0"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.1" effort="1" velocity="1"/></joint>
  <joint name="follow" type="prismatic"><parent link="slider"/><child link="finger"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.1" effort="1" velocity="1"/><mimic joint="slide" multiplier="2" offset="0.01"/></joint>
  <joint name="mount" type="fixed"><parent link="slider"/><child link="tool"/><origin xyz="0 0 -0.1" rpy="0 0 1.5707963267948966"/></joint>
</robot>"""
BODY = EmbodimentSpec(
    name="planar",
    cameras=(CameraSpec(name="top", width=64, height=48),),
    proprio=VectorSpec(
        dims=(
            DimSpec(name="j1", unit="deg", low=-180, high=180),
            DimSpec(name="j2", unit="rad", low=-4, high=4),
            DimSpec(name="slide", unit="mm", low=0, high=100),
        )
    ),
    action=VectorSpec(dims=(DimSpec(name="grip", unit="1", low=0, high=1),), mode="absolute"),
    control_hz=10,
    gripper_dim="grip",
    gripper_open=1,
    hold=(None,),
)
# 1.1 m above the base, looking straight down: x of the image along x of the base, y of the image against y of the base
TOP = {
    "width": 64,
    "height": 48,
    "fx": 50,
    "fy": 40,
    "cx": 32,
    "cy": 24,
    "pose": [[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 1.1], [0, 0, 0, 1]],
}


def folder(root: Path, **tool: object) -> Path:
    document = {
        "format": 1,
        "tool_centre": {"source": "urdf", "urdf": "arm.urdf", "link": "tool", "joints": {"shoulder": "j1", "elbow": "j2"}, **tool},
        "cameras": {"top": TOP},
    }
    (root / "arm.urdf").write_text(URDF)
    (root / "kinematics.yaml").write_text(yaml.safe_dump(document))
    return root


def frames(states: list[list[float]], **changes: object) -> Frames:
    made = Frames(
        images_THW3=np.zeros((0, 48, 64, 3), np.uint8),
        size=(48, 64),
        count=len(states),
        camera="top",
        proprio_TP=np.array(states, np.float32),
        body=BODY,
    )
    return replace(made, **changes)


def annotate(root: Path, given: Frames):
    return open_points(AnnotateConfig(point_model=str(root))).annotate(given)


def test_a_planar_arm_computed_by_hand(tmp_path):
    # shoulder 90 degrees, elbow -90 degrees, slide 40 mm: x = 0.3 + 0.04, y = 0.5, z = 0.2 - 0.1; the tool's x axis then points along y
    arm = UrdfKinematics(folder(tmp_path) / "arm.urdf")
    readings = {"shoulder": np.array([math.pi / 2]), "elbow": np.array([-math.pi / 2]), "slide": np.array([0.04])}
    pose_44 = arm.poses("tool", readings)[0]
    np.testing.assert_allclose(pose_44[:3, 3], [0.34, 0.5, 0.1], atol=1e-9)
    np.testing.assert_allclose(pose_44[:3, 0], [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(arm.poses("finger", readings)[0, :3, 3], [0.34, 0.5 + 0.09, 0.2], atol=1e-9)  # 2 * 0.04 + 0.01
    assert [joint.name for joint in arm.needed("finger")] == ["shoulder", "elbow", "slide"]
    # 1 m below the camera: u = 32 + 50 * (0.34 - 0.5), v = 24 - 40 * 0.5
    track = annotate(tmp_path, frames([[90, -math.pi / 2, 40], [0, 0, 0], [180, 0, 0]]))
    np.testing.assert_allclose(track.points_T2[0], [24.0, 4.0], atol=1e-4)
    np.testing.assert_allclose(track.points_T2[1], [32 + 50 * 0.3, 24.0], atol=1e-4)
    assert track.visible_T.tolist() == [True, True, False]
    np.testing.assert_allclose(track.confidence_T, [0.8, 0.8, 0.0])


def test_depth_tells_what_hides_the_tool(tmp_path):
    depth_m = np.full((2, 48, 64), 1.0, np.float32)
    depth_m[1, 24, 47] = 0.5
    track = annotate(folder(tmp_path), frames([[0, 0, 0]] * 2, depth_m_THW=depth_m))
    np.testing.assert_allclose(track.confidence_T, [1.0, 0.5])


def test_a_camera_on_the_arm_moves_with_it(tmp_path):
    root = folder(tmp_path)
    document = yaml.safe_load((root / "kinematics.yaml").read_text())
    document["cameras"]["top"] |= {"mounted_on": "fore", "pose": [[1, 0, 0, 0.3], [0, -1, 0, 0], [0, 0, -1, 0.9], [0, 0, 0, 1]]}
    (root / "kinematics.yaml").write_text(yaml.safe_dump(document))
    track = annotate(root, frames([[a, b, 20] for a, b in ((0, 0), (50, 1), (-120, 2))]))
    # in the axes of the forearm the tool is always at 0.3 + 0.02 along x and 0.1 below: 1 m from the camera
    np.testing.assert_allclose(track.points_T2, [[32 + 50 * 0.02, 24.0]] * 3, atol=1e-4)


def test_the_simulators_truth_is_met_exactly(tmp_path):
    one = episode(3)
    truth = TruthPoint().annotate(frames_of(one, "front", (32, 32)))
    for tool, cameras in (({"source": "recorded"}, {}), ({"source": "recorded"}, {"front": calibration_of(one)})):
        (tmp_path / "kinematics.yaml").write_text(yaml.safe_dump({"format": 1, "tool_centre": tool, "cameras": cameras}))
        track = annotate(tmp_path, frames_of(one, "front", (32, 32)))
        np.testing.assert_array_equal(track.visible_T, truth.visible_T)
        np.testing.assert_allclose(track.points_T2, truth.points_T2, atol=1e-9)
        np.testing.assert_array_equal(track.confidence_T, truth.confidence_T)


def calibration_of(one) -> dict[str, object]:
    geometry = one.geometry["front"]
    k = geometry.intrinsics_33
    pose_44 = np.linalg.inv(geometry.world_to_camera_44)
    pose_44[3] = [0, 0, 0, 1]
    numbers = {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
    return {"width": CAMERA.width, "height": CAMERA.height, "pose": pose_44.tolist(), **{n: float(v) for n, v in numbers.items()}}


def lens(model: str, *coefficients: float) -> CameraCalibration:
    rows = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    return CameraCalibration(width=640, height=480, fx=1, fy=1, cx=0, cy=0, pose=rows, distortion=model, coefficients=coefficients)


def test_lenses_against_their_published_formulas():
    point = np.array([[0.3, -0.2, 1.0]])
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    bent = 1 + 0.1 * r2 - 0.05 * r2**2 + 0.01 * r2**3
    tangential = np.array([2 * 0.002 * x * y + 0.003 * (r2 + 2 * x * x), 0.002 * (r2 + 2 * y * y) + 2 * 0.003 * x * y])
    np.testing.assert_allclose(project(lens("plumb_bob", 0.1, -0.05, 0.002, 0.003, 0.01), point)[0], np.array([x, y]) * bent + tangential)
    ratio = bent / (1 + 0.2 * r2 + 0.1 * r2**2 + 0.05 * r2**3)
    rational = lens("rational_polynomial", 0.1, -0.05, 0.002, 0.003, 0.01, 0.2, 0.1, 0.05)
    np.testing.assert_allclose(project(rational, point)[0], np.array([x, y]) * ratio + tangential)
    angle = math.atan(math.sqrt(r2))
    fish = angle * (1 + 0.01 * angle**2 - 0.02 * angle**4 + 0.003 * angle**6 - 0.001 * angle**8) / math.sqrt(r2)
    np.testing.assert_allclose(project(lens("equidistant", 0.01, -0.02, 0.003, -0.001), point)[0], np.array([x, y]) * fish)
    assert np.isnan(project(lens("none"), np.array([[0.1, 0.1, -1.0]]))).all()


def test_a_lens_that_folds_back_has_no_answer_there():
    barrel = lens("plumb_bob", -0.3, 0.0, 0.0, 0.0)  # r (1 - 0.3 r^2) turns back at r = 1 / sqrt(0.9)
    inside, outside = project(barrel, np.array([[1.0, 0, 1], [1.7, 0, 1]]))
    assert inside[0] == pytest.approx(0.7)
    assert np.isnan(outside).all()


def test_what_cannot_be_known_is_refused_with_its_reason(tmp_path):
    root = folder(tmp_path)
    dims = (replace(BODY.proprio.dims[0], unit="motor"), *BODY.proprio.dims[1:])
    with pytest.raises(DatasetError, match="'j1' is in 'motor', expected one of rad"):
        annotate(root, frames([[0, 0, 0]], body=replace(BODY, proprio=VectorSpec(dims=dims))))
    with pytest.raises(DatasetError, match="in none of 2 frames: it is behind the camera in 0 and outside the image in 2"):
        annotate(root, frames([[180, 0, 0]] * 2))
    with pytest.raises(DatasetError, match="calibrated for 64x48 images, these are 32x48"):
        annotate(root, frames([[0, 0, 0]], size=(48, 32)))
    with pytest.raises(DatasetError, match="calibrated neither"):
        annotate(root, frames([[0, 0, 0]], camera="side"))
    with pytest.raises(DatasetError, match="no dimension 'shoulder'"):
        annotate(folder(tmp_path, joints={}), frames([[0, 0, 0]]))
    with pytest.raises(SpecError, match="no link 'hand'"):
        annotate(folder(tmp_path, link="hand"), frames([[0, 0, 0]]))
    with pytest.raises(SpecError, match="pose must be a rotation"):
        CameraCalibration(**{**TOP, "pose": ((2, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))})
    (root / "arm.urdf").write_text("<!DOCTYPE x><robot/>")
    with pytest.raises(SpecError, match="no document type"):
        UrdfKinematics(root / "arm.urdf")


def test_the_version_is_of_the_document_and_the_urdf(tmp_path):
    before = open_points(AnnotateConfig(point_model=str(folder(tmp_path)))).version
    (tmp_path / "arm.urdf").write_text(URDF.replace("0.5 0 0", "0.6 0 0"))
    assert open_points(AnnotateConfig(point_model=str(tmp_path))).version != before
