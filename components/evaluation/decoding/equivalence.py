"""The equivalence of fast and plain decoding: every recorded decision, plain one-row greedy against exact speculation.

plain         one token a forward, one row: the reference
alone         speculation with the last decision of a running session as draft, one row
remembering   the same with drafts from a memory that starts empty
together      with such a memory, up to 16 sessions in one round

A flip is a decision of which any token differs from the reference. There must be none; guarded positions (near ties that were computed
again alone) are counted. The two ways item independently: a flip would also spoil later drafts, as it would on a robot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.config.records import Progress
from components.evaluation.decoding.replay import DTYPES, Replay, acceptance, answer_one, machine
from components.evaluation.observation_recording import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.answer import DecodeResult
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.numerics import Numerics
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError, require
from model_core.spec.files import atomic_write

SESSIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """The first token of a decision that differs from plain decoding."""

    decision: int
    way: str
    position: int
    plain: int
    got: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingEquivalence:
    """What was compared and what came out. tile, bound: how the engine makes blocks equal to single tokens here (`engine.numerics`).

    forwards: mean decoder forwards a decision, by way. acceptance: share of verified drafts that were accepted, by way and field.
    """

    model_digest: str
    contract_id: str
    decisions: int
    tokens: int
    constrained: bool
    flips: int
    flipped: tuple[Flip, ...]
    guards: Mapping[str, int]
    forwards: Mapping[str, float]
    acceptance: Mapping[str, Mapping[str, float]]
    tile: int
    bound: float
    machine: Mapping[str, Any]
    source: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write as JSON, whole or not at all."""
        atomic_write(path, json.dumps(to_document(self), indent=1, sort_keys=True) + "\n")
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivalenceOptions:
    """What is compared. constrained: over the ids of the grammar (as compact models are trained and served), else over all ids.

    decisions: the first ones of the recording. threads: of torch. sessions: how many decide together in the last way.
    """

    decisions: int
    dtype: str = "float32"
    threads: int = 1
    constrained: bool = True
    sessions: int = SESSIONS

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(f"no dtype {self.dtype!r}; there are {', '.join(DTYPES)}")
        require(self.decisions > 0, "decisions must be above 0", got=self.decisions)


def certify(
    checkpoint: Checkpoint, recording: Recording, progress: Progress, options: EquivalenceOptions, *, digest: str = ""
) -> DecodingEquivalence:
    """Replay decisions of `recording` three ways and compare token by token. Raises `SpecError` when there are too few."""
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        replay = Replay(checkpoint, recording.first(options.decisions))
        compared = _decode_all_ways(replay, progress, options)
        return _equivalence(replay, compared, options, source=recording.source, digest=digest)
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Compared:
    """The answers of every way by decision. expected: ids of plain decoding. computes: "compiled" or "torch" (`BlockForward.computes`)."""

    expected: Mapping[int, NDArray[np.int64]]
    plain_forwards: int
    ways: Mapping[str, Mapping[int, DecodeResult]]
    numerics: Numerics
    computes: str


def _decode_all_ways(replay: Replay, progress: Progress, options: EquivalenceOptions) -> _Compared:
    dtype, constrained, sessions, decisions = DTYPES[options.dtype], options.constrained, options.sessions, options.decisions
    fast = replay.engine(dtype=dtype, constrained=constrained)
    plain = replay.engine(dtype=dtype, constrained=constrained, speculate=False, numerics=fast.numerics)
    fast.warm_up((1, sessions))
    # an engine also drafts from its own last answer, of whatever request: each way has its own, or it would be given the answer
    again, crowd = (
        replay.engine(dtype=dtype, constrained=constrained, numerics=fast.numerics, costs=fast.costs, capacity=sessions) for _ in range(2)
    )
    alone: dict[int, DecodeResult] = {}
    remembering: dict[int, DecodeResult] = {}
    expected: dict[int, NDArray[np.int64]] = {}
    plain_forwards = 0
    answers = replay.one_by_one(fast)
    remembered = replay.one_by_one(again, memory=DraftMemory(replay.language))
    for item in replay.items:
        reference = answer_one(plain, item.question)
        expected[item.index], plain_forwards = reference.ids_L, plain_forwards + reference.counts["forwards"]
        alone[item.index], remembering[item.index] = next(answers), next(remembered)
        if item.index % 20 == 19:
            progress.update(item.index + 1, decisions, "plain and with drafts, one row")
    progress.update(decisions, decisions, f"{sessions} sessions in one round")
    together = replay.side_by_side(crowd, sessions, memory=DraftMemory(replay.language))
    ways = {"alone": alone, "remembering": remembering, "together": together}
    return _Compared(expected=expected, plain_forwards=plain_forwards, ways=ways, numerics=fast.numerics, computes=fast.forward.computes)


def _equivalence(
    replay: Replay, compared: _Compared, options: EquivalenceOptions, *, source: Mapping[str, Any], digest: str
) -> DecodingEquivalence:
    expected, ways, decisions = compared.expected, compared.ways, options.decisions
    pairs = [first_flip(index, way, ids, found[index].ids_L) for way, found in ways.items() for index, ids in expected.items()]
    flipped = [flip for flip in pairs if flip is not None]
    return DecodingEquivalence(
        model_digest=digest,
        contract_id=replay.checkpoint.contract.contract_id,
        decisions=decisions,
        tokens=sum(len(ids) for ids in expected.values()),
        constrained=options.constrained,
        flips=len(flipped),
        flipped=tuple(flipped[:20]),
        guards={way: sum(answer.counts.get("guarded", 0) for answer in found.values()) for way, found in ways.items()},
        forwards={"plain": compared.plain_forwards / decisions} | {way: _mean_forwards(found) for way, found in ways.items()},
        acceptance={way: acceptance([answer.counts for answer in found.values()]) for way, found in ways.items()},
        tile=compared.numerics.tile,
        bound=compared.numerics.bound,
        machine=machine(options.dtype) | {"decoder": compared.computes},
        source={key: value for key, value in source.items() if key != "episodes"},
    )


def _mean_forwards(found: Mapping[int, DecodeResult]) -> float:
    return float(np.mean([answer.counts["forwards"] for answer in found.values()]))


def first_flip(decision: int, way: str, plain_N: NDArray[np.int64], got_N: NDArray[np.int64]) -> Flip | None:
    """Where two answers to one question part; None where they are equal. A token that an answer no longer has is -1."""
    if np.array_equal(plain_N, got_N):
        return None
    shared = min(len(plain_N), len(got_N))
    differing = np.flatnonzero(plain_N[:shared] != got_N[:shared])
    position = int(differing[0]) if len(differing) else shared
    plain, got = (int(ids[position]) if position < len(ids) else -1 for ids in (plain_N, got_N))
    return Flip(decision=decision, way=way, position=position, plain=plain, got=got)
