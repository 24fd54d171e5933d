"""Pictures of a running cell, for a browser: encoded once for all readers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from flows.web.http.endpoint import Content, not_found
from model_core.spec.protocol.image_codec import encode_image

_LOSSLESS_BELOW = 128 * 128  # pixels: small pictures are enlarged on the page, where JPEG shows


@lru_cache(maxsize=64)
def encoded_picture(pixels: bytes, width: int, height: int) -> Content:
    """RGB bytes as PNG where they are few, else as JPEG."""
    encoding = "png" if width * height <= _LOSSLESS_BELOW else "jpeg"
    image = encode_image(np.frombuffer(pixels, np.uint8).reshape(height, width, 3), encoding)
    return Content(data=image.data, media_type=f"image/{encoding}")


@lru_cache(maxsize=64)
def depth_picture(codes: tuple[int, ...], digest: str, codebooks: tuple[Path, ...]) -> Content:
    """Decoded depth as PNG. Raises Refused (404) where none of the folders holds the codec of that digest."""
    from components.deployment.audit_view import decode_depth
    from components.drawing.images import depth_image, png_bytes

    depth_HW = decode_depth(np.array(codes, np.int64), digest, codebooks)
    if depth_HW is None:
        raise not_found(
            f"the depth codec {digest[:12]}", "put the model's bundle or checkpoint into this home; the codes are shown meanwhile"
        )
    return Content(data=png_bytes(depth_image(depth_HW)), media_type="image/png")
