"""The time of one full decision, ours against `transformers` on the same weights and the same recorded observations.

Per decision all sides answer in turn, in an order that rotates, so that a busy machine slows them alike; medians, not means. A side
whose tokens differ from plain greedy decoding makes the table say so: a speed-up without equal tokens is none.

peers   generate of the `transformers` class that matches our decoder (Qwen2, Olmo2) and of our own modules wrapped, with a dynamic and with
        a static cache; generate with prompt lookup; a plain hand-written loop
ours    plain (one token a forward); temporal drafts (the session's last decision); drafts from a memory of earlier decisions of other
        episodes, by the compiled decoder where it runs, and the same by torch; all exact, over the ids of the grammar, as compact models
        are trained; and faithful (over all ids) where the checkpoint keeps to its language by itself
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from components.config.records import Progress
from components.evaluation.decoding.benchmark_document import MEMORY_TORCH, OURS, PLAIN, WITH_MEMORY, Measured, benchmark_document
from components.evaluation.decoding.levels import measure_levels
from components.evaluation.decoding.peer_prompt import PeerAnswer
from components.evaluation.decoding.peers import all_peers
from components.evaluation.decoding.replay import DTYPES, Replay, ReplayItem, machine, readable
from components.evaluation.observation_recording import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.answer import DecodeResult
from model_core.engine.decode import DecodingEngine
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.rounds.window import WIDTHS, CostCurve
from model_core.network.int8.conversion import float_network
from model_core.spec.errors import SpecError, require

SESSIONS, REPEATS, _LEVEL_DECISIONS = 16, 3, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeBenchmark:
    """What is measured. decisions: that our engine answers. peer_decisions: how many of them, evenly chosen, the peers answer too.

    Every speed-up is taken over the decisions that all sides answered. remembered: the draft cache holds at most so many decisions of
    the recording's later sessions before the first is measured. threads: of torch. sessions: decoded together in one round.
    """

    decisions: int = 200
    peer_decisions: int = 50
    remembered: int = 1000
    dtype: str = "float32"
    threads: int = 1
    sessions: int = SESSIONS

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(f"no dtype {self.dtype!r}; there are {', '.join(DTYPES)}")
        counts = (self.decisions, self.peer_decisions, self.threads)
        require(min(counts) > 0, "decisions and threads must be above 0", got=counts)


def bench_decode(
    checkpoint: Checkpoint, recording: Recording, progress: Progress, options: DecodeBenchmark, *, digest: str = ""
) -> dict[str, Any]:
    """Measure; returns the document of `benchmarks/results/decode.json`. digest: of the checkpoint, for the document.

    Tokens are compared for every decision in float32; in bfloat16 peers round elsewhere, so only our own sides must agree.
    """
    if checkpoint.contract.reasoning.kind == "parallel":
        raise SpecError(
            "this checkpoint decodes all its actions in one forward, which no peer does, so that there are no equal tokens to time; "
            "type: python benchmarks/parallel_block.py --help"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    dtype = DTYPES[options.dtype]
    try:
        decisions = min(options.decisions, len(recording))
        replay = Replay(checkpoint, recording.first(decisions))
        memory = _warm_memory(Replay(checkpoint, recording), decisions, options.remembered, dtype, progress)
        sides = _measure(replay, dtype, min(options.peer_decisions, len(replay)), deepcopy(memory), progress)
        many = _together(replay, dtype, options.sessions, memory, progress)
        levels = measure_levels(checkpoint, recording.first(min(decisions, _LEVEL_DECISIONS)), dtype, progress)
        document = benchmark_document(replay, sides, many, machine(options.dtype) | {"decoder": many.pop("decoder")}, options.dtype)
        return document | {"model_digest": digest, "remembered_before": len(memory), "levels": levels}
    finally:
        torch.set_num_threads(before)


def _warm_memory(whole: Replay, measured: int, remembered: int, dtype: torch.dtype, progress: Progress) -> DraftMemory:
    """A draft cache with the decisions of sessions that are not measured."""
    cut = {item.follows for item in whole.items[measured:] if item.follows is not None and item.follows < measured}
    later: list[ReplayItem] = []
    for item in whole.items[measured:]:  # a session that is cut by the end of the measured part is left out whole
        if item.follows in cut:
            cut.add(item.index)
        else:
            later.append(item)
    memory, later = DraftMemory(whole.language), later[:remembered]
    for done, _ in enumerate(whole.one_by_one(whole.engine(dtype=dtype), later, memory)):
        progress.update(done + 1, len(later), "filling the draft cache")
    return memory


def _measure(replay: Replay, dtype: torch.dtype, peer_decisions: int, memory: DraftMemory, progress: Progress) -> dict[str, Measured]:
    progress.update(0, len(replay), "measuring what blocks cost here")
    engines = _engines(replay, dtype)
    network = float_network(replay.checkpoint.model) if dtype == torch.float32 else deepcopy(replay.checkpoint.model).to(dtype)
    peers = all_peers(network, replay.language)
    for name in peers:  # the first call of each side is not measured
        peers[name](replay.items[0].question, 4)
    for engine in engines.values():
        engine.warm_up()
        readable(engine, replay.items[0].question)
    ours = {
        name: _OurSide(
            engine=engine, replay=replay, speculate=OURS[name]["speculate"], memory=deepcopy(memory) if name in WITH_MEMORY else None
        )
        for name, engine in engines.items()
    }
    sides = {name: Measured() for name in peers} | {name: side.measured for name, side in ours.items()}
    with_peers = {int(index) for index in np.linspace(0, len(replay) - 1, peer_decisions)}
    for item in replay.items:
        ours[PLAIN].answer(item)  # first: its answer gives the peers the length of theirs
        length = len(sides[PLAIN].ids[item.index])
        waiting = [name for name in sides if name != PLAIN and (name in ours or item.index in with_peers)]
        turn = item.index % len(waiting)
        for name in waiting[turn:] + waiting[:turn]:
            if name in ours:
                ours[name].answer(item)
            else:
                _peer(peers[name], item, length, sides[name])
        left = _seconds_left(sides, item.index, set(ours), len(replay), with_peers)
        progress.update(item.index + 1, len(replay), f"one decision after the other, all sides in turn; {left / 60:.0f} min left")
    return sides


def _seconds_left(sides: Mapping[str, Measured], done: int, ours: Collection[str], decisions: int, with_peers: Collection[int]) -> float:
    """What the decisions behind `done` will take: a peer that computes every row of a large head needs seconds for each."""
    later = sum(index > done for index in with_peers)
    means = {name: float(np.mean(list(side.seconds.values()))) for name, side in sides.items() if side.seconds}
    return sum(mean * (decisions - done - 1 if name in ours else later) for name, mean in means.items())


def _engines(replay: Replay, dtype: torch.dtype) -> dict[str, DecodingEngine]:
    """An engine for each of our ways. Those over the same ids share what is measured at their start.

    The faithful ones are there only where the checkpoint keeps to its language by itself. An engine that measures nothing is asked
    that first: over a head of all 152,064 ids, measuring takes longer than many answers.
    """
    flat = CostCurve(lambda rows, width: 1.0, widths=WIDTHS)
    asked = replay.engine(dtype=dtype, constrained=False, speculate=False, exact=False, costs=flat)
    keeps = all(readable(asked, item.question) is not None for item in replay.items[:3])
    found: dict[str, DecodingEngine] = {}
    first: dict[tuple[bool, str], DecodingEngine] = {}
    for name, options in OURS.items():
        if not (options["constrained"] or keeps):
            continue
        engine = replay.engine(dtype=dtype, **options)
        kind = options["constrained"], engine.forward.computes
        if name == MEMORY_TORCH and kind in first:  # there is no compiled decoder here: this way is the one before
            continue
        if (like := first.get(kind)) is not None:
            engine = replay.engine(dtype=dtype, **options, numerics=like.numerics, costs=like.costs)
        found[name] = engine
        first.setdefault(kind, engine)
    return found


@dataclass(slots=True, eq=False, kw_only=True)
class _OurSide:
    """One way of our engine, with the answers that its drafts come from."""

    engine: DecodingEngine
    replay: Replay
    speculate: bool
    memory: DraftMemory | None = None
    measured: Measured = field(default_factory=Measured)
    answers: dict[int, DecodeResult] = field(default_factory=dict)

    def answer(self, item: ReplayItem) -> None:
        """Decode one decision and note what it took."""
        began = time.perf_counter()
        last = None if item.follows is None else self.answers.get(item.follows)
        answer = readable(self.engine, item.question, self.replay.drafts(item, last, self.memory) if self.speculate else None)
        if self.memory is not None and answer is not None:
            self.memory.note(item.question, answer.reasoning)
        side = self.measured
        side.seconds[item.index] = time.perf_counter() - began
        if answer is None:  # unconstrained greedy decoding left the language
            return
        self.answers[item.index] = answer
        side.ids[item.index] = answer.ids_L
        side.forwards.append(answer.counts["forwards"])
        side.stages.append(answer.timing_ms)
        side.counts.append(answer.counts)


def _peer(answering: Callable[..., PeerAnswer], item: ReplayItem, length: int, side: Measured) -> None:
    began = time.perf_counter()
    answer = answering(item.question, length)
    side.seconds[item.index] = time.perf_counter() - began
    side.ids[item.index] = answer.ids_N
    side.forwards.append(answer.forwards)
    side.stages.append(answer.stages_ms)


def _together(replay: Replay, dtype: torch.dtype, sessions: int, memory: DraftMemory, progress: Progress) -> dict[str, Any]:
    """So many sessions in one round, against the same decisions one at a time, with and without the compiled decoder, in turns."""
    starts = [item.index for item in replay.items if item.follows is None]
    stop = starts[2 * sessions] if len(starts) > 2 * sessions else len(replay)
    items = replay.items[:stop]
    engine, torchs = (replay.engine(dtype=dtype, capacity=sessions, compiled=compiled) for compiled in (True, False))
    engine.warm_up([1 << power for power in range(sessions.bit_length())])
    torchs.warm_up()
    times: dict[str, list[float]] = {"by torch": [], "alone": [], "together": []}
    equal = True
    for repeat in range(REPEATS):
        progress.update(repeat, REPEATS, f"{sessions} sessions together")
        gc.collect()
        before, mine, theirs = deepcopy(memory), deepcopy(memory), deepcopy(memory)
        began = time.perf_counter()
        plain = [answer.ids_L for answer in replay.one_by_one(torchs, items, before)]
        times["by torch"].append(time.perf_counter() - began)
        began = time.perf_counter()
        alone = [answer.ids_L for answer in replay.one_by_one(engine, items, mine)]
        times["alone"].append(time.perf_counter() - began)
        began = time.perf_counter()
        together = replay.side_by_side(engine, sessions, items, theirs)
        times["together"].append(time.perf_counter() - began)
        equal &= all(np.array_equal(ids, together[item.index].ids_L) for item, ids in zip(items, alone, strict=True))
        equal &= all(map(np.array_equal, plain, alone)) or dtype != torch.float32
    rate = {way: len(items) / float(np.median(seconds)) for way, seconds in times.items()}
    return {
        "decoder": engine.forward.computes,
        "sessions": sessions,
        "decisions": len(items),
        "tokens_equal": equal,
        "chunks_per_s_by_torch_one_at_a_time": rate["by torch"],
        "chunks_per_s_one_at_a_time": rate["alone"],
        "chunks_per_s_together": rate["together"],
        "ratio": rate["together"] / rate["alone"],
        "ratio_to_torch_one_at_a_time": rate["together"] / rate["by torch"],
    }
