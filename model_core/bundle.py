"""The format of a bundle: one packed policy in a folder, with a manifest that lists every file and its digest.

bundle.json     model_version, contract_id, reasoning, torch_threads, files {path: sha256}; `package`: how it was packed
contract.json   the checkpoint's contract with its golden probes (bundles of version 1 have it in the checkpoint only)
checkpoint/     as `model_core.checkpoint` writes it
probes/         golden probes, pairs of an OBSERVE and its CHUNK
novelty.safetensors  what it was trained on, as `spec.execution.novelty` compares it; not in every bundle

Reading a manifest imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.adoption.document import digest_of_file
from model_core.spec.contract import digest_of
from model_core.spec.errors import CheckpointError

MANIFEST, CHECKPOINT, CONTRACT, PROBES = "bundle.json", "checkpoint", "contract.json", "probes"
NOVELTY, NOVELTY_BYTES = "novelty.safetensors", 512 * 2**10  # at most so many bytes
PACK_AGAIN = "Fix: write a new bundle with `actwright export --to FOLDER`, or let `actwright serve` pack a checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """What bundle.json says. files: path below the bundle -> SHA-256. document: as it was read, with every key."""

    model_version: str
    contract_id: str
    files: Mapping[str, str]
    reasoning: str = "full"
    torch_threads: int = 1
    document: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of every file in the bundle; a service repeats it with every chunk."""
        return digest_of(self.document)


def read_manifest(bundle: Path) -> BundleManifest:
    """The manifest of a bundle; its files are not looked at. Raises CheckpointError saying what is wrong with it."""
    path = bundle / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{bundle} is not a bundle: it has no {MANIFEST}; {PACK_AGAIN}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {PACK_AGAIN}") from error
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        raise CheckpointError(f"{path}: expected a map with model_version, contract_id and files; {PACK_AGAIN}")
    missing = [name for name in ("model_version", "contract_id") if not isinstance(document.get(name), str)]
    if missing:
        raise CheckpointError(f"{path}: expected a text for {missing[0]}, got {document.get(missing[0])!r:.60}; {PACK_AGAIN}")
    return BundleManifest(
        model_version=document["model_version"],
        contract_id=document["contract_id"],
        files=document["files"],
        reasoning=str(document.get("reasoning", "full")),
        torch_threads=int(document.get("torch_threads", 1)),
        document=document,
    )


def checked_manifest(bundle: Path) -> BundleManifest:
    """The manifest, after every file that it lists was hashed and found equal. Raises CheckpointError naming the first that is not."""
    manifest = read_manifest(bundle)
    for name, expected in manifest.files.items():
        path = bundle / name
        got = digest_of_file(path) if path.is_file() else "no such file"
        if got != expected:
            raise CheckpointError(f"{path} is not what was packed: expected sha256 {expected[:12]}, got {got[:12]}; {PACK_AGAIN}")
    return manifest


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative path: the `files` of a manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_of_file(path) for path in files}
