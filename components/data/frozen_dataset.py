"""The frozen data set on disk: a manifest, a contract and safetensors shards. One module writes it and reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import sha256_file
from components.data.labels import LABEL_FIELDS
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError
from model_core.spec.execution.novelty import spread
from model_core.spec.files import atomic_write
from model_core.spec.types import Observation

_TENSORS = ("images_NVHW3", "proprio_NP", "actions_NKA", "instruction_idx_N", "task_idx_N")
# of which older data sets have none, and data sets without labels no labels
_OPTIONAL = ("executed_NKA", "is_padded_NK", "intervention_N", *(field.tensor for field in LABEL_FIELDS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenSplit:
    """One split of a frozen data set in memory, as the shards hold it (physical units, no ids of a language).

    images_NVHW3 uint8; proprio_NP, actions_NKA float32; depth_codes_NG uint8; trace_N52 int16, -1 after the last point (both None
    without labels).
    executed_NKA: what the body was sent in those steps (a demonstrator is pushed, actions_NKA is what it wanted); None in older sets.
    is_padded_NK: which actions of a chunk lie past the end of their episode and were never recorded; None in older sets, which repeat
    the last action there and do not say where.
    intervention_N: bool, in which frames a person acted in the place of a policy; None where no recording of the set says it.
    """

    images_NVHW3: NDArray[np.uint8]
    proprio_NP: NDArray[np.float32]
    actions_NKA: NDArray[np.float32]
    instruction_idx_N: NDArray[np.int64]
    task_idx_N: NDArray[np.int64]
    instructions: tuple[str, ...]
    tasks: tuple[str, ...]
    executed_NKA: NDArray[np.float32] | None = None
    is_padded_NK: NDArray[np.bool_] | None = None
    depth_codes_NG: NDArray[np.uint8] | None = None
    trace_N52: NDArray[np.int16] | None = None
    intervention_N: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.images_NVHW3)


def read_frozen(folder: Path) -> tuple[dict[str, Any], PolicyContract]:
    """Manifest and contract of a frozen data set; raises `DatasetError` when one is missing or they name different contracts."""
    documents = []
    for name in ("manifest.json", "contract.json"):
        path = folder / name
        if not path.is_file():
            if documents and (several := [entry["name"] for entry in documents[0].get("embodiments", ())]):
                raise DatasetError(
                    f"{folder} is a frozen data set of several embodiments ({', '.join(several)}), expected one. Fix: name embodiments/"
                    f"{several[0]} in it"
                )
            raise DatasetError(f"{folder} is not a frozen data set: {name} is missing. Fix: run the freeze stage")
        documents.append(json.loads(path.read_text(encoding="utf-8")))
    manifest, contract = documents[0], PolicyContract.from_json(documents[1])
    if manifest["contract_id"] != contract.contract_id:
        raise DatasetError(
            f"{folder}: manifest was frozen with contract {manifest['contract_id']}, contract.json is {contract.contract_id} "
            "(stale statistics?). Fix: freeze again"
        )
    return manifest, contract


def load_split(folder: Path, split: str) -> FrozenSplit:
    """Read "train" or "validation"; raises `DatasetError` when a shard is missing or its bytes are not those of the manifest."""
    from safetensors.numpy import load

    manifest, _ = read_frozen(folder)
    parts = [load(_shard_bytes(folder, shard)) for shard in manifest["shards"] if _split_of(shard) == split]
    if not parts:
        raise DatasetError(f"{folder} has no shard of split {split!r}")
    joined: dict[str, NDArray[Any]] = {name: np.concatenate([part[name] for part in parts]) for name in _TENSORS}
    joined |= {name: joined[name].astype(np.int64) for name in ("instruction_idx_N", "task_idx_N")}
    joined |= {name: np.concatenate([part[name] for part in parts]) for name in _OPTIONAL if all(name in part for part in parts)}
    return FrozenSplit(**joined, instructions=tuple(manifest["instructions"]), tasks=tuple(manifest["tasks"]))


def sources_of(folder: Path, split: str) -> tuple[list[str], NDArray[np.int64]]:
    """Who recorded each sample of a split, in the order of `load_split`, and which episode it is of. No image is read."""
    manifest, _ = read_frozen(folder)
    episode_N = column_of(folder, split, "episode_idx_N").astype(np.int64)
    sources = manifest.get("sources")  # older data sets do not say it
    return [str(sources[episode]) if sources else "unknown" for episode in episode_N], episode_N


def column_of(folder: Path, split: str, tensor: str) -> NDArray[Any]:
    """One array of every sample of a split, in the order of `load_split`; nothing else is read. Empty for a split without samples."""
    from safetensors import safe_open

    manifest, _ = read_frozen(folder)
    found: list[NDArray[Any]] = []
    for shard in manifest["shards"]:
        if _split_of(shard) == split:
            with safe_open(folder / shard["file"], framework="numpy") as tensors:
                found.append(tensors.get_tensor(tensor))
    return np.concatenate(found) if found else np.zeros(0)


def drawing_order(folder: Path, split: str) -> NDArray[np.int64] | None:
    """Places in a split, each as often as its source's weight says relative to the least one: what training draws from. None: each once.

    Of a part of a time, samples are taken evenly over the source: with weight 1.5 every second sample stands there twice.
    """
    manifest, _ = read_frozen(folder)
    if "weights" not in manifest:
        return None
    return repeated(sample_weights(folder, split) / min(manifest["weights"]))


def sample_weights(folder: Path, split: str) -> NDArray[np.float64]:
    """How often each sample of a split is drawn, as the recipe says it of its source: (N,); ones where all are drawn alike."""
    manifest, _ = read_frozen(folder)
    episode_N = column_of(folder, split, "episode_idx_N").astype(np.int64)
    weights = manifest.get("weights")
    return np.ones(len(episode_N)) if weights is None else np.array(weights, np.float64)[episode_N]


def repeated(weight_N: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each place as often as its weight, a whole number or more, says."""
    times_N = np.zeros(len(weight_N), np.int64)
    for weight in np.unique(weight_N):
        here = np.flatnonzero(weight_N == weight)
        times_N[here] = np.diff(np.floor(np.arange(len(here) + 1) * weight + 1e-9)).astype(np.int64)
    return np.repeat(np.arange(len(times_N)), times_N)


