"""Recorded episodes <-> bytes: lossless, checked, and never a pickle.

    episode = b"ACTWEPIS" | version byte | SHA-256 of the rest (32 bytes) | msgpack map

Long arrays are stored as differences along the time axis, deflated; equal episodes give equal bytes. `WireError` is the
only exception that leaves `decode_episode`.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_core.spec.embodiment import document_of, embodiment_from_json
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.errors import WireError
from model_core.spec.protocol.packing import (
    Kind,
    array,
    checked_array,
    document,
    expect,
    flag,
    from_document,
    mapping,
    nested,
    optional,
    text,
    to_document,
    whole,
)
from model_core.spec.protocol.strict_msgpack import Buffer, pack, unpack

EPISODE_MAGIC = b"ACTWEPIS"
EPISODE_VERSION = 1
MAX_EPISODE_BYTES = 512 * 2**20
BEING_RECORDED = ".recording"  # ending of the file that a cell keeps locked in a folder while it records into it


def encode_episode(episode: Episode) -> bytes:
    """A recorded episode -> bytes, lossless; equal episodes give equal bytes."""
    body = pack(b"", to_document(episode, _EPISODE))
    return EPISODE_MAGIC + bytes([EPISODE_VERSION]) + hashlib.sha256(body).digest() + body


def decode_episode(data: bytes, *, max_bytes: int = MAX_EPISODE_BYTES, images: bool = True, depth: bool = True) -> Episode:
    """Bytes -> the episode. Without images or depth those mappings are empty, which makes it cheap; the checksum covers them all the same.

    Raises WireError naming what is wrong: magic, version, truncation, flipped bits, a field.
    """
    start = len(EPISODE_MAGIC) + 1 + 32
    if len(data) > max_bytes:
        raise WireError(f"a recorded episode has at most {max_bytes} bytes, got {len(data)}")
    if len(data) < start or not data.startswith(EPISODE_MAGIC):
        raise WireError("this is not a recorded episode: it does not begin with the episode mark")
    if data[len(EPISODE_MAGIC)] != EPISODE_VERSION:
        raise WireError(f"recorded with episode format {data[len(EPISODE_MAGIC)]}, this version reads {EPISODE_VERSION}")
    if hashlib.sha256(memoryview(data)[start:]).digest() != bytes(data[start - 32 : start]):
        raise WireError("the recorded episode is damaged: its checksum does not match (truncated or changed)")
    document = unpack(data, start)
    left_out = [name for name, is_read in (("images", images), ("depth_m", depth)) if not is_read and name in document]
    return cast(Episode, from_document(Episode, _EPISODE, {**document, **{name: {} for name in left_out}}))


def episode_digest(data: bytes) -> str:
    """SHA-256 (hex, 64) of what a recorded episode holds, as its bytes state it; `decode_episode` proves it."""
    return data[len(EPISODE_MAGIC) + 1 : len(EPISODE_MAGIC) + 33].hex()


def _series(dtype: str, ndim: int) -> Kind:
    """An array whose axis 0 is time."""

    def write(value: Any) -> dict[str, Any]:
        checked = np.asarray(value)
        expect(
            checked.dtype == np.dtype(dtype) and checked.ndim == ndim, f"a {ndim}-axis {dtype} array", f"{checked.dtype} {checked.shape}"
        )
        shape = [int(n) for n in checked.shape]
        return {"dtype": dtype, "shape": shape, "data": _deflate_series(checked), "packing": "delta-deflate"}

    def read(value: Any) -> NDArray[Any]:
        shape, size, data = checked_array(value, dtype, ndim, "delta-deflate")
        return _inflate_series(data, dtype, shape, size)

    return Kind(write, read)


def _flags() -> Kind:
    """Bool (T,), stored as bytes 0 and 1."""
    stored = array("uint8", 1)

    def write(value: Any) -> dict[str, Any]:
        checked = np.asarray(value)
        expect(checked.dtype == np.bool_, "a bool array", checked.dtype)
        return stored.write(checked.astype(np.uint8))

    def read(value: Any) -> NDArray[np.bool_]:
        found = stored.read(value)
        expect(bool((found <= 1).all()), "flags of 0 and 1", found.max(initial=0))
        return found.astype(bool)

    return Kind(write, read)


def _deflate_series(series: NDArray[Any]) -> bytes:
    # The camera stands still, so most of an image equals the one before: differences deflate several times better.
    # They are taken on the bits (integers that wrap), therefore floats come back exactly, NaN included.
    bits = np.ascontiguousarray(series, series.dtype.newbyteorder("<")).view(_bits_of(series.dtype))
    changes = bits.copy()
    changes[1:] -= bits[:-1]
    return zlib.compress(changes.tobytes(), level=3)


def _inflate_series(data: Buffer, dtype: str, shape: list[int], size: int) -> NDArray[Any]:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, size + 1)  # one byte more than promised is enough to know that it lies
    except zlib.error as error:
        raise WireError(f"array data does not inflate: {error}") from error
    expect(len(raw) == size and inflater.eof and not inflater.unused_data, f"{size} bytes when inflated", len(raw))
    changes = np.frombuffer(raw, _bits_of(np.dtype(dtype))).reshape(shape)
    return np.cumsum(changes, axis=0, dtype=changes.dtype).view(np.dtype(dtype).newbyteorder("<"))


def _bits_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"<u{dtype.itemsize}")


_GEOMETRY = {
    "width": whole(1, 2**16),
    "height": whole(1, 2**16),
    "intrinsics_33": array("float64", 2),
    "world_to_camera_44": array("float64", 2),
}
_PROVENANCE = {
    "producer": text(),
    "cell": text(),
    "seed": whole(-(2**53)),
    "versions": mapping(text()),
    "render": mapping(text()),
}
_EPISODE = {
    "episode_id": text(),
    "embodiment": text(),
    "task": text(),
    "instruction": text(4000),
    "success": optional(flag()),
    "provenance": nested(Provenance, _PROVENANCE),
    "images": mapping(_series("uint8", 4), limit=16),
    "depth_m": mapping(_series("float32", 3), limit=16),
    "geometry": mapping(nested(CameraGeometry, _GEOMETRY), limit=16),
    "proprio_TP": array("float32", 2),
    "actions_TA": array("float32", 2),
    "executed_TA": array("float32", 2),
    "timestamps_T": array("float64", 1),
    "tcp_T3": optional(array("float32", 2)),
    "body": optional(document(document_of, embodiment_from_json)),
    "intervention_T": optional(_flags()),
}
