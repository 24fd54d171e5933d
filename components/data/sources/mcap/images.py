"""Image messages as arrays: raw and compressed images of ROS 2 (sensor_msgs) and Foxglove, RGB, never with a guessed order of colours."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.sources.mcap.values import members_of, value_at
from model_core.spec.errors import DatasetError

# encoding -> (channels, place of red, green and blue in a pixel)
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
COMPRESSED = ("sensor_msgs/msg/CompressedImage", "foxglove.CompressedImage")
RAW = ("sensor_msgs/msg/Image", "foxglove.RawImage")
IMAGE_SCHEMAS = (*COMPRESSED, *RAW)
_FORMATS = ("JPEG", "PNG", "WEBP")


def decode_image(message: Any, schema: str, *, encoding: str = "") -> NDArray[np.uint8]:
    """An image message -> (H, W, 3) uint8, RGB. encoding: of the mapping; "" takes the message's own.

    Raises `DatasetError` for a schema that is no image, an encoding whose colours are not known, or bytes that are no whole image.
    """
    if schema in COMPRESSED:
        return _decompressed(message)
    if schema in RAW:
        return _pixels(message, encoding or str(value_at(message, "encoding")))
    raise DatasetError(f"{schema} is no image: expected one of {', '.join(IMAGE_SCHEMAS)}. Fix: name another topic in the mapping")


def _bytes_of(message: Any) -> bytes:
    data = value_at(message, "data")
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else bytes(data)
    except ValueError as error:
        raise DatasetError(f"the image's data is no base64: {error}") from error


def _decompressed(message: Any) -> NDArray[np.uint8]:
    from PIL import Image

    stated = str(value_at(message, "format"))
    if "compressedDepth" in stated:
        raise DatasetError(f"format {stated!r} holds distances, not colours. Fix: map a topic of colour images to this camera")
    try:
        with Image.open(io.BytesIO(_bytes_of(message)), formats=_FORMATS) as image:
            if image.mode not in ("RGB", "L", "RGBA", "P"):
                raise DatasetError(f"an image of mode {image.mode}, format {stated!r}: expected 8 bits a colour")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"an image of format {stated!r} cannot be decoded: {error}; expected {', '.join(_FORMATS)}") from error


def _pixels(message: Any, encoding: str) -> NDArray[np.uint8]:
    if encoding not in ENCODINGS:
        raise DatasetError(
            f"encoding {encoding!r}: expected one of {', '.join(ENCODINGS)}. Fix: where the order of colours is known, "
            "write it in the mapping (cameras.NAME.encoding)"
        )
    channels, order = ENCODINGS[encoding]
    height, width = int(value_at(message, "height")), int(value_at(message, "width"))
    step, data = int(value_at(message, "step")) if "step" in members_of(message) else width * channels, _bytes_of(message)
    if min(height, width) < 1 or step < width * channels or len(data) < step * (height - 1) + width * channels:
        raise DatasetError(f"an image of {width}x{height} {encoding} with rows of {step} bytes has {len(data)} bytes")
    whole = np.frombuffer(data.ljust(step * height, b"\0"), np.uint8, count=step * height).reshape(height, step)
    return np.ascontiguousarray(whole[:, : width * channels].reshape(height, width, channels)[:, :, list(order)])
