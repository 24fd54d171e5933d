"""A contract document in a file, as the service's /v1/contract answers it."""

from __future__ import annotations

import json
from pathlib import Path

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import SpecError


def read_contract(path: Path) -> PolicyContract:
    """The contract in a file, bare or below the field "contract". Raises SpecError naming the file."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecError(f"contract {path}: {error}; get it with: curl -s http://SERVICE/v1/contract") from error
    return PolicyContract.from_json(document.get("contract", document))
