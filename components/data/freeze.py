"""Labelled episodes -> a frozen data set version: shards of training samples, their manifest, and the contract.

    out/shards/{train,validation}-00000.safetensors   images_NVHW3 proprio_NP actions_NKA executed_NKA is_padded_NK trace_N52 ...
    out/manifest.json                                  shards with SHA-256, instructions, tasks, episodes, split, labels
    out/contract.json                                  PolicyContract: what every checkpoint of this data will promise
    out/vqvae/                                         the depth codebook, copied where depth is labelled: tokens stay readable for years

Sources of several embodiments are frozen apart, because their numbers, images and words mean different things:

    out/embodiments/<name>/   shards, manifest and contract of one embodiment, with statistics of its own episodes only
    out/manifest.json         which embodiments there are, with the digest of each one's manifest
    out/vqvae/                one codebook for all: a depth token means one thing in the one network

An episode's split is decided by the hash of its id, so it never changes sides as data grows. Statistics are of
the training split only. No task knowledge is frozen in as model input: camera, proprio and instruction only
(`task_idx_N` is for reports). The chunk of a frame near the end of its episode reaches past it: those rows hold the action that keeps
the robot where it is, `is_padded_NK` marks them, and no loss is computed on them. `intervention_N` marks frames in which a person
acted, where the recordings say so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.files import sha256_file
from components.config.data_config import FreezeConfig
from components.config.records import Progress
from components.data.accounting.tally import Tally
from components.data.freezing.embodiment import Freezing, FrozenEmbodiment, Labels, labelled_rows, split_of
from components.data.freezing.samples import windows
from components.data.labelling.reasoning import annotators_of
from components.data.labels import read_labels
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics
from components.data.packing.kept_images import KeptImages
from components.data.sources.interface import EpisodeSource
from components.data.sources.joined import drawing_weights
from components.data.sources.mixed import members_of
from components.data.sources.open import open_raw
from components.data.sources.raw_index import check_sizes
from components.data.sources.unlabelled import UNLABELLED, accepted_ids
from model_core.spec.contract import digest_of
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

__all__ = ["freeze", "split_of", "windows"]


def freeze(
    cfg: FreezeConfig, dataset: Path, labels: Path, out: Path, progress: Progress, *, images: KeptImages | None = None
) -> dict[str, Any]:
    """Write the frozen data set into `out`. `dataset`: LeRobot folder or raw index; `labels`: what annotate made (labels/, vqvae/).

    Raises `DatasetError` for stale statistics, a frame without label, a data set that does not name its body, an embodiment of which no
    episode is left, or an action dimension that is passed through and does not lie in -1..1; `CheckpointError` when the depth codebook is
    missing or damaged.
    """
    source = _open_dataset(dataset, images)
    known = None if (labels / UNLABELLED).is_file() else read_labels(labels / "labels")
    found = Labels(folder=labels, known=known, versions=annotators_of(labels))
    chosen = accepted_ids(labels) if known is None else known
    _check_strangers(source, chosen)
    tally = Tally("freeze")
    members = members_of(source)
    rows = {name: labelled_rows(member, chosen, name) for name, member in members.items()}
    weights = drawing_weights(members, rows)
    total, done = sum(map(len, rows.values())), 0
    made: dict[str, FrozenEmbodiment] = {}
    for name, member in members.items():
        place = out / "embodiments" / name if name else out
        common = {"cfg": cfg, "labels": found, "tally": tally, "progress": progress}
        job = Freezing(source=member, rows=rows[name], weights=weights[name], done_before=done, total=total, **common)
        made[name] = job.run(place)
        done += len(rows[name])
    source.close()
    if any(one.contract.reasoning.codebook_digest for one in made.values()):
        _copy_folder(labels / "vqvae", out / "vqvae")
    record = _record(made[""]) if "" in made else _record_of_several(cfg, source.digest, made, out)
    notes = [_named(name, note) for name, one in made.items() for note in (*one.notes, *one.interventions.notes())]
    return {**record, "account": tally.rows(), "notes": notes}


def _named(name: str, note: str) -> str:
    return f"{name}: {note}" if name else note


def _record(made: FrozenEmbodiment) -> dict[str, Any]:
    manifest, contract, frames = made.manifest, made.contract, made.frames
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
        **made.interventions.record(),
    }


def _record_of_several(cfg: FreezeConfig, dataset_version: str, made: Mapping[str, FrozenEmbodiment], out: Path) -> dict[str, Any]:
    """Write the manifest that names the embodiments; the record has the sums, and the record of each."""
    records = {name: _record(one) for name, one in made.items()}
    entries = [
        {
            "name": name,
            "contract_id": one.contract.contract_id,
            "manifest_sha256": sha256_file(out / "embodiments" / name / "manifest.json"),
            "instructions": one.manifest["instructions"],
        }
        for name, one in made.items()
    ]
    annotators = next(iter(records.values()))["annotators"]
    manifest = {"format": 1, "name": cfg.name, "embodiments": entries, "labels": annotators, "dataset_version": dataset_version}
    atomic_write(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    sums = {key: sum(one[key] for one in records.values()) for key in ("episodes", "frames", "train_frames", "validation_frames")}
    return {
        "version": digest_of(manifest),
        "dataset_version": dataset_version,
        "name": cfg.name,
        **sums,
        "annotators": annotators,
        "words": sorted({word for one in records.values() for word in one["words"]}),
        "embodiments": records,
    }


def _open_dataset(dataset: Path, images: KeptImages | None) -> EpisodeSource:
    """The raw data, with known embodiments; a data set that brings statistics brings those of its data."""
    source = open_raw(dataset, images)
    if stale := (stale_statistics(source) if isinstance(source, DatasetReader) else []):
        raise DatasetError(
            f"{dataset.name}: its statistics are stale: {'; '.join(stale[:3])}. Fix: make the data set again; never edit one by hand"
        )
    for member in members_of(source).values():
        check_sizes(member.embodiment)  # described, or refused here
    return source


def _check_strangers(source: EpisodeSource, known: Mapping[str, object]) -> None:
    """Raise `DatasetError` for labels of episodes that are not in the data set."""
    strangers = sorted(set(known) - {row.episode_id for row in source.rows})
    if strangers:
        raise DatasetError(
            f"labels: expected those of episodes of {source.name}, got {len(strangers)} of others ({', '.join(strangers[:3])}). "
            "Fix: annotate this data set again"
        )


def _copy_folder(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
