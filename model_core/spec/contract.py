"""The contract: everything that a checkpoint promises about numbers, cameras and words, hashed.

It is made when a data set is frozen, travels with the weights to the robot, and is compared there field by
field before anything moves (`spec.conversion`). `contract_id` is the SHA-256 of the canonical JSON form (sorted keys, no
spaces, shortest floats), cut to 16 hex digits.

A field that came with version 2 is left out of the document while it holds its default. So a document of version 1
reads as it is, and keeps its id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from model_core.spec.documents import Number, from_document
from model_core.spec.embodiment import (
    COLORS,
    ENCODINGS,
    MODES,
    CameraSpec,
    DimSpec,
    EmbodimentSpec,
    Mismatch,
    VectorSpec,
    document_of,
    embodiment_from_json,
    mismatches,
    since_2,
)
from model_core.spec.errors import ContractError, SpecError, require
from model_core.spec.stats import UnnormStats
from model_core.spec.types import LEVELS

__all__ = [
    "COLORS", "ENCODINGS", "KINDS", "MODES", "PROTOCOL_VERSION", "CameraSpec", "DimSpec", "EmbodimentSpec", "GoldenProbe", "Mismatch",
    "PolicyContract", "ReasoningSpec", "VectorSpec", "canonical_json", "digest_of", "document_of", "embodiment_from_json", "mismatches",
]  # fmt: skip

PROTOCOL_VERSION = 2
KINDS = ("causal", "parallel")


def canonical_json(document: object) -> str:
    """One text for one meaning: sorted keys, no spaces, no NaN. Raises ValueError on NaN or inf."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(document: object) -> str:
    """SHA-256 (hex, 64) of the canonical JSON of `document`."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningSpec:
    """What the model predicts before it acts, and how that is encoded.

    spelling: "compact" (one id a value) or "published" (byte-level text). codebook_digest: SHA-256 of the depth
    VQ-VAE that made the labels, so that depth tokens can be decoded years later. levels: what may be asked for
    (`types.LEVELS`). kind: "causal" predicts action symbols one after the other, "parallel" all at once.
    """

    depth_grid: tuple[int, int] = (10, 10)
    depth_codes: int = 128
    codebook_digest: str = ""
    trace_points: int = 5
    trace_range: int = 255
    trace_camera: str = ""
    steering: bool = True
    spelling: str = "compact"
    levels: tuple[str, ...] = since_2(LEVELS)
    kind: str = since_2("causal")

    def __post_init__(self) -> None:
        known = bool(self.levels) and set(self.levels) <= set(LEVELS)
        require(known, f"reasoning levels must be some of {', '.join(LEVELS)}", got=self.levels)
        require(self.kind in KINDS, f"reasoning kind must be one of {', '.join(KINDS)}", got=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenProbe:
    """A recorded question, by digest, and the box in which its answer lies: one low and high value per action dimension."""

    name: str
    observation_digest: str
    action_low_A: tuple[Number, ...]
    action_high_A: tuple[Number, ...]

    def __post_init__(self) -> None:
        sound = len(self.action_low_A) == len(self.action_high_A) and all(
            low <= high for low, high in zip(self.action_low_A, self.action_high_A, strict=True)
        )
        require(sound, f"golden probe {self.name!r}: low and high need one value per dimension, low <= high")


@dataclass(frozen=True, kw_only=True)  # without slots: its id is kept in the object, and asked for at every chunk
class PolicyContract:
    """The whole promise of a checkpoint.

    words: the closed vocabulary of instructions (empty: any text up to `max_instruction_chars`). templates: the sentences it
    takes, where "{...}" stands for any words (empty: any). dataset_version: digest of the data set that the statistics and
    words were taken from. hz_tolerance: by how many hertz a cell's control rate may differ. max_prefix_rows: how many rows of
    a chunk may be committed in advance (by default all but the last). golden_probes: filled in when the model is packed.
    """

    embodiment: EmbodimentSpec
    stats: UnnormStats
    reasoning: ReasoningSpec
    chunk_length: int
    execute_horizon: int
    words: tuple[str, ...] = ()
    max_instruction_chars: int = 200
    dataset_version: str = ""
    protocol: int = PROTOCOL_VERSION
    templates: tuple[str, ...] = since_2(())
    hz_tolerance: Number = since_2(0.0)
    max_prefix_rows: int = since_2(-1)
    golden_probes: tuple[GoldenProbe, ...] = since_2(())

    def __post_init__(self) -> None:
        require(1 <= self.execute_horizon <= self.chunk_length, "execute_horizon must be 1..chunk_length", got=self.execute_horizon)
        require(1 <= self.protocol <= PROTOCOL_VERSION, f"contracts of version 1..{PROTOCOL_VERSION} are read here", got=self.protocol)
        dims = len(self.embodiment.action)
        require(len(self.stats) == dims, "statistics and action dimensions differ", got=len(self.stats), error=ContractError)
        probes_fit = all(len(p.action_low_A) == dims for p in self.golden_probes)
        require(probes_fit, "golden probes and action dimensions differ", error=ContractError)
        if self.max_prefix_rows < 0:
            object.__setattr__(self, "max_prefix_rows", self.chunk_length - 1)

    @cached_property
    def contract_id(self) -> str:
        """16 hex digits that name this promise and no other."""
        return digest_of(self.to_json())[:16]

    @property
    def policy_id(self) -> str:
        """16 hex digits of the promise without its golden probes: the same before and after packing."""
        return digest_of({k: v for k, v in self.to_json().items() if k != "golden_probes"})[:16]

    @property
    def stats_digest(self) -> str:
        """SHA-256 (hex, 64) of the statistics alone."""
        return digest_of(document_of(self.stats))

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; `from_json` is its exact inverse."""
        document = document_of(self)
        if self.max_prefix_rows == self.chunk_length - 1:
            del document["max_prefix_rows"]
        return document if self.protocol < 2 else {**document, "stats_digest": self.stats_digest}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> PolicyContract:
        """Read a contract; raises `ContractError` naming the field that is missing, unknown or wrong, or statistics that were changed."""
        promised = document.get("stats_digest", "")
        try:
            values = {name: value for name, value in document.items() if name != "stats_digest"}
            contract = from_document(PolicyContract, values, where="contract")
        except SpecError as error:
            raise ContractError(f"not a contract of version 1..{PROTOCOL_VERSION}: {error}") from error
        if promised not in ("", contract.stats_digest):
            raise ContractError(f"stats_digest: the document names {str(promised)[:12]}, its statistics give {contract.stats_digest[:12]}")
        return contract

    def refused_instruction(self, instruction: str) -> str:
        """Why this instruction may not be asked; "" when it may. Unknown words are the model's own to refuse."""
        if len(instruction) > self.max_instruction_chars:
            return f"the instruction has {len(instruction)} characters, at most {self.max_instruction_chars} are allowed"
        if self.templates and not any(_fits(template, instruction) for template in self.templates):
            return f"the instruction fits none of the {len(self.templates)} sentences of the contract, such as {self.templates[0]!r}"
        return ""


def _fits(template: str, instruction: str) -> bool:
    parts = [re.escape(part) for part in re.split(r"\{[^}]*\}", template)]
    return re.fullmatch(".+".join(parts), instruction, flags=re.IGNORECASE) is not None
