"""How the images of an exported set are stored, by name, and whether that keeps every pixel."""

from __future__ import annotations

from collections.abc import Mapping

from components.data.lerobot.video import LOSSLESS, VideoCodec
from model_core.spec.errors import DatasetError

H264 = VideoCodec(
    encoder="libx264", pix_fmt="yuv420p", stored_pix_fmt="yuv420p", gop=2, options={"crf": "18", "preset": "medium", "bf": "0"}
)
AV1 = VideoCodec(
    encoder="libsvtav1", pix_fmt="yuv420p", stored_pix_fmt="yuv420p", codec_name="av1", gop=2, options={"crf": "30", "preset": "12"}
)
CODECS: Mapping[str, VideoCodec] = {"lossless": LOSSLESS, "h264": H264, "av1": AV1}
SENTENCES: Mapping[str, str] = {
    "lossless": "lossless: H.264 in RGB with quantiser 0, every pixel is kept",
    "h264": "lossy: H.264, 4:2:0, crf 18; colours are kept for 2 x 2 pixels together",
    "av1": "lossy: AV1, 4:2:0, crf 30, as LeRobot writes it; colours are kept for 2 x 2 pixels together",
}


def codec_of(name: str, sizes: Mapping[str, tuple[int, int]]) -> VideoCodec:
    """The codec of a name. sizes: camera -> (height, width). Raises `DatasetError` for an unknown one, or for sizes that it cannot hold."""
    if name not in CODECS:
        raise DatasetError(f"codec {name!r}: expected one of {', '.join(CODECS)}. Fix: name one of them with --codec")
    odd = [camera for camera, (height, width) in sizes.items() if height % 2 or width % 2]
    if odd and name != "lossless":
        height, width = sizes[odd[0]]
        raise DatasetError(
            f"codec {name!r} needs an even number of pixels in both directions, camera {odd[0]!r} has {width} x {height}. "
            "Fix: export it with --codec lossless"
        )
    return CODECS[name]
