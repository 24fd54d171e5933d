"""The file by which an agent names the candidate that a running policy service compares with its own answers (docs/fleet.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError
from model_core.spec.fleet.documents import checked_name
from model_core.spec.settings import digest, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """release: digest of the release that answers in shadow. bundle: folder of its packed policy, an absolute path. cell: the only one
    whose decisions are compared; "" for every cell of the service."""

    release: str
    bundle: str
    cell: str = ""

    def __post_init__(self) -> None:
        digest("release", self.release)
        text("bundle", self.bundle, longest=4_096)
        if self.cell:
            checked_name("cell", self.cell)


def written_candidate(candidate: Candidate) -> str:
    """The text of the file."""
    return json.dumps(to_document(candidate), sort_keys=True) + "\n"


def read_candidate(content: bytes, where: str) -> Candidate:
    """The inverse of `written_candidate`. Raises `SpecError` for anything else."""
    try:
        return from_document(Candidate, json.loads(content), where=where)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} names no candidate: {error}. Fix: let the agent write it again, or remove it") from error
