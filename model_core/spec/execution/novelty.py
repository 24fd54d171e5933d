"""How far an observation is from what a policy was trained on, as a number of 0..1 that recorded frames have set the scale of.

A `NoveltyReference` holds a bounded sample of training frames and the distances to it of held-out frames, frames of episodes that the
policy was not trained on. The novelty of an observation is the share of held-out frames that are nearer to the sample than it is: for
frames like the held-out ones it is spread evenly over 0..1, for a scene that was never recorded it is 1.

A frame is compared by a thumbnail of each camera, in colour and with its brightness, since a policy sees both, and by its proprio. Each
camera, and all of proprio together, counts alike: its squared distance is divided by its variance over the training frames.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import SpecError, require
from model_core.spec.types import Observation

FORM = 1
SIDE = 8  # pixels of a thumbnail's side
FEATURES = 3 * SIDE * SIDE  # numbers of one thumbnail
MOST_BYTES = 480 * 2**10  # of the sample: the file stays below 512 KiB
MOST_FRAMES = 2048
MOST_DISTANCES = 1024
_POINTS = 4  # pixels of the image for a pixel of the thumbnail, each way: the cost does not grow with the image
_TYPES = {"form": "uint8", "thumbnails": "uint8", "proprio": "float32", "image_scale": "float32", "proprio_scale": "float32"}


def thumbnail(image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`FEATURES` numbers of an image of any size: 8 x 8 x 3, each the mean of 16 of its pixels."""
    points = SIDE * _POINTS
    height, width = image_HW3.shape[:2]
    rows, columns = (np.arange(points) * height) // points, (np.arange(points) * width) // points
    cells = image_HW3[rows[:, None], columns].reshape(SIDE, _POINTS, SIDE, _POINTS, 3)
    return ((cells.sum(axis=(1, 3), dtype=np.uint32) + _POINTS**2 // 2) // _POINTS**2).astype(np.uint8).reshape(FEATURES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoveltyReference:
    """Training frames (M), and how far held-out frames are from them.

    thumbnails_MVF: uint8 (M, V, 192), cameras in the contract's order. proprio_MP: float32. image_scale_V, proprio_scale_P: what
    differences are divided by. distances_Q: sorted distances of held-out frames. Raises `SpecError` where these do not fit together.
    """

    thumbnails_MVF: NDArray[np.uint8]
    proprio_MP: NDArray[np.float32]
    image_scale_V: NDArray[np.float32]
    proprio_scale_P: NDArray[np.float32]
    distances_Q: NDArray[np.float32]
    _mean_D: NDArray[np.float32] = field(init=False)
    _known_MD: NDArray[np.float32] = field(init=False)
    _squares_M: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        shape, distances_Q = self.thumbnails_MVF.shape, self.distances_Q
        require(len(shape) == 3 and shape[2] == FEATURES and 0 < shape[0] <= MOST_FRAMES, "expected thumbnails (M, V, 192)", got=shape)
        require(self.proprio_MP.ndim == 2 and len(self.proprio_MP) == shape[0], "expected proprio (M, P)", got=self.proprio_MP.shape)
        require(self.image_scale_V.shape == shape[1:2], "expected a scale for each camera", got=self.image_scale_V.shape)
        require(self.proprio_scale_P.shape == self.proprio_MP.shape[1:], "expected a scale for each dim", got=self.proprio_scale_P.shape)
        require(distances_Q.ndim == 1 and 0 < len(distances_Q) <= MOST_DISTANCES, "expected distances (Q,)", got=distances_Q.shape)
        numbers = (self.proprio_MP, self.image_scale_V, self.proprio_scale_P, distances_Q)
        require(all(bool(np.isfinite(one).all()) for one in numbers), "a number is NaN or inf")
        require(bool((self.image_scale_V > 0).all() and (self.proprio_scale_P > 0).all()), "a scale is not above zero")
        require(bool((distances_Q >= 0).all() and (np.diff(distances_Q) >= 0).all()), "the distances are not sorted")
        known_MD = self._scaled(self.thumbnails_MVF, self.proprio_MP)
        mean_D = known_MD.mean(axis=0)
        known_MD = np.ascontiguousarray(known_MD - mean_D)
        for name, value in (("_mean_D", mean_D), ("_known_MD", known_MD), ("_squares_M", (known_MD**2).sum(axis=1))):
            object.__setattr__(self, name, value)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], cameras: int, dims: int) -> NoveltyReference:
        """Read what `tensors` wrote. cameras, dims: of the contract's cameras and proprio. Raises `SpecError`."""
        wanted = {**_TYPES, "distances": "float32"}
        require(tensors.keys() == wanted.keys(), f"expected the tensors {', '.join(wanted)}", got=", ".join(sorted(tensors)))
        for name, dtype in wanted.items():
            require(tensors[name].dtype == dtype, f"expected {dtype} in {name}", got=tensors[name].dtype)
        form = tensors["form"].tolist()
        require(form == [FORM], f"expected form {FORM}", got=form)
        found = cls(
            thumbnails_MVF=tensors["thumbnails"],
            proprio_MP=tensors["proprio"],
            image_scale_V=tensors["image_scale"],
            proprio_scale_P=tensors["proprio_scale"],
            distances_Q=tensors["distances"],
        )
        got = (len(found.image_scale_V), len(found.proprio_scale_P))
        require(got == (cameras, dims), f"expected {cameras} cameras and {dims} dims of proprio, as the contract has", got=got)
        return found

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All of it by name, as a file holds it."""
        return {
            "form": np.array([FORM], np.uint8),
            "thumbnails": self.thumbnails_MVF,
            "proprio": self.proprio_MP,
            "image_scale": self.image_scale_V,
            "proprio_scale": self.proprio_scale_P,
            "distances": self.distances_Q,
        }

    def distance(self, thumbnails_VF: NDArray[np.uint8], proprio_P: NDArray[np.float32]) -> float:
        """To the nearest frame of the sample, in units of a training frame's spread."""
        seen_D = self._scaled(thumbnails_VF[None], proprio_P[None])[0] - self._mean_D
        nearest = (self._squares_M - 2 * (self._known_MD @ seen_D)).min() + seen_D @ seen_D
        return float(np.sqrt(max(float(nearest), 0.0)))

    def novelty(self, observation: Observation, cameras: Sequence[str]) -> float:
        """Of an observation in the contract's terms. cameras: their names, in the contract's order. Raises `SpecError`, `KeyError`."""
        if not np.isfinite(observation.proprio_P).all():
            raise SpecError("proprio holds NaN or inf")
        thumbnails_VF = np.stack([thumbnail(observation.images[name]) for name in cameras])
        found = self.distance(thumbnails_VF, np.asarray(observation.proprio_P, np.float32))
        return float(np.searchsorted(self.distances_Q, found)) / len(self.distances_Q)

    def _scaled(self, thumbnails_NVF: NDArray[np.uint8], proprio_NP: NDArray[np.float32]) -> NDArray[np.float32]:
        images_NVF = thumbnails_NVF.astype(np.float32) / self.image_scale_V[:, None]
        proprio_NP = proprio_NP.astype(np.float32) / self.proprio_scale_P
        return np.concatenate([images_NVF.reshape(len(images_NVF), -1), proprio_NP], axis=1)


