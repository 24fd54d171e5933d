"""What is in a checkpoint folder, and what is missing from it: read from headers, nothing is loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.contracts import CONTRACTS
from model_core.network.checkpoints import hub, layout
from model_core.network.checkpoints.shards import strangers
from model_core.network.config import MolmoActConfig
from model_core.network.int8.stored import SCALE
from model_core.network.presets import molmoact_7b_d, molmoact_7b_o
from model_core.network.queries import ActionHead, action_head_of
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError

_ACTIONS = {
    ActionHead.CAUSAL: "causal: value after value",
    ActionHead.PARALLEL: "parallel: all values in one forward, by placeholders",
    ActionHead.BOTH: "both: value after value, with placeholders that can draft them",
}
_TOKENIZERS = ("tokenizer.json", "vocab.json", "qwen.tiktoken")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """One look at a folder. `missing`: what a complete checkpoint would also hold. `broken`: what stops it from loading."""

    folder: str
    architecture: dict[str, Any]
    parameters: dict[str, int]
    weights: dict[str, Any]
    vocabulary: dict[str, Any]
    contract: dict[str, Any]
    norm_stats: list[str]
    missing: list[str]
    broken: list[str]


def inspect_checkpoint(folder: Path, config: MolmoActConfig | None = None) -> CheckpointReport:
    """Look at a checkpoint folder. Raises CheckpointError only when there is no config to go by."""
    config = config if config is not None else MolmoActConfig.from_json(folder)
    broken: list[str] = []
    weights: dict[str, Any] = {}
    try:
        files = hub.open_checkpoint(folder, config)
        config = files.config
        broken += files.problems()
        weights = {
            "layout": files.layout,
            "files": sorted({stored.file.name for stored in files.tensors.values()}),
            "dtypes": sorted({str(stored.dtype).removeprefix("torch.") for stored in files.tensors.values()}),
            "bytes": sum(stored.bytes for stored in files.tensors.values()),
        }
        if not_read := strangers(folder):
            weights["not_read"] = not_read
    except ActwrightError as error:
        broken.append(str(error))
    contract, complaints = _contract(folder)
    return CheckpointReport(
        folder=str(folder),
        architecture=_architecture(config),
        parameters=_parameters(config),
        weights=weights,
        vocabulary=_vocabulary(config),
        contract=contract,
        norm_stats=sorted(config.norm_stats),
        missing=_missing(folder, config),
        broken=broken + complaints,
    )


def _architecture(config: MolmoActConfig) -> dict[str, Any]:
    vit, llm = config.vit, config.llm
    tower = "conv stem" if vit.patch_stem == "conv" else "CLIP-type" if vit.use_cls_token else "SigLIP-type"
    return {
        "family": _family(config),
        "vision": f"{tower}, {vit.image_default_input_size[0]}x{vit.image_default_input_size[1]} px, patch {vit.image_patch_size}, "
        f"{config.vit_blocks} of {vit.num_hidden_layers} blocks, width {vit.hidden_size}, features of blocks {list(config.feature_layers)}",
        "connector": f"2x2 attention pooling {config.feature_width} -> {config.adapter.hidden_size}, "
        f"SwiGLU {config.adapter.intermediate_size}, padding embedding {config.adapter.image_padding_embed or 'none'}",
        "language": f"{llm.num_hidden_layers} layers, width {llm.hidden_size}, {llm.num_attention_heads}/{llm.num_key_value_heads} heads, "
        f"{'post' if llm.norm_after else 'pre'}-norm, QKV bias {'yes' if llm.qkv_bias else 'no'}, "
        f"QK-norm {llm.qk_norm_type if llm.use_qk_norm else 'none'}, RoPE theta {llm.rope_theta:g}",
        "max_positions": llm.max_position_embeddings,
        "actions": _ACTIONS[action_head_of(config)],
    }


def _family(config: MolmoActConfig) -> str:
    for name, known in (("MolmoAct-7B-D", molmoact_7b_d()), ("MolmoAct-7B-O", molmoact_7b_o())):
        if (config.vit, config.llm.hidden_size, config.llm.num_hidden_layers) == (
            known.vit,
            known.llm.hidden_size,
            known.llm.num_hidden_layers,
        ):
            return name
    if config.llm.num_slots:
        return "compact (fixed slots)"
    return "7B-O style" if config.llm.norm_after else "7B-D style"


def _parameters(config: MolmoActConfig) -> dict[str, int]:
    parts = {"language": 0, "vision": 0, "connector": 0}
    for key, shape in layout.expected_shapes(config).items():
        if key.endswith(SCALE):  # of int8 weights: how they are stored, not what was learned
            continue
        part = "vision" if ".image_vit." in key else "connector" if ".vision_backbone." in key else "language"
        parts[part] += math.prod(shape)
    return {"total": sum(parts.values()), **parts}


def _vocabulary(config: MolmoActConfig) -> dict[str, Any]:
    return {
        "base_rows": config.llm.vocab_size,
        "additional_rows": config.llm.additional_vocab_size,
        "image_patch_id": config.image_patch_id,
        "action_bins": config.n_action_bins,
    }


def _contract(folder: Path) -> tuple[dict[str, Any], list[str]]:
    path = folder / "contract.json"
    if not path.is_file():
        return {}, []
    try:
        contract = PolicyContract.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ActwrightError, ValueError, KeyError, TypeError) as error:
        return {}, [f"contract.json cannot be read: {error}"]
    body = contract.embodiment
    others = sorted(place.stem for place in (folder / CONTRACTS).glob("*.json") if place.stem != body.name)
    return {
        "id": contract.contract_id,
        "embodiment": body.name,
        "cameras": [camera.name for camera in body.cameras],
        "state": [f"{dim.name} ({dim.unit})" for dim in body.proprio.dims],
        "action": [dim.name for dim in body.action.dims],
        "action_units": [dim.unit for dim in body.action.dims],
        "action_modes": list(body.action.modes),
        "chunk": [contract.chunk_length, contract.execute_horizon],
        "levels": list(contract.reasoning.levels),
        "stats_digest": contract.stats_digest[:16],
        "control_hz": body.control_hz,
        "kind": contract.reasoning.kind,
        **({"further_embodiments": others} if others else {}),
    }, []


def _missing(folder: Path, config: MolmoActConfig) -> list[str]:
    lines = []
    if not (folder / "contract.json").is_file():
        lines.append("contract.json: units, cameras and limits are not stated; for serving, state them with `actwright model adopt`")
    if not config.llm.num_slots:  # a compact model brings its words in its contract
        if not any((folder / name).is_file() for name in _TOKENIZERS):
            lines.append("tokenizer (tokenizer.json, vocab.json or qwen.tiktoken): the packaged Qwen2 table is right for 7B-D only")
        if not (folder / "preprocessor_config.json").is_file():
            lines.append("preprocessor_config.json: the published defaults will be used for images")
        if not config.norm_stats:
            lines.append("norm_stats in config.json: actions cannot be brought back to physical units")
    if not any((place).exists() for place in (folder / "vae-final.pt", folder / "vqvae")):
        lines.append("depth VQ-VAE (vae-final.pt or vqvae/): depth codes cannot be decoded to an image")
    return lines
