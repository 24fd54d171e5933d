"""A drawn line as a person hands it over: points on a camera's image, as JSON or as words.

    {"points": [[12, 60], [40, 48], [61, 20]]}      pixels (x, y), from the gripper on
    12,60 40,48 61,20                               the same, as it is typed

JSON may say more: "camera" (where it is not the one on which the policy takes a trace), "author", "ttl_ms" (how long it may steer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import SpecError
from model_core.spec.narrowing import is_dict
from model_core.spec.protocol.wire import SteeringInput

MAX_DRAWING_BYTES = 65_536
_MORE = ("author", "camera", "ttl_ms")
_TTL_MS = 60_000.0
_MOST_TTL_MS = 1e9  # as `wire` has it


def read_drawing(content: bytes, body: EmbodimentSpec, camera: str, *, revision: int = 1) -> SteeringInput:
    """A drawing from a file. camera: where the file names none ("": the body's first). Raises SpecError saying what is wrong with it."""
    expected = 'expected {"points": [[x, y], ...]} in pixels'
    if len(content) > MAX_DRAWING_BYTES:
        raise SpecError(f"more than {MAX_DRAWING_BYTES} bytes; {expected}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"not JSON ({error}); {expected}") from error
    if not is_dict(document) or "points" not in document or set(document) - {"points", *_MORE}:
        raise SpecError(f"{expected}, and at most {', '.join(_MORE)} beside them, got {str(document)[:100]}")
    return drawing(document["points"], body, str(document.get("camera", "")) or camera, revision=revision, more=document)


def typed_points(text: str) -> list[tuple[float, float]]:
    """Points as they are typed: "12,60 40,48". Raises SpecError."""
    try:
        return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]
    except ValueError as error:
        raise SpecError(f"{text[:100]!r} is no line; type points as x,y with spaces between them, such as '12,60 40,48 61,20'") from error


def drawing(
    points: object, body: EmbodimentSpec, camera: str, *, revision: int = 1, more: Mapping[str, Any] | None = None
) -> SteeringInput:
    """Points (x, y) on a camera's image as a message. more: "author", "ttl_ms". Raises SpecError."""
    cameras = {spec.name: spec for spec in body.cameras}
    spec = cameras.get(camera) if camera else body.cameras[0]
    if spec is None:
        raise SpecError(f"there is no camera {camera!r}; this body has {', '.join(cameras)}")
    try:
        points_N2 = np.asarray(points, np.float32)
        ttl_ms = float((more or {}).get("ttl_ms", _TTL_MS))
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"points and ttl_ms are numbers: {error}") from error
    if points_N2.ndim != 2 or points_N2.shape[1] != 2 or not len(points_N2) or not np.isfinite(points_N2).all():
        raise SpecError(f"points are pairs (x, y) of numbers, at least one, got {str(points)[:100]}")
    if not 0 < ttl_ms <= _MOST_TTL_MS:  # a message with another one cannot be sent, and every question carries the drawing
        raise SpecError(f"ttl_ms is a number above 0 and at most {_MOST_TTL_MS:g}, got {ttl_ms:g}")
    outside_N = ((points_N2 < 0) | (points_N2 >= (spec.width, spec.height))).any(axis=1)
    if outside_N.any():
        raise SpecError(f"point {points_N2[outside_N][0].tolist()} lies outside of {spec.name}'s {spec.width} x {spec.height} pixels")
    return SteeringInput(
        points_N2=points_N2,
        image=spec.name,
        width=spec.width,
        height=spec.height,
        revision=revision,
        author=str((more or {}).get("author", ""))[:100].encode("utf-8", "replace").decode(),  # JSON may name halves of a character
        ttl_ms=ttl_ms,
    )
