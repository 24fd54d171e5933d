"""kinematics.yaml: where the tool centre of a robot comes from, and how its cameras stand and distort."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.documents import Number, from_document
from model_core.spec.errors import SpecError, require

FORMAT = 1
FILE = "kinematics.yaml"
SOURCES = ("recorded", "state", "urdf")
# model -> how many coefficients it may have, in OpenCV's order
DISTORTIONS = {"none": (0,), "plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}
_ROTATION_ERROR = 1e-3

Row = tuple[Number, Number, Number, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCentre:
    """Where the tool centre comes from.

    source: "recorded" (the episode's own column), "state" (three dimensions of the state, named in `dims` as x, y, z) or "urdf" (the link
    `link` of the file `urdf` beside this one). joints: joint of the URDF -> dimension of the state; empty: equal names. offset_m: of the
    tool centre in the axes of the link.
    """

    source: str
    dims: tuple[str, ...] = ()
    urdf: str = ""
    link: str = ""
    joints: dict[str, str] = field(default_factory=dict[str, str])
    offset_m: tuple[Number, Number, Number] = (0, 0, 0)

    def __post_init__(self) -> None:
        require(self.source in SOURCES, f"tool_centre.source must be one of {', '.join(SOURCES)}", got=self.source)
        require(self.source != "state" or len(self.dims) == 3, "tool_centre.dims must name x, y and z", got=self.dims)
        require(self.source != "urdf" or bool(self.urdf and self.link), "tool_centre needs urdf and link", got=(self.urdf, self.link))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraCalibration:
    """One camera. fx, fy, cx, cy: pixels of images of width x height. distortion: `DISTORTIONS`, coefficients in OpenCV's order.

    pose: 4x4, the camera in the base in metres, OpenCV axes (x right, y down, z forward); for a camera that moves, in the link `mounted_on`
    of the URDF. calibrated_by: a name and how, for people.
    """

    width: int
    height: int
    fx: Number
    fy: Number
    cx: Number
    cy: Number
    pose: tuple[Row, Row, Row, Row]
    distortion: str = "none"
    coefficients: tuple[Number, ...] = ()
    mounted_on: str = ""
    calibrated_by: str = ""

    def __post_init__(self) -> None:
        require(self.width > 1 and self.height > 1 and self.fx > 0 and self.fy > 0, "a calibration needs a size and focal lengths above 0")
        require(self.distortion in DISTORTIONS, f"distortion must be one of {', '.join(DISTORTIONS)}", got=self.distortion)
        counts = DISTORTIONS[self.distortion]
        require(len(self.coefficients) in counts, f"{self.distortion} has {counts} coefficients", got=len(self.coefficients))
        require(all(math.isfinite(number) for number in self.coefficients), "coefficients must be finite numbers")
        rotation_33 = self.pose_44[:3, :3]
        is_rotation = np.abs(rotation_33 @ rotation_33.T - np.eye(3)).max() < _ROTATION_ERROR and np.linalg.det(rotation_33) > 0
        require(
            bool(is_rotation) and self.pose[3] == (0, 0, 0, 1), "pose must be a rotation and a place, with last row 0 0 0 1", got=self.pose
        )

    @property
    def pose_44(self) -> NDArray[np.float64]:
        """The camera in the base, or in the link that carries it."""
        return np.array(self.pose, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class KinematicsFile:
    """The whole document. cameras: a camera that is not named here has the calibration that its episode recorded."""

    format: int
    tool_centre: ToolCentre
    cameras: dict[str, CameraCalibration] = field(default_factory=dict[str, CameraCalibration])

    def __post_init__(self) -> None:
        require(self.format == FORMAT, f"{FILE} has format {FORMAT}", got=self.format)
        carried = [name for name, camera in self.cameras.items() if camera.mounted_on]
        require(not carried or bool(self.tool_centre.urdf), "a camera that moves with a link needs tool_centre.urdf", got=carried)


@dataclass(frozen=True, slots=True, kw_only=True)
class KinematicsFolder:
    """The document, its folder, and a digest of all that decides an answer."""

    root: Path
    document: KinematicsFile
    digest: str


def read_kinematics(source: Path) -> KinematicsFolder:
    """Read FOLDER/kinematics.yaml, or the file itself. Raises `SpecError` naming file and field."""
    import yaml

    path = source / FILE if source.is_dir() else source
    try:
        text = path.read_text(encoding="utf-8")
        document = from_document(KinematicsFile, yaml.safe_load(text), where=path.name)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(
            f"{path} cannot be read: {error}. Fix: name a folder with {FILE} as annotate.point_model (docs/data.md, Traces from kinematics)"
        ) from error
    total = hashlib.sha256(text.encode())
    if document.tool_centre.urdf:
        urdf = path.parent / document.tool_centre.urdf
        if not urdf.is_file():
            raise SpecError(f"{path.name}: tool_centre.urdf {document.tool_centre.urdf!r} is not beside it. Fix: put the file there")
        total.update(urdf.read_bytes())
    return KinematicsFolder(root=path.parent, document=document, digest=total.hexdigest())
