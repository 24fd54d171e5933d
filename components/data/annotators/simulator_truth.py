"""The simulator's own truth as annotators: recorded metric depth, and the projected gripper tip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import NO_LABELS, AnnotateConfig
from components.data.annotators.interface import DepthAnnotator, Frames, GripperTrack, PointAnnotator
from model_core.spec.errors import DatasetError
from model_core.tokenization.depth.config import DepthScaling

_DEPTH, _POINTS = "recorded-depth/1", "tcp-projection/1"


def are_truth(versions: Mapping[str, str]) -> bool:
    """Whether labels are the simulator's own truth. versions: kind -> version of what labelled it, as a finished annotation names them."""
    depth, points = (versions.get(kind, "").partition("?")[0] for kind in ("depth", "points"))
    return depth in (_DEPTH, NO_LABELS) and points == _POINTS


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthDepth:
    """Recorded metric depth, as it is. near_m, far_m: range that the depth tokens resolve."""

    near_m: float = 0.4
    far_m: float = 3.0

    @property
    def version(self) -> str:
        """Changes when the meaning of the numbers does."""
        return f"{_DEPTH}?near={self.near_m:g}&far={self.far_m:g}"

    @property
    def scaling(self) -> DepthScaling:
        """Metres, seen as inverse distance."""
        return DepthScaling(kind="inverse", near_m=self.near_m, far_m=self.far_m)

    @property
    def needs_images(self) -> bool:
        """It needs no images."""
        return False

    def annotate(self, frames: Frames) -> NDArray[np.number]:
        """The recording itself."""
        if frames.depth_m_THW is None or len(frames.depth_m_THW) != frames.count:
            raise DatasetError("no depth was recorded with this camera; use depth_annotator 'depth_anything'")
        return frames.depth_m_THW


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthPoint:
    """The gripper tip through the camera's pinhole.

    Visible means: in front of the camera and inside the image. A recorded surface more than `occlusion_m` nearer than the tip
    hides it: its place is still known, with confidence 0.5.
    """

    occlusion_m: float = 0.1

    @property
    def version(self) -> str:
        """Changes when the meaning of the numbers does."""
        return f"{_POINTS}?occlusion={self.occlusion_m:g}"

    @property
    def needs_images(self) -> bool:
        """It needs no images."""
        return False

    def annotate(self, frames: Frames) -> GripperTrack:
        """Project every tip."""
        if frames.tcp_T3 is None or frames.geometry is None:
            raise DatasetError("no gripper tip or camera calibration was recorded; use point_annotator 'pointing'")
        geometry = frames.geometry
        if (geometry.height, geometry.width) != frames.size:
            raise DatasetError(
                f"the calibration is for {geometry.width}x{geometry.height} images, these are {frames.size[1]}x{frames.size[0]}"
            )
        projected_T3 = geometry.project(frames.tcp_T3)
        u_T, v_T, z_T = projected_T3.T
        inside_T = (u_T >= -0.5) & (u_T < geometry.width - 0.5) & (v_T >= -0.5) & (v_T < geometry.height - 0.5) & (z_T > 0)
        confidence_T = inside_T.astype(np.float32)
        if frames.depth_m_THW is not None:
            column_T = np.clip(np.rint(np.nan_to_num(u_T)), 0, geometry.width - 1).astype(np.int64)
            row_T = np.clip(np.rint(np.nan_to_num(v_T)), 0, geometry.height - 1).astype(np.int64)
            surface_T = frames.depth_m_THW[np.arange(frames.count), row_T, column_T]
            confidence_T[inside_T & (surface_T < z_T - self.occlusion_m)] = 0.5
        points_T2 = np.where(inside_T[:, None], projected_T3[:, :2], np.nan)
        return GripperTrack(points_T2=points_T2, visible_T=inside_T, confidence_T=confidence_T)


def open_depth(cfg: AnnotateConfig) -> DepthAnnotator:
    """The recorded depth; nothing of the recipe matters to it."""
    return TruthDepth()


def open_points(cfg: AnnotateConfig) -> PointAnnotator:
    """The projected gripper tip; nothing of the recipe matters to it."""
    return TruthPoint()
