"""What labelling asks of depth and pointing models, so that a simulator's truth and a network are exchanged by a name.

A label is never silently empty: an annotator either answers for every frame or names the frame that it could not answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_core.spec.embodiment import EmbodimentSpec
from model_core.spec.episode import CameraGeometry, Episode
from model_core.spec.errors import DatasetError, require
from model_core.tokenization.depth.config import DepthScaling


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """One camera's view of one episode, and what a simulator knows beside it.

    images_THW3: uint8 RGB (empty where no annotator needs images). depth_m_THW: metres. tcp_T3: gripper tip, world metres. camera,
    episode_id: whose these are. proprio_TP, body: the state, and what its dimensions mean; neither enters the digest, which is of what
    networks look at.
    """

    images_THW3: NDArray[np.uint8]
    size: tuple[int, int]
    depth_m_THW: NDArray[np.float32] | None = None
    tcp_T3: NDArray[np.float32] | None = None
    geometry: CameraGeometry | None = None
    count: int = 0
    camera: str = ""
    episode_id: str = ""
    proprio_TP: NDArray[np.float32] | None = None
    body: EmbodimentSpec | None = None

    def digest(self) -> str:
        """SHA-256 of images, depth, tip and geometry: two episodes with equal frames may share the answers of networks."""
        total = hashlib.sha256(f"{self.count}{self.size}".encode())
        geometry = () if self.geometry is None else (self.geometry.intrinsics_33, self.geometry.world_to_camera_44)
        for array in (self.images_THW3, self.depth_m_THW, self.tcp_T3, *geometry):
            present = np.zeros(0) if array is None else np.ascontiguousarray(array)
            total.update(f"{present.dtype}{present.shape}".encode() + present.tobytes())
        return total.hexdigest()


class LabelledEpisodes(Protocol):
    """What is labelled: any source of episodes, or a list of them in tests."""

    def episode(self, index: int, *, images: bool, depth: bool) -> Episode:
        """Episode `index`; images and depth only when asked for."""
        ...


def frames_of(episode: Episode, camera: str, size: tuple[int, int], body: EmbodimentSpec | None = None) -> Frames:
    """The frames of one camera; `size` is (height, width), known even where images were not read. body: of the source, where it says it."""
    return Frames(
        images_THW3=episode.images.get(camera, np.zeros((0, *size, 3), np.uint8)),
        size=size,
        depth_m_THW=episode.depth_m.get(camera),
        tcp_T3=episode.tcp_T3,
        geometry=episode.geometry.get(camera),
        count=len(episode),
        camera=camera,
        episode_id=episode.episode_id,
        proprio_TP=episode.proprio_TP,
        body=body or episode.body,
    )


def body_of(source: object) -> EmbodimentSpec | None:
    """What a source of episodes says of its body; None for a plain set, which only an annotator that needs it refuses."""
    try:
        return getattr(source, "embodiment", None)
    except DatasetError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GripperTrack:
    """Where the gripper is in the image. points_T2: (x, y) pixels, NaN where `visible_T` is False. confidence_T: 0..1.

    by_T: who corrected each frame's point, "" where the annotator's own stands; empty where no person looked. trace_T52: whole traces
    (int16, -1 after the last point and in a frame without one), where the annotator has them; they stand until a point is changed.
    """

    points_T2: NDArray[np.float64]
    visible_T: NDArray[np.bool_]
    confidence_T: NDArray[np.float32]
    by_T: tuple[str, ...] = ()
    trace_T52: NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        count = len(self.visible_T)
        require(self.points_T2.shape == (count, 2) and self.confidence_T.shape == (count,), "a gripper track needs one point per frame")
        require(len(self.by_T) in (0, count), "a gripper track names who corrected it for every frame or for none", got=len(self.by_T))
        require(bool(np.isfinite(self.points_T2[self.visible_T]).all()), "a visible gripper point holds NaN or inf")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageAnswers:
    """What an annotator answers about N images of one size.

    columns: arrays of N entries: "depth" (H, W) uint8 each of a depth annotator; "points" (x, y), "visible" and "confidence" of a point
    annotator. errors: place of an image without an answer -> why; its entries mean nothing.
    """

    columns: Mapping[str, NDArray[Any]]
    errors: Mapping[int, str] = field(default_factory=dict[int, str])


@runtime_checkable
class ImageAnnotator(Protocol):
    """An annotator that looks at single images and nothing else, so that images of several episodes are answered together.

    `DepthAnnotator` and `PointAnnotator` that are one too are asked this way, and may run in several processes.
    """

    def answer_images(self, images_NHW3: NDArray[np.uint8]) -> ImageAnswers:
        """An answer per image, the same whatever else is in the batch; what cannot be answered is an error with its reason."""
        ...


class DepthAnnotator(Protocol):
    """Distance of every pixel."""

    @property
    def version(self) -> str:
        """Name, digest of weights and parameters: whatever changes an answer changes this."""
        ...

    @property
    def scaling(self) -> DepthScaling:
        """What the numbers of `annotate` mean."""
        ...

    @property
    def needs_images(self) -> bool:
        """Whether it needs images; then answers are worth keeping."""
        ...

    def annotate(self, frames: Frames) -> NDArray[np.number]:
        """(T, H, W): metres, or 8-bit relative disparity, as `scaling` states. Raises `DatasetError` where it has no answer."""
        ...


class PointAnnotator(Protocol):
    """The gripper's place in every frame."""

    @property
    def version(self) -> str:
        """Name, digest of weights and parameters: whatever changes an answer changes this."""
        ...

    @property
    def needs_images(self) -> bool:
        """Whether it needs images; then answers are worth keeping."""
        ...

    def annotate(self, frames: Frames) -> GripperTrack:
        """A point per frame, or not visible. Raises `DatasetError` where what it needs was not recorded."""
        ...
