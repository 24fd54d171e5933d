"""Compressed images: opened off the event loop, and never before their size is known to be allowed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.conversion import accepted_encodings
from model_core.spec.errors import ContractError, WireError
from model_core.spec.protocol.wire import MAX_IMAGE_PIXELS, EncodedImage
from model_core.spec.types import Observation

_FORMATS = {"jpeg": "JPEG", "png": "PNG"}


def decode_image(image: EncodedImage, *, max_pixels: int = MAX_IMAGE_PIXELS) -> NDArray[np.uint8]:
    """The image, uint8 (H, W, 3) RGB. The size in the file's head is compared before a pixel is decoded.

    Raises WireError for what is not such an image, is of another size or format than promised, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    height, width, _ = image.shape
    if height * width > max_pixels:
        raise WireError(f"an image has at most {max_pixels} pixels, this one promises {height}x{width}")
    try:
        with Image.open(io.BytesIO(image.data), formats=[_FORMATS[image.encoding]]) as opened:
            if opened.size != (width, height) or opened.mode != "RGB":
                raise WireError(f"the image is {opened.size[1]}x{opened.size[0]} {opened.mode}, promised was {height}x{width} RGB")
            pixels_HW3 = np.asarray(opened, np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"not a readable {image.encoding} image ({type(error).__name__})") from error
    return pixels_HW3


def encode_image(pixels_HW3: NDArray[np.uint8], encoding: str, *, quality: int = 90) -> EncodedImage:
    """An image on its way: "png" without loss, "jpeg" of `quality`. pixels_HW3: uint8 RGB."""
    from PIL import Image

    if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3:
        raise WireError(f"an image is uint8 (H, W, 3), got {pixels_HW3.dtype} {pixels_HW3.shape}")
    sink = io.BytesIO()
    options = {"quality": quality} if encoding == "jpeg" else {"compress_level": 1}
    Image.fromarray(pixels_HW3).save(sink, format=_FORMATS[encoding], **options)
    height, width, _ = pixels_HW3.shape
    return EncodedImage(encoding=encoding, data=sink.getvalue(), shape=(height, width, 3))


def with_decoded(observation: Observation, encoded: Mapping[str, EncodedImage], body: EmbodimentSpec) -> Observation:
    """The observation with its compressed cameras opened, in the order of `body`. Slow: keep it off the event loop.

    encoded: by the policy's names. Raises ContractError for a camera that `body` lacks, that came twice, or whose encoding
    the contract does not take; WireError for a bad image.
    """
    if not encoded:
        return observation
    cameras = {camera.name: camera for camera in body.cameras}
    images = dict(observation.images)
    for name, image in encoded.items():
        if name not in cameras or name in images:
            raise ContractError(f"camera {name!r}: {'sent raw and encoded' if name in images else 'the contract has no such camera'}")
        camera = cameras[name]
        if image.encoding not in accepted_encodings(camera):
            raise ContractError(f"camera {name!r}: {image.encoding} is not one of {', '.join(accepted_encodings(camera))}")
        pixels_HW3 = decode_image(image, max_pixels=camera.width * camera.height)
        images[name] = pixels_HW3 if camera.color == "rgb" else np.ascontiguousarray(pixels_HW3[..., ::-1])
    order = list(cameras)
    return replace(observation, images=dict(sorted(images.items(), key=lambda item: order.index(item[0]) if item[0] in order else 99)))
