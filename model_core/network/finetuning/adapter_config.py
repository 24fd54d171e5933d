"""What an `adapter_config.json` says about the adapters beside it: rank and scale of every layer, or why they cannot be read.

Each field of peft's document is in exactly one of three groups: it is read, it cannot change what the stored numbers mean, or
it must hold the value at which it does nothing. A field that is in no group is refused unless it is off.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model_core.spec.errors import CheckpointError

CONFIG_FILE = "adapter_config.json"
_MERGE_THERE = "Fix: merge the adapter with the library that trained it (peft: merge_and_unload), and use the merged checkpoint"
_FETCH_AGAIN = "Fix: fetch the adapter folder again, its weights and its config are not of one training"
_READ = frozenset({"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"})
# where adapters sit is told by the names of the stored tensors; the rest says how they were begun, trained or published
_WITHOUT_EFFECT = frozenset(
    (
        *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),  # read only with the start of their name, see _STARTS
    )
)
_ONLY: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA", None),
    "bias": ("none", None),
    # the other ways to begin ("pissa", "olora", "loftq", ...) take a part out of the base weights, which ours still have
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """How adapters scale: the update of a layer is B A times alpha / rank, or alpha / sqrt(rank) where `rank_stabilized`.

    rank_pattern, alpha_pattern: the end of a layer's name, as a regular expression, -> this layer's own value.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rank_stabilized: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def of_layers(self, layers: Mapping[str, str]) -> AdapterConfig:
        """The same, with patterns that name whole layers of ours. layers: our name of a layer -> its name in the adapter file.

        Raises CheckpointError for a pattern that no stored layer has.
        """
        ranks, alphas = _of_layers("rank_pattern", self.rank_pattern, layers), _of_layers("alpha_pattern", self.alpha_pattern, layers)
        return replace(self, rank_pattern=ranks, alpha_pattern=alphas)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json`. Raises CheckpointError for one that is damaged, or that asks for what is not computed here."""
    path = folder / CONFIG_FILE
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. {_FETCH_AGAIN}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(document).__name__}. {_FETCH_AGAIN}")
    refused = [f"{name} = {value!r}" for name, value in sorted(document.items()) if not _is_understood(name, value)]
    if refused:
        raise CheckpointError(
            f"{path}: expected plain LoRA (alpha / rank, alpha / sqrt(rank) with use_rslora, values of single layers by rank_pattern and "
            f"alpha_pattern), got {', '.join(refused)}: added as plain LoRA it would be another model. {_MERGE_THERE}"
        )
    return AdapterConfig(
        rank=_whole(document.get("r"), f"{path}: r"),
        alpha=_positive(document.get("lora_alpha"), f"{path}: lora_alpha"),
        dropout=float(document.get("lora_dropout") or 0.0),
        rank_stabilized=bool(document.get("use_rslora")),
        rank_pattern={key: _whole(value, f"{path}: rank_pattern.{key}") for key, value in _pattern(document, "rank_pattern", path)},
        alpha_pattern={key: _positive(value, f"{path}: alpha_pattern.{key}") for key, value in _pattern(document, "alpha_pattern", path)},
    )


def _is_understood(name: str, value: object) -> bool:
    if name in _READ or name in _WITHOUT_EFFECT:
        return True
    if name in _ONLY:
        return value in _ONLY[name]
    return value is None or value is False or value == {} or value == []


def _pattern(document: Mapping[str, Any], name: str, path: Path) -> list[tuple[str, Any]]:
    found = document.get(name) or {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: {name}: expected layers with their values, got {found!r:.60}. {_FETCH_AGAIN}")
    return list(found.items())


def _positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise CheckpointError(f"{where}: expected a number above 0, got {value!r}. {_FETCH_AGAIN}")
    return value


def _whole(value: object, where: str) -> int:
    number = _positive(value, where)
    if number != int(number):
        raise CheckpointError(f"{where}: expected a whole number above 0, got {value!r}. {_FETCH_AGAIN}")
    return int(number)


def _of_layers(name: str, pattern: Mapping[str, Any], layers: Mapping[str, str]) -> dict[str, Any]:
    unused = [key for key in pattern if not any(_fits(key, one) for pair in layers.items() for one in pair)]
    if unused:
        raise CheckpointError(
            f"{CONFIG_FILE}: {name} names {unused}, expected layers that the adapter file holds, such as {sorted(layers.values())[:3]}. "
            f"{_FETCH_AGAIN}"
        )
    found: dict[str, Any] = {}
    for ours, stored in layers.items():
        key = next((key for key in pattern if _fits(key, stored) or _fits(key, ours)), None)  # the first one decides, as in peft
        if key is not None:
            found[f"^{re.escape(ours)}"] = pattern[key]
    return found


def _fits(key: str, layer: str) -> bool:
    """As peft matches a key of a pattern with a layer's name."""
    return re.match(rf"(.*\.)?({key})$", layer) is not None