def sample_observations(folder: Path, count: int, contract: PolicyContract) -> list[Observation]:
    """At most `count` recorded observations, evenly spaced in the first shard that holds frames; validation shards come first.

    contract: its cameras name the images. Raises `DatasetError` for a damaged or missing shard, as `load_split` does.
    """
    from safetensors.numpy import load

    manifest, _ = read_frozen(folder)
    shards = [shard for shard in manifest["shards"] if shard["frames"] > 0]
    if not shards:
        return []
    first = min(shards, key=lambda shard: (_split_of(shard) != "validation", shard["file"]))
    tensors = load(_shard_bytes(folder, first))
    frames = np.linspace(0, first["frames"] - 1, min(count, first["frames"])).astype(int)
    return [
        Observation(
            images={c.name: np.ascontiguousarray(tensors["images_NVHW3"][i, view]) for view, c in enumerate(contract.embodiment.cameras)},
            proprio_P=np.ascontiguousarray(tensors["proprio_NP"][i], np.float32),
            instruction=manifest["instructions"][int(tensors["instruction_idx_N"][i])],
        )
        for i in frames
    ]


def spread_frames(folder: Path, split: str, most: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """At most `most` frames of a split, evenly spaced over all of it: images (V, H, W, 3) and proprio (P,). One shard at a time is held.

    Raises `DatasetError` for a damaged or missing shard, as `load_split` does.
    """
    from safetensors.numpy import load

    manifest, _ = read_frozen(folder)
    shards = [shard for shard in manifest["shards"] if _split_of(shard) == split and shard["frames"] > 0]
    wanted, before = spread(sum(shard["frames"] for shard in shards), most), 0
    for shard in shards:
        here = wanted[(wanted >= before) & (wanted < before + shard["frames"])] - before
        before += shard["frames"]
        tensors = load(_shard_bytes(folder, shard))
        yield from ((tensors["images_NVHW3"][place], tensors["proprio_NP"][place]) for place in here)


def _split_of(shard: Mapping[str, Any]) -> str:
    return Path(shard["file"]).name.partition("-")[0]


def _shard_bytes(folder: Path, shard: Mapping[str, Any]) -> bytes:
    """The content of a shard, checked against the manifest's digest."""
    path = folder / shard["file"]
    if not path.is_file():
        raise DatasetError(f"shard {shard['file']} of {folder} is missing. Fix: `dvc pull`, or freeze again")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != shard["sha256"]:
        raise DatasetError(
            f"shard {shard['file']} is damaged: expected sha256 {shard['sha256'][:12]}, got {digest[:12]}. Fix: `dvc pull`, or freeze again"
        )
    return content


def observation_of(split: FrozenSplit, contract: PolicyContract, frame: int, pictures_VHW3: NDArray[np.uint8]) -> Observation:
    """What a policy would have been shown at a recorded frame, with these images (one a camera)."""
    return Observation(
        images={camera.name: pictures_VHW3[view] for view, camera in enumerate(contract.embodiment.cameras)},
        proprio_P=split.proprio_NP[frame],
        instruction=split.instructions[int(split.instruction_idx_N[frame])],
    )


@dataclass(slots=True)
class ShardWriter:
    """Samples of one split, written out as a shard whenever the next episode would not fit."""

    folder: Path
    split: str
    frames_per_shard: int
    parts: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    frames: int = 0
    done: list[dict[str, Any]] = field(default_factory=list)

    def append(self, samples: Mapping[str, NDArray[Any]]) -> None:
        """Add the samples of one episode."""
        count = len(samples["frame_idx_N"])
        if self.frames and self.frames + count > self.frames_per_shard:
            self._write()
        self.parts.append(samples)
        self.frames += count

    def close(self) -> list[dict[str, Any]]:
        """Write what is left; the manifest's row of every shard."""
        if self.frames:
            self._write()
        return self.done

    def _write(self) -> None:
        from safetensors.numpy import save

        tensors = {name: np.ascontiguousarray(np.concatenate([p[name] for p in self.parts])) for name in self.parts[0]}
        name = f"{self.split}-{len(self.done):05d}.safetensors"
        path = self.folder / name
        # no metadata: its order is not fixed, and equal samples must be equal bytes
        atomic_write(path, save(tensors), durable=False)
        self.done.append({"file": f"shards/{name}", "frames": self.frames, "sha256": sha256_file(path)})
        self.parts, self.frames = [], 0
