"""The episodes of one embodiment, frozen: shards of training samples, their manifest and the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.config.data_config import FreezeConfig
from components.config.records import Progress
from components.data.accounting.tally import Tally
from components.data.freezing.interventions import Interventions
from components.data.freezing.promise import make_contract
from components.data.freezing.samples import samples_of
from components.data.frozen_dataset import ShardWriter
from components.data.labels import EpisodeLabels
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.sources.interface import EpisodeSource
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write

SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What annotate made. folder: of the stage. known: episode id -> its labels; None where a set has none. versions: of annotators."""

    folder: Path
    known: Mapping[str, EpisodeLabels] | None
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenEmbodiment:
    """What was written: the manifest with its shards, the contract, what a person should know, and how often a person acted."""

    manifest: Mapping[str, Any]
    contract: PolicyContract
    notes: Sequence[str]
    interventions: Interventions

    @property
    def frames(self) -> dict[str, int]:
        """Split -> samples."""
        shards = self.manifest["shards"]
        return {name: sum(shard["frames"] for shard in shards if Path(shard["file"]).name.startswith(name)) for name in SPLITS}


@dataclass(slots=True, kw_only=True)
class Freezing:
    """One freezing of one embodiment's `rows` of `source`. weights: {"weights": one an episode}, or {} where all are drawn alike.

    tally: counts what is handed on. done_before, total: episodes of the embodiments before it, and of all, for the progress.
    """

    cfg: FreezeConfig
    source: EpisodeSource
    rows: Sequence[EpisodeIndexRow]
    labels: Labels
    weights: Mapping[str, Sequence[float]]
    tally: Tally
    progress: Progress
    done_before: int = 0
    total: int = 0

    def run(self, out: Path) -> FrozenEmbodiment:
        """Write shards, manifest and contract into `out`. Raises as `components.data.freeze.freeze`."""
        cfg, rows = self.cfg, self.rows
        split = split_of([row.episode_id for row in rows], cfg.validation_fraction)
        episodes = {row.index: self.source.episode(row.index, images=False, depth=False) for row in rows}
        training = [episodes[row.index] for row in rows if split[row.episode_id] == "train"]
        if not training:
            raise DatasetError(
                f"embodiment {self.source.embodiment.name!r}: its only episode {rows[0].episode_id!r} is held out for validation, so "
                "nothing of it can be trained. Fix: record at least two episodes"
            )
        contract, notes = make_contract(cfg, self.source, list(episodes.values()), training, self.labels.folder)
        interventions = Interventions.of(list(episodes.values()))
        instructions, tasks = sorted({row.instruction for row in rows}), sorted({row.task for row in rows})
        writers = {name: ShardWriter(out / "shards", name, cfg.frames_per_shard) for name in SPLITS}
        for done, row in enumerate(rows):
            places = {"instruction": instructions.index(row.instruction), "task": tasks.index(row.task), "episode": done}
            samples = samples_of(cfg, self.source, row.index, self._labels_of(row), places, has_interventions=interventions.stated > 0)
            writers[split[row.episode_id]].append(samples)
            self._count(row, samples)
            self.progress.update(self.done_before + done + 1, self.total or len(rows), "freezing shards")
        manifest = {
            "format": 1,
            "name": cfg.name,
            "shards": [shard for name in SPLITS for shard in writers[name].close()],
            "instructions": instructions,
            "tasks": tasks,
            "episodes": [row.episode_id for row in rows],
            "sources": [row.provenance.producer for row in rows],
            **self.weights,
            "split": {name: [row.episode_id for row in rows if split[row.episode_id] == name] for name in SPLITS},
            "labels": self.labels.versions,
            "contract_id": contract.contract_id,
            "dataset_version": contract.dataset_version,
        }
        atomic_write(out / "contract.json", json.dumps(contract.to_json(), indent=1, sort_keys=True) + "\n")
        atomic_write(out / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        return FrozenEmbodiment(manifest=manifest, contract=contract, notes=notes, interventions=interventions)

    def _labels_of(self, row: EpisodeIndexRow) -> EpisodeLabels | None:
        return None if self.labels.known is None else self.labels.known[row.episode_id]

    def _count(self, row: EpisodeIndexRow, samples: Mapping[str, Any]) -> None:
        producer, kept = row.provenance.producer, len(samples["frame_idx_N"])
        flags_N = samples.get("intervention_N")
        self.tally.keep(producer, kept, intervened=0 if flags_N is None else int(flags_N.sum()))
        between = f"between the frames of freeze.frame_stride {self.cfg.frame_stride}"
        self.tally.drop(producer, between, row.length - kept, episodes=0)


def split_of(episode_ids: Sequence[str], validation_fraction: float) -> dict[str, str]:
    """Episode id -> "train" or "validation", by hash alone; with two or more episodes neither side is empty."""
    place = {e: int.from_bytes(hashlib.sha256(f"split:{e}".encode()).digest()[:8], "big") / 2**64 for e in episode_ids}
    split = {e: "validation" if place[e] < validation_fraction else "train" for e in episode_ids}
    if len(place) > 1:
        ordered = sorted(place, key=lambda e: place[e])
        split[ordered[0]], split[ordered[-1]] = "validation", "train"
    return split


def labelled_rows(source: EpisodeSource, known: Mapping[str, object], embodiment: str = "") -> list[EpisodeIndexRow]:
    """The episodes of a source that are used. embodiment: whose they are, where there are several. Raises `DatasetError` for none."""
    rows = [row for row in source.rows if row.episode_id in known]
    if not rows and not embodiment:
        raise DatasetError("no episode of the data set has labels; nothing can be frozen")
    if embodiment and len(rows) < 2:  # one to learn from and one to hold out
        left = f"only {rows[0].episode_id!r}" if rows else "none"
        raise DatasetError(
            f"embodiment {embodiment!r}: expected at least two episodes after validation and labelling, got {left} of {len(source.rows)}. "
            "Fix: see quarantine/ of the stage validate and rejected.json of annotate, record more, or leave its sources out of `data`"
        )
    return rows
