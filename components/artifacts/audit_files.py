"""Audit files on disk, as commands read them."""

from __future__ import annotations

from pathlib import Path

from model_core.spec.audit.reading import AuditFile, prove_audit
from model_core.spec.errors import SpecError


def read_audit(path: Path) -> AuditFile:
    """Read and prove one file. Raises `SpecError` when there is no such file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}. Fix: give an audit file, such as episode.mcap") from error
    return prove_audit(data, path)
