"""The time of one full decision, ours against `transformers` on the same weights and the same recorded observations.

Per decision all sides answer in turn, in an order that rotates, so that a busy machine slows them alike; medians, not means. A side
whose tokens differ from plain greedy decoding makes the table say so: a speed-up without equal tokens is none.

peers   generate of the `transformers` class that matches our decoder (Qwen2) and of our own modules wrapped, with a dynamic and with
        a static cache; generate with prompt lookup; a plain hand-written loop
ours    plain (one token a forward); temporal drafts (the session's last decision); drafts from a memory of earlier decisions of other
        episodes; all exact, over the ids of the grammar, as compact models are trained; and faithful (over all ids) where the
        checkpoint keeps to its language by itself
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.artifacts.files import write_text_atomically
from components.config.records import Progress
from components.evaluation.decoding.levels import measure_levels
from components.evaluation.decoding.peer_prompt import STAGES
from components.evaluation.decoding.peers import GENERATE, QWEN2_GENERATE, PeerAnswer, all_peers
from components.evaluation.decoding.replay import DTYPES, FIELDS, Ask, Replay, acceptance, machine, readable
from components.evaluation.observation_log import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.decode import Answer, DecodingEngine
from model_core.engine.draft_cache import DraftMemory
from model_core.spec.errors import SpecError, require

PLAIN, DRAFTS, MEMORY = "ours, plain", "ours, temporal drafts", "ours, drafts from memory"
FAITHFUL, FAITHFUL_DRAFTS = "ours, plain, faithful", "ours, temporal drafts, faithful"
OURS: Mapping[str, Mapping[str, bool]] = {
    PLAIN: {"constrained": True, "speculate": False},
    DRAFTS: {"constrained": True, "speculate": True},
    MEMORY: {"constrained": True, "speculate": True},
    FAITHFUL: {"constrained": False, "speculate": False},
    FAITHFUL_DRAFTS: {"constrained": False, "speculate": True},
}
SESSIONS, REPEATS, _LEVEL_DECISIONS = 16, 3, 100


@dataclass(slots=True, eq=False)
class _Side:
    """What was seen of one side. same: decisions whose tokens are those of plain decoding; None where they are not compared."""

    seconds: dict[int, float] = field(default_factory=dict)
    forwards: list[int] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)
    counts: list[Mapping[str, int]] = field(default_factory=list)
    ids: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def bench_decode(
    checkpoint: Checkpoint,
    recording: Recording,
    progress: Progress,
    *,
    decisions: int = 200,
    peer_decisions: int = 50,
    remembered: int = 1000,
    dtype: str = "float32",
    threads: int = 1,
    sessions: int = SESSIONS,
    digest: str = "",
) -> dict[str, Any]:
    """Measure; returns the document of `benchmarks/results/decode.json`.

    peer_decisions: how many of the decisions, evenly chosen, the peers answer too; every speed-up is taken over these. threads: of torch.
    remembered: the memory holds at most so many decisions of the recording's later sessions before the first is measured.
    Tokens are compared for every decision in float32; in bfloat16 peers round elsewhere, so only our own sides must agree.
    """
    if dtype not in DTYPES:
        raise SpecError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    require(min(decisions, peer_decisions, threads) > 0, "decisions and threads must be above 0", got=(decisions, peer_decisions, threads))
    if checkpoint.contract.reasoning.kind == "parallel":
        raise SpecError(
            "this checkpoint says its actions all at once, which no peer does, so that there are no equal tokens to time; "
            "type: python benchmarks/parallel_block.py --help"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        decisions = min(decisions, len(recording))
        replay = Replay(checkpoint, recording.first(decisions))
        memory = _warm_memory(Replay(checkpoint, recording), decisions, remembered, DTYPES[dtype], progress)
        sides = _measure(replay, DTYPES[dtype], min(peer_decisions, len(replay)), deepcopy(memory), progress)
        many = _together(replay, DTYPES[dtype], sessions, memory, progress)
        levels = measure_levels(checkpoint, recording.first(min(decisions, _LEVEL_DECISIONS)), DTYPES[dtype], progress)
        return _document(replay, sides, many, machine(dtype), digest, dtype) | {"remembered_before": len(memory), "levels": levels}
    finally:
        torch.set_num_threads(before)


def _warm_memory(whole: Replay, measured: int, remembered: int, dtype: torch.dtype, progress: Progress) -> DraftMemory:
    """What was said in sessions that are not measured."""
    cut = {ask.follows for ask in whole.asks[measured:] if ask.follows is not None and ask.follows < measured}
    later: list[Ask] = []
    for ask in whole.asks[measured:]:  # a session that is cut by the end of the measured part is left out whole
        if ask.follows in cut:
            cut.add(ask.index)
        else:
            later.append(ask)
    memory, later = DraftMemory(whole.language), later[:remembered]
    for done, _ in enumerate(whole.one_by_one(whole.engine(dtype=dtype), later, memory)):
        progress.update(done + 1, len(later), "answering what is to be remembered")
    return memory


def _measure(replay: Replay, dtype: torch.dtype, peer_decisions: int, memory: DraftMemory, progress: Progress) -> dict[str, _Side]:
    engines = {name: replay.engine(dtype=dtype, **options) for name, options in OURS.items()}
    if any(readable(engines[FAITHFUL], ask.question) is None for ask in replay.asks[:3]):
        del engines[FAITHFUL], engines[FAITHFUL_DRAFTS]
    network = replay.checkpoint.model if dtype == torch.float32 else deepcopy(replay.checkpoint.model).to(dtype)
    peers = all_peers(network, replay.checkpoint.layout)
    for name in peers:  # nobody pays for first times
        peers[name](replay.asks[0].question, 4)
    for engine in engines.values():
        engine.warm_up()
        readable(engine, replay.asks[0].question)
    sides = {name: _Side() for name in (*peers, *engines)}
    before: dict[str, dict[int, Answer]] = {name: {} for name in engines}
    with_peers = {int(index) for index in np.linspace(0, len(replay) - 1, peer_decisions)}
    for ask in replay.asks:
        # plain decoding first: its answer tells the peers how long theirs is
        _ours(PLAIN, engines[PLAIN], replay, ask, sides[PLAIN], before[PLAIN], None)
        length = len(sides[PLAIN].ids[ask.index])
        waiting = [name for name in sides if name != PLAIN and (name in engines or ask.index in with_peers)]
        turn = ask.index % len(waiting)
        for name in waiting[turn:] + waiting[:turn]:
            if name in engines:
                _ours(name, engines[name], replay, ask, sides[name], before[name], memory if name == MEMORY else None)
            else:
                _peer(peers[name], ask, length, sides[name])
        progress.update(ask.index + 1, len(replay), "one decision after the other, all sides in turn")
    return sides


def _ours(
    name: str, engine: DecodingEngine, replay: Replay, ask: Ask, side: _Side, before: dict[int, Answer], memory: DraftMemory | None
) -> None:
    began = time.perf_counter()
    last = None if ask.follows is None else before.get(ask.follows)
    answer = readable(engine, ask.question, replay.drafts(ask, last, memory) if OURS[name]["speculate"] else None)
    if memory is not None and answer is not None:
        memory.note(ask.question, answer.reasoning)
    side.seconds[ask.index] = time.perf_counter() - began
    if answer is None:  # unconstrained greedy decoding left the language
        return
    before[ask.index] = answer
    side.ids[ask.index] = answer.ids_L
    side.forwards.append(answer.counts["forwards"])
    side.stages.append(answer.timing_ms)
    side.counts.append(answer.counts)


def _peer(answering: Callable[..., PeerAnswer], ask: Ask, length: int, side: _Side) -> None:
    began = time.perf_counter()
    answer = answering(ask.question, length)
    side.seconds[ask.index] = time.perf_counter() - began
    side.ids[ask.index] = answer.ids_N
    side.forwards.append(answer.forwards)
    side.stages.append(answer.stages_ms)


def _together(replay: Replay, dtype: torch.dtype, sessions: int, memory: DraftMemory, progress: Progress) -> dict[str, Any]:
    """As many sessions as are asked for in one round, against the same decisions one at a time, in turns."""
    starts = [ask.index for ask in replay.asks if ask.follows is None]
    stop = starts[2 * sessions] if len(starts) > 2 * sessions else len(replay)
    asks = replay.asks[:stop]
    engine = replay.engine(dtype=dtype, capacity=sessions)
    engine.warm_up([1 << power for power in range(sessions.bit_length())])
    times: dict[str, list[float]] = {"alone": [], "together": []}
    equal = True
    for repeat in range(REPEATS):
        progress.update(repeat, REPEATS, f"{sessions} sessions together")
        gc.collect()
        mine, theirs = deepcopy(memory), deepcopy(memory)
        began = time.perf_counter()
        alone = [answer.ids_L for answer in replay.one_by_one(engine, asks, mine)]
        times["alone"].append(time.perf_counter() - began)
        began = time.perf_counter()
        together = replay.side_by_side(engine, sessions, asks, theirs)
        times["together"].append(time.perf_counter() - began)
        equal &= all(np.array_equal(ids, together[ask.index].ids_L) for ask, ids in zip(asks, alone, strict=True))
    rate = {way: len(asks) / float(np.median(seconds)) for way, seconds in times.items()}
    return {
        "sessions": sessions,
        "decisions": len(asks),
        "tokens_equal": equal,
        "chunks_per_s_one_at_a_time": rate["alone"],
        "chunks_per_s_together": rate["together"],
        "ratio": rate["together"] / rate["alone"],
    }


def _document(
    replay: Replay, sides: Mapping[str, _Side], many: Mapping[str, Any], where: Mapping[str, Any], digest: str, dtype: str
) -> dict[str, Any]:
    paired = sorted(set.intersection(*(set(sides[name].seconds) for name in GENERATE)))
    wrapped_ms = min(_median_ms(sides[name], paired) for name in GENERATE)
    standard = QWEN2_GENERATE if QWEN2_GENERATE[0] in sides else GENERATE
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
        "model_digest": digest,
        "contract_id": replay.checkpoint.contract.contract_id,
        "machine": dict(where) | {"transformers": _version("transformers")},
    }


def _row(name: str, side: _Side, paired: Sequence[int], generate_ms: float, reference: Mapping[int, NDArray[np.int64]]) -> dict[str, Any]:
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


def _median_ms(side: _Side, paired: Sequence[int]) -> float:
    return float(np.median([side.seconds[index] for index in paired])) * 1e3


def _split(side: _Side, paired: Sequence[int]) -> dict[str, float]:
    """The side's median decision by stage. Medians of stages do not add up to the median of decisions: they are scaled to it."""
    medians = {stage: float(np.median([stages.get(stage, 0.0) for stages in side.stages])) for stage in STAGES}
    scale = _median_ms(side, paired) / (sum(medians.values()) or 1.0)
    return {stage: scale * milliseconds for stage, milliseconds in medians.items()}


