"""A recorded decision as an image for people: cameras with the predicted trace, depth, actions as answered and as executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.deployment.audit_replay import body_of, contract_of, images_of, recorded_trace
from components.drawing.decision import DecisionView
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile, AuditRecord

if TYPE_CHECKING:
    from model_core.tokenization.depth.codec import DepthCodec


def decode_depth(codes_G: NDArray[np.integer] | None, codebook_digest: str, folders: Iterable[Path]) -> NDArray[np.floating] | None:
    """Depth codes as distances by the codec of that digest, looked for in `folders`; None where none of them has it."""
    if codes_G is None or not len(codes_G):
        return None
    for folder in folders:
        if (folder / "config.json").is_file():
            codec = _codec_of(folder)
            if not codebook_digest or codec.digest == codebook_digest:
                return codec.decode(np.asarray(codes_G)[None])[0]
    return None


@lru_cache(maxsize=4)
def _codec_of(folder: Path) -> DepthCodec:
    from model_core.tokenization.depth.codec import DepthCodec

    return DepthCodec.load(folder)


def view_of(found: AuditFile, record: AuditRecord, codebooks: Iterable[Path], verdict: str = "") -> DecisionView:
    """A decision as the content of an image: with the actions of its chunk that were executed. verdict: a last line."""
    contract, chunk = contract_of(found), record.body.get("chunk") or {}
    codes = chunk.get("depth_codes_G")
    codes_G = None if codes is None else np.asarray(codes, np.int64)
    decisions = [one.n for one in found.of(Kind.DECISION)]
    steps = _steps_of(found, chunk)
    return DecisionView(
        title=f"{found.records[0].body['task']}: decision {decisions.index(record.n) + 1} of {len(decisions)}",
        images=images_of(found, record),
        action=body_of(found).action,
        raw_KA=np.asarray(chunk["actions_KA"], np.float64) if chunk else None,
        executed=[(float(step["row"]), np.asarray(step["sent_A"], np.float32)) for step in steps],
        trace=recorded_trace(chunk.get("trace_N2")),
        trace_camera=contract.reasoning.trace_camera,
        depth_HW=decode_depth(codes_G, contract.reasoning.codebook_digest, codebooks),
        codes_G=codes_G,
        notes=[*_notes(found, record, steps), *([verdict] if verdict else [])],
        timing_ms=stages_of(chunk.get("timing_ms") or {}),
    )


def _steps_of(found: AuditFile, chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Control steps that executed rows of this chunk."""
    name = chunk.get("chunk_id")
    return [step.body for step in found.of(Kind.EXECUTED) if name and step.body.get("chunk_id") == name and step.body["row"] >= 0]


def _notes(found: AuditFile, record: AuditRecord, steps: list[Mapping[str, Any]]) -> list[str]:
    body, begin = record.body, found.records[0].body
    chunk = body.get("chunk") or {}
    clipped = sum(1 for step in steps if step.get("clipped"))
    level = chunk.get("level") or body.get("level") or "-"
    noticed = f" ({', '.join(chunk['flags'])})" if chunk.get("flags") else ""
    refused = f" {body['code']}: {body['reason']}" if body.get("code") else ""
    proof = "" if found.is_proven else f"; the file is not proven: {found.problem}"
    return [
        f"{begin['cell']}, episode {begin['episode_id']}, step {body['step']}, epoch {body['epoch']}, request {body['seq']}, "
        f"chunk {chunk.get('chunk_id') or '-'}: {body['outcome']}{refused}",
        f'"{body["instruction"]}", level {level}{noticed}, answered after {body["answer_ms"]:.0f} ms; '
        f"{len(steps)} rows executed, {clipped} of them clipped",
        f"model {begin['model_version']}, bundle {str(begin.get('bundle_digest') or '-')[:16]}, contract {begin['contract_id']}, "
        f"record {record.n} with SHA-256 {record.digest[:16]}{proof}",
    ]


def stages_of(timing_ms: Mapping[str, float]) -> dict[str, float]:
    """Times that add up, in the order in which they pass: waiting, then the model's own stages; sums of them are left out."""
    order = ("queue", "decode", "model.vision", "model.prefill", "model.depth", "model.trace", "model.action")
    parts = {name: float(ms) for name, ms in timing_ms.items() if "." in name or name in order}
    known = {name: parts.pop(name) for name in order if name in parts}
    return {name.removeprefix("model."): ms for name, ms in {**known, **parts}.items()}
