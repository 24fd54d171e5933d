"""Labelled episodes -> a frozen data set version: shards of training samples, their manifest, and the contract.

    out/shards/{train,validation}-00000.safetensors   images_NVHW3 proprio_NP actions_NKA executed_NKA is_padded_NK trace_N52 ...
    out/manifest.json                                  shards with SHA-256, instructions, tasks, episodes, split, labels
    out/contract.json                                  PolicyContract: what every checkpoint of this data will promise
    out/vqvae/                                         the depth codebook, copied where depth is labelled: tokens stay readable for years

An episode's split is decided by the hash of its id, so it never changes sides as data grows. Statistics are of
the training split only. No task knowledge is frozen in as model input: camera, proprio and instruction only
(`task_idx_N` is for reports). The chunk of a frame near the end of its episode reaches past it: those rows hold the action that keeps
the robot where it is, `is_padded_NK` marks them, and no loss is computed on them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import FreezeConfig
from components.config.records import Progress
from components.data.accounting.tally import Tally
from components.data.action_dims import action_notes, check_passed_through, gripper_mask
from components.data.frozen_dataset import ShardWriter
from components.data.labelling.reasoning import annotators_of, reasoning_of
from components.data.labels import EpisodeLabels, read_labels
from components.data.lerobot.reader import DatasetReader, EpisodeIndexRow
from components.data.lerobot.stale_statistics import stale_statistics
from components.data.packing.kept_images import KeptImages
from components.data.sources.interface import EpisodeSource
from components.data.sources.joined import drawing_weights
from components.data.sources.open import instructions_of, open_raw
from components.data.sources.raw_index import check_sizes
from components.data.sources.unlabelled import UNLABELLED, accepted_ids
from model_core.spec.contract import EmbodimentSpec, PolicyContract, digest_of
from model_core.spec.errors import ActwrightError, DatasetError
from model_core.spec.execution.holding import hold_action
from model_core.spec.files import atomic_write
from model_core.spec.stats import UnnormStats
from model_core.tokenization.compact.vocabulary import closed_words

SPLITS = ("train", "validation")


def freeze(
    cfg: FreezeConfig, dataset: Path, labels: Path, out: Path, progress: Progress, *, images: KeptImages | None = None
) -> dict[str, Any]:
    """Write the frozen data set into `out`. `dataset`: LeRobot folder; `labels`: what annotate made (labels/, vqvae/).

    Raises `DatasetError` for stale statistics, a frame without label, a data set that does not name its body, or an action dimension
    that is passed through and does not lie in -1..1; `CheckpointError` when the depth codebook is missing or damaged.
    """
    reader = _open_dataset(dataset, images)
    known = None if (labels / UNLABELLED).is_file() else read_labels(labels / "labels")
    rows = _labelled(reader, accepted_ids(labels) if known is None else known)
    split = split_of([row.episode_id for row in rows], cfg.validation_fraction)
    contract, notes = _contract(cfg, reader, {row.index: split[row.episode_id] == "train" for row in rows}, labels)
    instructions = sorted({row.instruction for row in rows})
    tasks = sorted({row.task for row in rows})
    writers = {name: ShardWriter(out / "shards", name, cfg.frames_per_shard) for name in SPLITS}
    tally = Tally("freeze")
    for done, row in enumerate(rows):
        places = {"instruction": instructions.index(row.instruction), "task": tasks.index(row.task), "episode": done}
        samples = _samples(cfg, reader, row.index, None if known is None else known[row.episode_id], places)
        writers[split[row.episode_id]].append(samples)
        kept = len(samples["frame_idx_N"])
        tally.keep(row.provenance.producer, kept)
        tally.drop(row.provenance.producer, f"between the frames of freeze.frame_stride {cfg.frame_stride}", row.length - kept, episodes=0)
        progress.update(done + 1, len(rows), "freezing shards")
    reader.close()
    shards = [shard for name in SPLITS for shard in writers[name].close()]
    if contract.reasoning.codebook_digest:
        _copy_folder(labels / "vqvae", out / "vqvae")
    manifest = {
        "format": 1,
        "name": cfg.name,
        "shards": shards,
        "instructions": instructions,
        "tasks": tasks,
        "episodes": [row.episode_id for row in rows],
        "sources": [row.provenance.producer for row in rows],
        **drawing_weights(reader, rows),
        "split": {name: [row.episode_id for row in rows if split[row.episode_id] == name] for name in SPLITS},
        "labels": annotators_of(labels),
        "contract_id": contract.contract_id,
        "dataset_version": contract.dataset_version,
    }
    atomic_write(out / "contract.json", json.dumps(contract.to_json(), indent=1, sort_keys=True) + "\n")
    atomic_write(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return {**_record(manifest, contract), "account": tally.rows(), "notes": notes}


def _record(manifest: Mapping[str, Any], contract: PolicyContract) -> dict[str, Any]:
    frames = {name: sum(s["frames"] for s in manifest["shards"] if Path(s["file"]).name.startswith(name)) for name in SPLITS}
    return {
        "version": digest_of(manifest),
        "dataset_version": contract.dataset_version,
        "contract_id": contract.contract_id,
        "name": manifest["name"],
        "episodes": len(manifest["episodes"]),
        "frames": sum(frames.values()),
        "train_frames": frames["train"],
        "validation_frames": frames["validation"],
        "annotators": manifest["labels"],
        "words": list(contract.words),
    }


def _open_dataset(dataset: Path, images: KeptImages | None) -> EpisodeSource:
    """The raw data, with a known embodiment; a data set that brings statistics brings those of its data."""
    reader = open_raw(dataset, images)
    if stale := (stale_statistics(reader) if isinstance(reader, DatasetReader) else []):
        raise DatasetError(
            f"{dataset.name}: its statistics are stale: {'; '.join(stale[:3])}. Fix: make the data set again; never edit one by hand"
        )
    check_sizes(reader.embodiment)  # described, or refused here
    return reader


def _labelled(reader: EpisodeSource, known: Collection[str]) -> list[EpisodeIndexRow]:
    """The episodes that have labels; bad ones have none. Raises `DatasetError` for labels of episodes that are not in the data set."""
    rows = [row for row in reader.rows if row.episode_id in known]
    strangers = sorted(set(known) - {row.episode_id for row in rows})
    if strangers:
        raise DatasetError(
            f"labels: expected those of episodes of {reader.name}, got {len(strangers)} of others ({', '.join(strangers[:3])}). "
            "Fix: annotate this data set again"
        )
    if not rows:
        raise DatasetError("no episode of the data set has labels; nothing can be frozen")
    return rows


def split_of(episode_ids: Sequence[str], validation_fraction: float) -> dict[str, str]:
    """Episode id -> "train" or "validation", by hash alone; with two or more episodes neither side is empty."""
    place = {e: int.from_bytes(hashlib.sha256(f"split:{e}".encode()).digest()[:8], "big") / 2**64 for e in episode_ids}
    split = {e: "validation" if place[e] < validation_fraction else "train" for e in episode_ids}
    if len(place) > 1:
        ordered = sorted(place, key=lambda e: place[e])
        split[ordered[0]], split[ordered[-1]] = "validation", "train"
    return split


def windows(
    actions_TA: NDArray[np.float32], steps_N: NDArray[np.int64], length: int, body: EmbodimentSpec
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """For each step t the actions t .. t+length-1 as (N, length, A), and which of them lie past the end of the episode (N, length).

    Past the end stands what holds the body where it is: no movement where an action is a change, the last value where it is a place.
    To repeat the last action instead would record movements that no demonstrator made.
    """
    index_NK = steps_N[:, None] + np.arange(length)
    is_padded_NK = index_NK >= len(actions_TA)
    actions_NKA = actions_TA[np.minimum(index_NK, len(actions_TA) - 1)]
    return np.where(is_padded_NK[..., None], hold_action(body, actions_TA[-1]), actions_NKA).astype(np.float32), is_padded_NK


def _samples(
    cfg: FreezeConfig, reader: EpisodeSource, index: int, labels: EpisodeLabels | None, places: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """The samples of one episode. places: where its instruction, its task and itself stand in the manifest."""
    episode = reader.episode(index, depth=False)
    if labels is not None and len(labels) != len(episode):
        raise DatasetError(f"episode {episode.episode_id} has {len(episode)} frames but labels for {len(labels)}; annotate it again")
    steps_N = np.arange(0, len(episode), cfg.frame_stride)
    body = reader.embodiment
    actions_NKA, is_padded_NK = windows(episode.actions_TA, steps_N, cfg.chunk_length, body)
    return {
        "images_NVHW3": np.stack([episode.images[camera.name][steps_N] for camera in reader.embodiment.cameras], axis=1),
        "proprio_NP": episode.proprio_TP[steps_N].astype(np.float32),
        "actions_NKA": actions_NKA,
        "executed_NKA": windows(episode.executed_TA, steps_N, cfg.chunk_length, body)[0],
        "is_padded_NK": is_padded_NK,
        **({} if labels is None else labels.samples(steps_N)),
        "frame_idx_N": steps_N.astype(np.int64),
        **{f"{name}_idx_N": np.full(len(steps_N), place, np.int64) for name, place in places.items()},
    }


def _contract(cfg: FreezeConfig, reader: EpisodeSource, rows: Mapping[int, bool], labels: Path) -> tuple[PolicyContract, list[str]]:
    """The contract, and what a person should know of its statistics. rows: index of an episode -> whether it is of the training split."""
    embodiment = reader.embodiment
    mask = cfg.mask or tuple(bool(is_other) for is_other in ~gripper_mask(embodiment))
    if len(mask) != len(embodiment.action):
        raise DatasetError(
            f"freeze.mask has {len(mask)} values, the embodiment {embodiment.name!r} has {len(embodiment.action)} action dimensions; "
            "leave it empty to normalise every dimension but the gripper"
        )
    episodes = {index: reader.episode(index, images=False, depth=False) for index in rows}
    check_passed_through(list(episodes.values()), mask, embodiment)
    training = [episodes[index] for index, is_training in rows.items() if is_training]
    contract = PolicyContract(
        embodiment=embodiment,
        stats=_kept_statistics(Path(cfg.statistics), embodiment, mask)
        if cfg.statistics
        else UnnormStats.of(np.concatenate([episode.actions_TA for episode in training]), mask),
        reasoning=reasoning_of(labels, embodiment),
        chunk_length=cfg.chunk_length,
        execute_horizon=cfg.execute_horizon,
        words=tuple(cfg.words) or closed_words(instructions_of(reader)),
        dataset_version=reader.digest,
    )
    return contract, action_notes(training, contract.stats, embodiment)


def _kept_statistics(folder: Path, embodiment: EmbodimentSpec, mask: tuple[bool, ...]) -> UnnormStats:
    """The statistics of an earlier checkpoint, whose dimensions must be these ones."""
    path = folder / "contract.json"
    try:
        earlier = PolicyContract.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ActwrightError) as error:
        raise DatasetError(f"freeze.statistics: {path} cannot be read: {error}. Fix: name the folder of a whole checkpoint") from error
    dims = [(dim.name, dim.unit, mode) for dim, mode in zip(embodiment.action.dims, embodiment.action.modes, strict=True)]
    theirs = earlier.embodiment.action
    kept = [(dim.name, dim.unit, mode) for dim, mode in zip(theirs.dims, theirs.modes, strict=True)]
    if dims != kept or mask != earlier.stats.mask:
        raise DatasetError(
            f"freeze.statistics {folder}: expected statistics of {dims} with mask {mask}, got {kept} with mask {earlier.stats.mask}. "
            "Fix: name a checkpoint of the same actions, or leave freeze.statistics empty"
        )
    return earlier.stats


def _copy_folder(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
