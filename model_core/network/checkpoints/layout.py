"""Names of the weights: the published layout, the training-side ("olmo") layout, and what a config must have.

published   model.transformer.blocks.3.self_attn.att_proj.weight    lm_head.weight
olmo              transformer.blocks.3.att_proj.weight              transformer.ff_out.weight
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch

from model_core.network.config import MolmoActConfig
from model_core.network.model import MolmoAct
from model_core.spec.errors import CheckpointError

Layout = Literal["published", "olmo"]
Shapes = Mapping[str, tuple[int, ...]]

PAD_EMBED = "model.vision_backbone.pad_embed"
_DTYPE_KEYS = ("torch_dtype", "dtype")  # the older and the newer name, as released
_HEAD = "lm_head.weight"
_OLMO_HEAD = "transformer.ff_out.weight"
_BLOCK = re.compile(r"^transformer\.blocks\.(\d+)\.(att_proj|attn_out|q_norm|k_norm|ff_proj|ff_out)\.(weight|bias)$")
_PART = {"att_proj": "self_attn", "attn_out": "self_attn", "q_norm": "self_attn", "k_norm": "self_attn", "ff_proj": "mlp", "ff_out": "mlp"}


def to_olmo(key: str) -> str:
    """A published key as the training side names it."""
    if key == _HEAD:
        return _OLMO_HEAD
    return re.sub(r"^(transformer\.blocks\.\d+)\.(?:self_attn|mlp)\.", r"\1.", key.removeprefix("model."))


def to_published(key: str) -> str:
    """A training-side key as the published checkpoint names it."""
    if key == _OLMO_HEAD:
        return _HEAD
    match = _BLOCK.match(key)
    if match is not None:
        block, name, kind = match.groups()
        return f"model.transformer.blocks.{block}.{_PART[name]}.{name}.{kind}"
    return f"model.{key}"


def detect_layout(keys: Iterable[str]) -> Layout:
    """Which of the two layouts these keys are in. Raises CheckpointError when they are in neither."""
    names = list(keys)
    if any(key.startswith("model.transformer.") for key in names):
        return "published"
    if any(key.startswith("transformer.") for key in names):
        return "olmo"
    raise CheckpointError(f"neither the published nor the training-side key layout: first keys {sorted(names)[:5]}")


def stored_as(config: MolmoActConfig, dtype: torch.dtype | None) -> MolmoActConfig:
    """A config that names `dtype` where it names the weights' number format at all: the published loader goes by it. None: as it is."""
    named = [key for key in _DTYPE_KEYS if key in config.extras]
    if dtype is None or not named:
        return config
    return replace(config, extras={**config.extras, **dict.fromkeys(named, str(dtype).removeprefix("torch."))})


def expected_shapes(config: MolmoActConfig) -> dict[str, tuple[int, ...]]:
    """Every published key of a config with its shape; the network is built on the meta device, so this costs no memory."""
    with torch.device("meta"):
        model = MolmoAct(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def type_problems(found: Mapping[str, torch.dtype], config: MolmoActConfig) -> list[str]:
    """Every key that is stored as whole numbers where the network has fractions, or the other way round, as one line each."""
    with torch.device("meta"):
        expected = {name: parameter.dtype.is_floating_point for name, parameter in MolmoAct(config).named_parameters()}
    kinds = {True: "fractions", False: "int8"}
    return [
        f"wrong type  {key} expected {kinds[expected[key]]}, got {str(dtype).removeprefix('torch.')}"
        for key, dtype in sorted(found.items())
        if key in expected and (not dtype.is_floating_point if expected[key] else dtype is not torch.int8)
    ]


def key_problems(found: Shapes, expected: Shapes) -> list[str]:
    """Every missing key, extra key and wrong shape, as one line each; empty when they belong together."""
    missing = [f"missing     {key} {list(expected[key])}" for key in sorted(expected.keys() - found.keys())]
    extra = [f"unexpected  {key} {list(found[key])}" for key in sorted(found.keys() - expected.keys())]
    both = sorted(found.keys() & expected.keys())
    wrong = [f"wrong shape {key} expected {list(expected[key])}, got {list(found[key])}" for key in both if found[key] != expected[key]]
    return missing + extra + wrong