def reference_of(
    train: tuple[NDArray[np.uint8], NDArray[np.float32]], held_out: tuple[NDArray[np.uint8], NDArray[np.float32]]
) -> NoveltyReference:
    """The reference that (thumbnails (N, V, 192), proprio (N, P)) of training frames and of held-out frames give; the same every time.

    The sample is spread evenly over the training frames. Raises `SpecError` where there is no frame.
    """
    require(len(train[0]) > 0 and len(held_out[0]) > 0, "a reference needs training frames and held-out frames")
    thumbnails_NVF, proprio_NP = train[0], np.asarray(train[1], np.float32)
    row_bytes = thumbnails_NVF[0].size + 4 * proprio_NP.shape[1]
    chosen = spread(len(thumbnails_NVF), max(1, min(MOST_FRAMES, MOST_BYTES // row_bytes)))
    spread_V = thumbnails_NVF.astype(np.float32).var(axis=0).sum(axis=1)
    floor_P = np.maximum(1e-3 * np.abs(proprio_NP).max(axis=0), 1e-6)  # a reading that never changed
    scale_P = np.maximum(proprio_NP.std(axis=0), floor_P) * np.sqrt(max(proprio_NP.shape[1], 1))
    sample = NoveltyReference(
        thumbnails_MVF=thumbnails_NVF[chosen],
        proprio_MP=proprio_NP[chosen],
        image_scale_V=np.sqrt(np.maximum(spread_V, FEATURES / 4)).astype(np.float32),  # a camera that sees no change still rounds
        proprio_scale_P=scale_P.astype(np.float32),
        distances_Q=np.zeros(1, np.float32),
    )
    found = np.sort([sample.distance(one_VF, proprio_P) for one_VF, proprio_P in zip(*held_out, strict=True)]).astype(np.float32)
    return replace(sample, distances_Q=found[spread(len(found), MOST_DISTANCES)])


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` places of `count`, evenly spread."""
    kept = min(count, most)
    return ((np.arange(kept) + 0.5) * count / max(kept, 1)).astype(np.int64)


def novelty_of_episode(measured: Iterable[float | None]) -> float | None:
    """The median over an episode's decisions; None where none was measured. Single odd frames, such as a hand in view, do not move it."""
    found = [value for value in measured if value is not None]
    return statistics.median(found) if found else None
