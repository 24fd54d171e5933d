"""What was packed: weights, contract, golden probes and a list of files with their digests, checked before use.

bundle.json     model_version, contract_id, reasoning, torch_threads, files {path: sha256}
contract.json   the checkpoint's contract with its golden probes
checkpoint/     as `model_core.checkpoint` writes it
probes/         as `serving.gateway.inference.golden_probes` reads it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_core.spec.contract import PolicyContract, digest_of
from model_core.spec.errors import CheckpointError
from serving.gateway.inference.golden_probes import load_probes
from serving.gateway.inference.model_host import LoadedModel


def open_bundle(folder: Path) -> LoadedModel:
    """Check and load a bundle. Raises CheckpointError naming the file that is missing, changed or does not belong."""
    manifest = read_manifest(folder)
    import torch

    from model_core.policy import load_policy

    torch.set_num_threads(int(manifest.get("torch_threads", 1)))
    policy = load_policy(folder / "checkpoint", model_version=str(manifest["model_version"]), reasoning=str(manifest["reasoning"]))
    contract = _packed_contract(folder, policy.contract)
    if contract.contract_id != manifest["contract_id"]:
        raise CheckpointError(f"the bundle was packed with contract {manifest['contract_id']}, it holds {contract.contract_id}")
    return LoadedModel(
        policy=policy,
        contract=contract,
        model_version=str(manifest["model_version"]),
        probes=load_probes(folder / "probes"),
        bundle_digest=digest_of(manifest),
    )


def _packed_contract(folder: Path, trained: PolicyContract) -> PolicyContract:
    """The contract with golden probes. A bundle of version 1 has none beside its checkpoint's."""
    path = folder / "contract.json"
    if not path.is_file():
        return trained
    packed = PolicyContract.from_json(json.loads(path.read_text(encoding="utf-8")))
    if packed.policy_id != trained.policy_id:
        raise CheckpointError(f"{path.name} is of policy {packed.policy_id}, the checkpoint beside it of {trained.policy_id}")
    return packed


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The bundle's own list, after every file in it was hashed and found equal."""
    path = folder / "bundle.json"
    if not path.exists():
        raise CheckpointError(f"{folder} is not a bundle: it has no bundle.json; Fix: write one with `actwright export --to FOLDER`")
    manifest = json.loads(path.read_text())
    for name, expected in manifest["files"].items():
        part = folder / name
        if not part.is_file():
            raise CheckpointError(f"the bundle lacks {name}")
        if hashlib.sha256(part.read_bytes()).hexdigest() != expected:
            raise CheckpointError(f"{name} was changed after it was packed: its SHA-256 is not {expected[:12]}...")
    return manifest
