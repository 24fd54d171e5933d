"""Packs: episodes of a set, decoded, in a few safetensors files to which more are added and of which none is ever changed.

    FOLDER/<number>-<first digits of its SHA-256>.safetensors
        images/<camera> (N,H,W,3) uint8, depth_m/<camera> (N,H,W), proprio, actions, executed, timestamps, tcp, intervention: rows of
        several episodes; metadata "episodes": what is known of each, and its rows

One more episode is one more file, so a version costs the bytes of what is new. Equal episodes in equal order give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.artifacts.abandoned import remove_abandoned_writes
from components.data.packing.mapped import MappedTensors
from components.data.packing.tensor_file import TensorFile
from model_core.spec.contract import embodiment_from_json
from model_core.spec.documents import to_document
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

IMAGES, DEPTH = "images/", "depth_m/"
_ARRAYS = {"proprio": "proprio_TP", "actions": "actions_TA", "executed": "executed_TA", "timestamps": "timestamps_T"}
_ARRAYS |= {"tcp": "tcp_T3", "intervention": "intervention_T"}
_WORDS = ("episode_id", "embodiment", "task", "instruction", "success")


class PackTensors(Protocol):
    """A pack's tensors by row, wherever the file is."""

    header: TensorFile

    def rows(self, name: str, first: int, count: int) -> NDArray[Any]:
        """Rows first .. first+count-1 of a tensor."""
        ...


@dataclass(slots=True, kw_only=True)
class PackWriter:
    """Adds episodes to a folder of packs. A pack is written when the next episode would not fit, or has other cameras or arrays."""

    folder: Path
    frames_per_pack: int = 4096
    written: list[Path] = field(default_factory=list[Path])
    _episodes: list[Episode] = field(default_factory=list[Episode], init=False)
    _frames: int = field(default=0, init=False)

    def add(self, episode: Episode) -> None:
        """Add one; its images must be there."""
        if not episode.images:
            raise DatasetError(f"episode {episode.episode_id} has no images; a pack holds decoded ones. Fix: read it with images=True")
        is_other = self._episodes and _shapes(self._episodes[0]) != _shapes(episode)
        if self._episodes and (is_other or self._frames + len(episode) > self.frames_per_pack):
            self.close()
        self._episodes.append(episode)
        self._frames += len(episode)

    def close(self) -> tuple[Path, ...]:
        """Write what waits; the packs that this writer wrote."""
        if self._episodes:
            self.written.append(self._write())
            self._episodes, self._frames = [], 0
        return tuple(self.written)

    def _write(self) -> Path:
        from safetensors.numpy import save

        parts = [_tensors(episode) for episode in self._episodes]
        tensors = {name: np.ascontiguousarray(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        # one key: the order of several is not fixed, and equal episodes are to be equal bytes
        content = save(tensors, metadata={"episodes": json.dumps([_described(one) for one in self._episodes], sort_keys=True)})
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        remove_abandoned_writes(self.folder)
        there = pack_files(self.folder)
        for path in there:
            if path.name.endswith(f"-{name}"):
                return path  # of a writer that was killed after it: the same episodes are not there twice
        number = 1 + max((int(path.name.partition("-")[0]) for path in there), default=-1)
        path = self.folder / f"{number:06d}-{name}"
        atomic_write(path, content, durable=False)
        path.chmod(0o444)
        return path


def pack_files(folder: Path) -> list[Path]:
    """The packs of a folder, in order."""
    return sorted(folder.glob("[0-9]*-*.safetensors"))


def _shapes(episode: Episode) -> dict[str, tuple[Any, ...]]:
    return {name: (array.dtype.str, *array.shape[1:]) for name, array in _tensors(episode).items()}


def _tensors(episode: Episode) -> dict[str, NDArray[Any]]:
    found = {f"{IMAGES}{camera}": array for camera, array in episode.images.items()}
    found |= {f"{DEPTH}{camera}": array for camera, array in episode.depth_m.items()}
    arrays = {name: getattr(episode, attribute) for name, attribute in _ARRAYS.items()}
    return found | {name: array for name, array in arrays.items() if array is not None}


def _described(episode: Episode) -> dict[str, Any]:
    geometry = {
        camera: [one.width, one.height, one.intrinsics_33.tolist(), one.world_to_camera_44.tolist()]
        for camera, one in episode.geometry.items()
    }
    known = {name: getattr(episode, name) for name in _WORDS}
    body = None if episode.body is None else to_document(episode.body)
    return {**known, "body": body, "frames": len(episode), "provenance": to_document(episode.provenance), "geometry": geometry}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedEpisode:
    """Where an episode lies: rows first .. first+frames-1 of a pack; and what is known of it."""

    pack: PackTensors
    first: int
    frames: int
    known: Mapping[str, Any]

    def read(self) -> Episode:
        """The whole episode."""
        tensors = {name: self.pack.rows(name, self.first, self.frames) for name in self.pack.header.places}
        arrays: dict[str, Any] = {attribute: tensors.get(name) for name, attribute in _ARRAYS.items()}
        names: dict[str, Any] = {name: self.known[name] for name in _WORDS}
        body = self.known["body"]
        geometry = {
            camera: CameraGeometry(width=width, height=height, intrinsics_33=np.array(inner), world_to_camera_44=np.array(outer))
            for camera, (width, height, inner, outer) in self.known["geometry"].items()
        }
        return Episode(
            **names,
            body=None if body is None else embodiment_from_json(body),
            provenance=Provenance(**self.known["provenance"]),
            images={name.removeprefix(IMAGES): array for name, array in tensors.items() if name.startswith(IMAGES)},
            depth_m={name.removeprefix(DEPTH): array for name, array in tensors.items() if name.startswith(DEPTH)},
            geometry=geometry,
            **arrays,
        )


def episodes_of(pack: PackTensors) -> list[PackedEpisode]:
    """The episodes of one pack, in order."""
    found, first = list[PackedEpisode](), 0
    for known in json.loads(pack.header.metadata["episodes"]):
        found.append(PackedEpisode(pack=pack, first=first, frames=known["frames"], known=known))
        first += known["frames"]
    return found


def open_packs(folder: Path) -> list[PackedEpisode]:
    """Every episode of a folder of packs, in the order in which they were added. Raises `DatasetError` where there is none."""
    paths = pack_files(folder)
    if not paths:
        raise DatasetError(f"{folder} holds no pack. Fix: name a folder that PackWriter wrote, or `dvc pull` it")
    return [episode for path in paths for episode in episodes_of(MappedTensors(path))]
