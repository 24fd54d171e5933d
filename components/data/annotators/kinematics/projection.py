"""Points in front of a camera -> pixels, with the lens models of OpenCV and ROS. Where a polynomial turns back, there is no answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.data.annotators.kinematics.document import CameraCalibration

_WIDEST = 20.0  # tangent of the greatest angle to the axis that is looked at


def project(calibration: CameraCalibration, points_T3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (T, 3) in the camera's axes, metres -> (T, 2) pixels; NaN behind the camera and where the distortion is not invertible."""
    z_T = points_T3[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        flat_T2 = np.where(z_T[:, None] > 0, points_T3[:, :2] / z_T[:, None], np.nan)
    radius_T = np.linalg.norm(flat_T2, axis=1)
    flat_T2[~(radius_T < _limit(calibration))] = np.nan
    bent_T2 = _distorted(calibration, flat_T2)
    return bent_T2 * (float(calibration.fx), float(calibration.fy)) + (float(calibration.cx), float(calibration.cy))


def _radial(calibration: CameraCalibration, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factor by which a point at this distance from the axis (tangent of its angle) is moved outwards."""
    k = [float(number) for number in calibration.coefficients]
    r2 = radius * radius
    if calibration.distortion == "equidistant":
        angle = np.arctan(radius)
        a2 = angle * angle
        bent = angle * (1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))))
        return np.divide(bent, radius, out=np.ones_like(radius), where=radius > 1e-12)
    if calibration.distortion == "none":
        return np.ones_like(radius)
    upper = 1 + r2 * (k[0] + r2 * (k[1] + r2 * (k[4] if len(k) > 4 else 0.0)))
    return upper / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7]))) if calibration.distortion == "rational_polynomial" else upper


def _distorted(calibration: CameraCalibration, flat_T2: NDArray[np.float64]) -> NDArray[np.float64]:
    bent_T2 = flat_T2 * _radial(calibration, np.linalg.norm(flat_T2, axis=1))[:, None]
    if calibration.distortion in ("plumb_bob", "rational_polynomial"):
        p1, p2 = (float(number) for number in calibration.coefficients[2:4])
        x_T, y_T = flat_T2.T
        r2_T = x_T * x_T + y_T * y_T
        bent_T2 += np.stack([2 * p1 * x_T * y_T + p2 * (r2_T + 2 * x_T**2), p1 * (r2_T + 2 * y_T**2) + 2 * p2 * x_T * y_T], axis=1)
    return bent_T2


def _limit(calibration: CameraCalibration) -> float:
    """Up to which distance from the axis a farther point is also seen farther out. Beyond that a polynomial folds back into the image."""
    radius = np.linspace(0.0, _WIDEST, 4001)
    grows = np.diff(radius * _radial(calibration, radius)) > 0
    return _WIDEST if grows.all() else float(radius[int(np.argmin(grows))])
