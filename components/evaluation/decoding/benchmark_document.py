"""What a measurement of decoding adds up to: the result's document, one row per side, and its headline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation.decoding.peer_prompt import PROSE, STAGES
from components.evaluation.decoding.peers import GENERATE, OLMO2_GENERATE, QWEN2_GENERATE
from components.evaluation.decoding.replay import FIELDS, Replay, acceptance
from model_core.spec.files import atomic_write

PLAIN, DRAFTS, MEMORY = "ours, plain", "ours, temporal drafts", "ours, drafts from memory"


FAITHFUL, FAITHFUL_DRAFTS = "ours, plain, faithful", "ours, temporal drafts, faithful"


# the same with every product by torch: what the compiled decoder is measured against
MEMORY_TORCH = "ours, drafts from memory, by torch"
WITH_MEMORY = (MEMORY, MEMORY_TORCH)

OURS: Mapping[str, Mapping[str, bool]] = {
    PLAIN: {"constrained": True, "speculate": False},
    DRAFTS: {"constrained": True, "speculate": True},
    MEMORY: {"constrained": True, "speculate": True},
    MEMORY_TORCH: {"constrained": True, "speculate": True, "compiled": False},
    FAITHFUL: {"constrained": False, "speculate": False},
    FAITHFUL_DRAFTS: {"constrained": False, "speculate": True},
}


@dataclass(slots=True, eq=False)
class Measured:
    """What was measured of one side. same: decisions whose tokens are those of plain decoding; None where they are not compared."""

    seconds: dict[int, float] = field(default_factory=dict)
    forwards: list[int] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)
    counts: list[Mapping[str, int]] = field(default_factory=list)
    ids: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def benchmark_document(
    replay: Replay, sides: Mapping[str, Measured], many: Mapping[str, Any], where: Mapping[str, Any], dtype: str
) -> dict[str, Any]:
    """All sides as one document. many: of sessions decoded together. where: the machine."""
    paired = sorted(set.intersection(*(set(sides[name].seconds) for name in GENERATE)))
    wrapped_ms = min(_median_ms(sides[name], paired) for name in GENERATE)
    standard = next((names for names in (QWEN2_GENERATE, OLMO2_GENERATE) if names[0] in sides), GENERATE)
    generate_ms = min(_median_ms(sides[name], paired) for name in standard)
    plain = sides[PLAIN].ids
    rows = [_row(name, side, paired, generate_ms, plain) for name, side in sides.items()]
    compared = [row for row in rows if dtype == "float32" or row["side"] in OURS]
    flips = sum(row["decisions_compared"] - row["decisions_equal"] for row in rows if row["side"] in (DRAFTS, MEMORY))
    by_name = {row["side"]: row for row in rows}
    return {
        "what": "one full decision (vision, prompt, depth, trace, actions) on recorded closed-loop observations",
        "speedup_over_generate": by_name[MEMORY]["speedup_over_generate"],
        "generate": f"the faster of {' and '.join(standard)}",
        "speedup_over_wrapped_generate": wrapped_ms / by_name[MEMORY]["median_ms"],
        "speedup_over_torch": by_name.get(MEMORY_TORCH, by_name[MEMORY])["median_ms"] / by_name[MEMORY]["median_ms"],
        "speedup_temporal_drafts": by_name[DRAFTS]["speedup_over_generate"],
        "speedup_plain": by_name[PLAIN]["speedup_over_generate"],
        "tokens_equal": all(row["decisions_equal"] == row["decisions_compared"] for row in compared) and bool(many["tokens_equal"]),
        "faithful": FAITHFUL in sides,
        "flips": flips,
        "guarded": sum(count.get("guarded", 0) for name in (DRAFTS, MEMORY) for count in sides[name].counts),
        "acceptance": acceptance(sides[MEMORY].counts),
        "agreement_with_last_decision": _agreement(replay, plain),
        "decisions": len(replay),
        "tokens_per_decision": float(np.median([len(ids) for ids in plain.values()])),
        "rows": rows,
        "many_sessions": dict(many),
        "split_ms": {"before": _split(sides[standard[0]], paired), "after": _split(sides[MEMORY], paired)},
        "contract_id": replay.checkpoint.contract.contract_id,
        "machine": dict(where) | {"transformers": _version("transformers")},
    }


def _row(
    name: str, side: Measured, paired: Sequence[int], generate_ms: float, reference: Mapping[int, NDArray[np.int64]]
) -> dict[str, Any]:
    times = np.array(list(side.seconds.values())) * 1e3
    compared = [index for index in side.ids if index in reference]
    median = _median_ms(side, paired)
    return {
        "side": name,
        "median_ms": median,
        "p95_ms": float(np.quantile(times, 0.95)),
        "speedup_over_generate": generate_ms / median,
        "forwards": float(np.mean(side.forwards)),
        "acceptance": acceptance(side.counts) if OURS.get(name, {}).get("speculate") else {},
        "decisions_equal": sum(bool(np.array_equal(side.ids[index], reference[index])) for index in compared),
        "decisions_compared": len(compared),
    }


def _median_ms(side: Measured, paired: Sequence[int]) -> float:
    return float(np.median([side.seconds[index] for index in paired])) * 1e3


def _split(side: Measured, paired: Sequence[int]) -> dict[str, float]:
    """The side's median decision by stage. Medians of stages do not add up to the median of decisions: they are scaled to it."""
    names = STAGES if not any(PROSE in stages for stages in side.stages) else (*STAGES, PROSE)
    medians = {stage: float(np.median([stages.get(stage, 0.0) for stages in side.stages])) for stage in names}
    scale = _median_ms(side, paired) / (sum(medians.values()) or 1.0)
    return {stage: scale * milliseconds for stage, milliseconds in medians.items()}


def _agreement(replay: Replay, answers: Mapping[int, NDArray[np.int64]]) -> dict[str, float]:
    """By field: share of positions where the session's last answer, its chunk shifted, already has the token of now.

    It is the most that drafts from the last decision can give.
    """
    right: dict[str, int] = dict.fromkeys(FIELDS, 0)
    seen = dict(right)
    grammar, language = replay.language.grammar, replay.language
    encoded = {index: language.parse(ids.tolist(), replay.items[index].question) for index, ids in answers.items()}
    for item in replay.items:
        if item.follows not in encoded or item.index not in encoded:
            continue
        draft = language.encode(encoded[item.follows], item.question, shift=item.consumed)
        for state, token in language.encode(encoded[item.index], item.question).items():
            stage = grammar.stage(state).value
            if stage not in seen:  # prose has one way to go on
                continue
            seen[stage] += 1
            right[stage] += draft.get(state) == token
    return {name: right[name] / seen[name] if seen[name] else 0.0 for name in FIELDS}


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def write_result(document: Mapping[str, Any], path: Path) -> Path:
    """Write as JSON, whole or not at all."""
    atomic_write(path, json.dumps(document, indent=2) + "\n")
    return path


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that a gate reads, on one line."""
    return {
        key: document[key]
        for key in (
            "speedup_over_generate",
            "speedup_over_wrapped_generate",
            "speedup_over_torch",
            "speedup_temporal_drafts",
            "tokens_equal",
            "flips",
            "acceptance",
            "decisions",
        )
    } | {"sessions_ratio": document["many_sessions"]["ratio"]}
