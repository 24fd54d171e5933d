"""A folder as `components.release.package` leaves it, as far as an export of its bundle looks: a few small files and their list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def make_bento(folder: Path, *, weights: bytes = b"weights") -> Path:
    """Write it below `folder`; returns `folder`."""
    bundle = folder / "src" / "bundle"
    files = {"checkpoint/model.safetensors": weights, "checkpoint/contract.json": b"{}", "probes/0.json": b"[]"}
    for name, content in files.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(content)
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"model_version": "actwright/1", "contract_id": "c0ffee", "files": listing}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return folder
