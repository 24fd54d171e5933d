"""Loading a bundle: every file checked against the manifest, then weights, contract and golden probes."""

from __future__ import annotations

import json
from pathlib import Path

from model_core.bundle import CHECKPOINT, CONTRACT, NOVELTY, NOVELTY_BYTES, PACK_AGAIN, PROBES, checked_manifest
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, require
from model_core.spec.execution.novelty import NoveltyReference
from serving.gateway.inference.golden_probes import load_golden_probes
from serving.gateway.inference.served_model import LoadedModel


def open_bundle(folder: Path) -> LoadedModel:
    """Check and load a bundle. Raises CheckpointError naming the file that is missing, changed or does not belong."""
    manifest = checked_manifest(folder)
    import torch

    from model_core.policy import load_policy

    torch.set_num_threads(manifest.torch_threads)
    policy = load_policy(folder / CHECKPOINT, model_version=manifest.model_version, reasoning=manifest.reasoning)
    contract = _packed_contract(folder, policy.contract)
    if contract.contract_id != manifest.contract_id:
        raise CheckpointError(f"the bundle was packed with contract {manifest.contract_id}, it holds {contract.contract_id}")
    return LoadedModel(
        policy=policy,
        contract=contract,
        model_version=manifest.model_version,
        probes=load_golden_probes(folder / PROBES),
        bundle_digest=manifest.digest,
        novelty=_novelty_reference(folder, contract) if NOVELTY in manifest.files else None,
    )


def _novelty_reference(folder: Path, contract: PolicyContract) -> NoveltyReference:
    """What the policy was trained on, as novelty is measured by. Raises CheckpointError for a file that is not one."""
    from safetensors.numpy import load

    path, body = folder / NOVELTY, contract.embodiment
    try:
        require(path.stat().st_size <= NOVELTY_BYTES, f"expected at most {NOVELTY_BYTES} bytes", got=path.stat().st_size)
        return NoveltyReference.from_tensors(load(path.read_bytes()), len(body.cameras), len(body.proprio.dims))
    except Exception as error:  # of the library's own kinds too: whatever it is, this is no such file
        raise CheckpointError(f"{path} is no reference for novelty: {error}; {PACK_AGAIN}") from error


def _packed_contract(folder: Path, trained: PolicyContract) -> PolicyContract:
    """The contract with golden probes. A bundle of version 1 has none beside its checkpoint's."""
    path = folder / CONTRACT
    if not path.is_file():
        return trained
    packed = PolicyContract.from_json(json.loads(path.read_text(encoding="utf-8")))
    if packed.policy_id != trained.policy_id:
        raise CheckpointError(f"{path.name} is of policy {packed.policy_id}, the checkpoint beside it of {trained.policy_id}")
    return packed
