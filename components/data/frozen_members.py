"""The embodiments of a frozen data set: one, or several that are frozen apart and drawn together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import sha256_file
from components.data.frozen_dataset import read_frozen, repeated, sample_weights
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenMember:
    """One embodiment of a frozen data set. folder: a frozen data set of its own, but for the depth codebook, which lies beside all."""

    folder: Path
    manifest: Mapping[str, Any]
    contract: PolicyContract

    @property
    def name(self) -> str:
        """Its embodiment."""
        return self.contract.embodiment.name


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenMembers:
    """All embodiments of a frozen data set, in order. manifest: of the whole, which names every byte of it."""

    folder: Path
    manifest: Mapping[str, Any]
    members: tuple[FrozenMember, ...]

    @property
    def vqvae(self) -> Path | None:
        """The depth codebook of all; None where the data have no labels."""
        folder = self.folder / "vqvae"
        return folder if folder.is_dir() else None

    def member(self, embodiment: str) -> FrozenMember:
        """The member of this embodiment. Raises `DatasetError` where there is none."""
        found = next((member for member in self.members if member.name == embodiment), None)
        if found is None:
            known = ", ".join(member.name for member in self.members)
            raise DatasetError(f"{self.folder} holds no data of embodiment {embodiment!r}; it holds {known}. Fix: name one of these")
        return found

    def folder_of(self, embodiment: str) -> Path:
        """The frozen data set of one embodiment; of a set of one, that. Raises `DatasetError` where there is none of that name."""
        return self.folder if len(self.members) == 1 else self.member(embodiment).folder

    def order(self, split: str) -> NDArray[np.int64]:
        """What training draws from, (N, 2): member and place in its split, each as often as the weight of its source says relative to the
        least weight of all (`drawing_order` says how a part of a time is meant).
        """
        least = min(min(member.manifest.get("weights", (1.0,))) for member in self.members)
        drawn = [repeated(sample_weights(member.folder, split) / least) for member in self.members]
        return np.concatenate([np.stack([np.full(len(one_N), place), one_N], axis=1) for place, one_N in enumerate(drawn)])


def open_frozen(folder: Path) -> FrozenMembers:
    """The embodiments of a frozen data set. Raises `DatasetError` for one that is missing, or is not the one that was frozen with it."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise DatasetError(f"{folder} is not a frozen data set: {path.name} is missing. Fix: run the freeze stage")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if "embodiments" not in manifest:
        return FrozenMembers(folder=folder, manifest=manifest, members=(_member(folder),))
    members: list[FrozenMember] = []
    for entry in manifest["embodiments"]:
        place = folder / "embodiments" / entry["name"]
        member = _member(place)
        found = (sha256_file(place / "manifest.json"), member.contract.contract_id)
        if found != (entry["manifest_sha256"], entry["contract_id"]):
            raise DatasetError(
                f"{place} is not what was frozen: expected manifest {entry['manifest_sha256'][:12]} and contract {entry['contract_id']}, "
                f"got {found[0][:12]} and {found[1]}. Fix: `dvc pull`, or freeze again"
            )
        members.append(member)
    return FrozenMembers(folder=folder, manifest=manifest, members=tuple(members))


def _member(folder: Path) -> FrozenMember:
    manifest, contract = read_frozen(folder)
    return FrozenMember(folder=folder, manifest=manifest, contract=contract)
