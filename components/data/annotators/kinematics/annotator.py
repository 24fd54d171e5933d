"""The tool centre through a calibrated camera, as a point annotator: it looks at no image.

A frame whose point is behind the camera, beyond the lens or outside the image is not visible. Whether something hides the point is known
only where depth was recorded: confidence 1 where the surface there is not nearer, 0.5 where it is, 0.8 where there is no depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import Frames, GripperTrack, PointAnnotator
from components.data.annotators.kinematics.document import CameraCalibration, KinematicsFolder, read_kinematics
from components.data.annotators.kinematics.projection import project
from components.simulation.urdf import UrdfKinematics
from model_core.spec.embodiment import EmbodimentSpec
from model_core.spec.episode import CameraGeometry
from model_core.spec.errors import DatasetError

UNKNOWN, HIDDEN = 0.8, 0.5
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_RADIANS = {"rad": 1.0, "deg": np.pi / 180, "degree": np.pi / 180, "degrees": np.pi / 180}


@dataclass(frozen=True)
class KinematicPoints:
    """Where a camera sees the tool centre. occlusion_m: a recorded surface nearer than the tool centre by more than this hides it."""

    folder: KinematicsFolder
    occlusion_m: float = 0.1

    @property
    def version(self) -> str:
        """The document and the URDF."""
        return f"kinematics/1:{self.folder.digest[:24]}?occlusion={self.occlusion_m:g}"

    @property
    def needs_images(self) -> bool:
        """It needs no images."""
        return False

    @cached_property
    def urdf(self) -> UrdfKinematics:
        """The robot's links and joints."""
        return UrdfKinematics(self.folder.root / self.folder.document.tool_centre.urdf)

    def annotate(self, frames: Frames) -> GripperTrack:
        """The tool centre of every frame. Raises `DatasetError` with the reason where nothing is known or nothing is in the image."""
        pixels_T2, z_T = self._seen(frames, self._tool_T3(frames))
        height, width = frames.size
        u_T, v_T = pixels_T2.T
        with np.errstate(invalid="ignore"):
            inside_T = (u_T >= -0.5) & (u_T < width - 0.5) & (v_T >= -0.5) & (v_T < height - 0.5)
        if not inside_T.any():
            behind, outside = int((~(z_T > 0)).sum()), int((z_T > 0).sum())
            raise DatasetError(
                f"camera {frames.camera!r} sees the tool centre in none of {frames.count} frames: it is behind the camera in {behind} and "
                f"outside the image in {outside}. Fix: check the camera's pose and the tool centre, or choose another camera or annotator"
            )
        points_T2 = np.where(inside_T[:, None], pixels_T2, np.nan)
        return GripperTrack(points_T2=points_T2, visible_T=inside_T, confidence_T=self._confidence(frames, points_T2, z_T))

    def _tool_T3(self, frames: Frames) -> NDArray[np.float64]:
        """The tool centre (T, 3) in metres in the base."""
        tool = self.folder.document.tool_centre
        if tool.source == "recorded":
            if frames.tcp_T3 is None:
                raise DatasetError("no tool centre was recorded. Fix: name the state dimensions or a URDF in kinematics.yaml")
            return np.asarray(frames.tcp_T3, np.float64)
        if tool.source == "state":
            return np.stack([self._reading(frames, name, _METRES) for name in tool.dims], axis=1)
        link_T44 = self._poses(frames, tool.link)
        return link_T44[:, :3, :3] @ np.array(tool.offset_m, np.float64) + link_T44[:, :3, 3]

    def _poses(self, frames: Frames, link: str) -> NDArray[np.float64]:
        names = self.folder.document.tool_centre.joints
        readings = {
            joint.name: self._reading(frames, names.get(joint.name, joint.name), _RADIANS if joint.unit == "rad" else _METRES)
            for joint in self.urdf.needed(link)
        }
        poses_T44 = self.urdf.poses(link, readings)
        return poses_T44 if readings else np.tile(poses_T44, (frames.count, 1, 1))

    def _reading(self, frames: Frames, name: str, units: dict[str, float]) -> NDArray[np.float64]:
        """A state dimension (T,) in metres or radians. Raises `DatasetError` where it is not there or its unit says something else."""
        body = _body(frames)
        dims = {dim.name: place for place, dim in enumerate(body.proprio.dims)}
        if name not in dims or frames.proprio_TP is None:
            raise DatasetError(f"the state has no dimension {name!r}; it has {', '.join(dims)}. Fix: map the joint to its dimension")
        unit = body.proprio.dims[dims[name]].unit
        if unit not in units:
            raise DatasetError(
                f"state dimension {name!r} is in {unit!r}, expected one of {', '.join(units)}. "
                "Fix: state its unit in the embodiment file, or map readings that have one"
            )
        return np.asarray(frames.proprio_TP[:, dims[name]], np.float64) * units[unit]

    def _seen(self, frames: Frames, tool_T3: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels (T, 2) and distance along the axis (T,) of the tool centre."""
        calibration = self.folder.document.cameras.get(frames.camera)
        if calibration is None:
            return _by_recorded(frames, tool_T3)
        _check_size(frames, calibration)
        base_T44 = self._poses(frames, calibration.mounted_on) if calibration.mounted_on else np.eye(4)[None]
        camera_T44 = np.linalg.inv(base_T44 @ calibration.pose_44)
        seen_T3 = np.einsum("tij,tj->ti", np.broadcast_to(camera_T44, (len(tool_T3), 4, 4))[:, :3, :3], tool_T3) + camera_T44[:, :3, 3]
        return project(calibration, seen_T3), seen_T3[:, 2]

    def _confidence(self, frames: Frames, points_T2: NDArray[np.float64], z_T: NDArray[np.float64]) -> NDArray[np.float32]:
        visible_T = np.isfinite(points_T2[:, 0])
        confidence_T = np.where(visible_T, UNKNOWN, 0.0).astype(np.float32)
        if frames.depth_m_THW is not None:
            height, width = frames.size
            column_T, row_T = np.rint(np.nan_to_num(points_T2)).astype(np.int64).T
            surface_T = frames.depth_m_THW[np.arange(frames.count), np.clip(row_T, 0, height - 1), np.clip(column_T, 0, width - 1)]
            known_T = visible_T & (surface_T > 0)
            confidence_T[known_T] = np.where(surface_T[known_T] < z_T[known_T] - self.occlusion_m, HIDDEN, 1.0)
        return confidence_T


def _body(frames: Frames) -> EmbodimentSpec:
    if frames.body is None:
        raise DatasetError("the episode does not say what its state means. Fix: give its source an embodiment file")
    return frames.body


def _by_recorded(frames: Frames, tool_T3: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    geometry = frames.geometry
    if geometry is None:
        raise DatasetError(
            f"camera {frames.camera!r} is calibrated neither in kinematics.yaml nor by its episode. Fix: add its calibration"
        )
    _check_size(frames, geometry)
    projected_T3 = geometry.project(tool_T3)
    z_T = projected_T3[:, 2]
    return np.where(z_T[:, None] > 0, projected_T3[:, :2], np.nan), z_T


def _check_size(frames: Frames, calibration: CameraCalibration | CameraGeometry) -> None:
    if (calibration.height, calibration.width) != frames.size:
        raise DatasetError(
            f"camera {frames.camera!r} is calibrated for {calibration.width}x{calibration.height} images, these are "
            f"{frames.size[1]}x{frames.size[0]}. Fix: calibrate it for the recorded size"
        )


def open_points(cfg: AnnotateConfig) -> PointAnnotator:
    """The file or folder that `annotate.point_model` names."""
    return KinematicPoints(folder=read_kinematics(Path(cfg.point_model).expanduser()))
