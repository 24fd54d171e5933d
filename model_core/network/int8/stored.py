"""How a checkpoint says that the weights of its linear layers are int8. Needs no torch.

`config.json` names it under the key that other programs name theirs under, so that none of them takes int8 numbers for weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_core.spec.errors import CheckpointError

KEY = "quantization_config"
INT8: Mapping[str, Any] = {
    "quant_method": "actwright-int8",
    "weights": "int8, symmetric, one scale for each output",
    "layers": "all linear layers",
    "activations": "float32",
}
SCALE = "weight_scale"  # beside each int8 `weight`, float32, one number for each output
REPORT = "int8_report.json"


def is_int8(extras: Mapping[str, Any]) -> bool:
    """Whether a network with these further keys of `config.json` has int8 weights. Raises `CheckpointError` for a form that is not ours."""
    found = extras.get(KEY)
    if found is None:
        return False
    if found != INT8:
        raise CheckpointError(
            f"config.json: {KEY} is {found!r:.120}; expected none, or {dict(INT8)!r}. "
            "Fix: use the checkpoint that it was made of, and `actwright model quantize`"
        )
    return True


def is_int8_folder(folder: Path) -> bool:
    """Whether the checkpoint in `folder` has int8 weights; False where its `config.json` cannot be read, which is told elsewhere."""
    try:
        document: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get(KEY) == INT8


def refuse_int8(extras: Mapping[str, Any], where: object, done: str) -> None:
    """Raise `CheckpointError` where these are int8 weights. done: what is not done with them ("trained")."""
    if is_int8(extras):
        raise CheckpointError(
            f"{where} has int8 weights, which are served and not {done}: rounding cannot be undone. "
            f"Fix: name the checkpoint that it was made of (its {REPORT} says which)"
        )