def _agreement(replay: Replay, answers: Mapping[int, NDArray[np.int64]]) -> dict[str, float]:
    """Share of positions at which the session's last answer, its chunk moved up, already said what is said now: what drafts can give."""
    right: dict[str, int] = dict.fromkeys(FIELDS, 0)
    seen = dict(right)
    grammar, language = replay.language.grammar, replay.language
    spelt = {index: language.parse(ids.tolist(), replay.asks[index].question) for index, ids in answers.items()}
    for ask in replay.asks:
        if ask.follows not in spelt or ask.index not in spelt:
            continue
        draft = language.spell(spelt[ask.follows], ask.question, shift=ask.consumed)
        for state, token in language.spell(spelt[ask.index], ask.question).items():
            stage = grammar.stage(state).value
            seen[stage] += 1
            right[stage] += draft.get(state) == token
    return {name: right[name] / seen[name] if seen[name] else 0.0 for name in FIELDS}


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def write_result(document: Mapping[str, Any], path: Path) -> Path:
    """Write as JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(document, indent=2) + "\n")
    return path


def headline(document: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that a gate reads, on one line."""
    return {
        key: document[key]
        for key in (
            "speedup_over_generate",
            "speedup_over_wrapped_generate",
            "speedup_temporal_drafts",
            "tokens_equal",
            "flips",
            "acceptance",
            "decisions",
        )
    } | {"sessions_ratio": document["many_sessions"]["ratio"]}
