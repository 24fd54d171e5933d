"""What a parallel action block is worth: as a policy of its own, and as a draft head of a causal policy.

Every side answers the same recorded closed-loop observations, session by session and in turn, each with its own last decision as the
source of drafts. The causal sides have equal weights, and their tokens are asserted equal. Milliseconds are of one decision alone.

Run: python benchmarks/parallel_block.py --both CKPT --parallel CKPT --recording FILE [--decisions 200] [--level full]
     checkpoints of `actwright train loop --set train.action_head=both` and `... =parallel`; FILE of `actwright bench record`
Writes benchmarks/results/parallel_block.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from components.evaluation.observation_recording import Sighting, load_recording  # noqa: E402
from model_core.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from model_core.engine.cache import RowCache  # noqa: E402
from model_core.engine.decode import DecodingEngine  # noqa: E402
from model_core.engine.decode_request import CompactLanguage  # noqa: E402
from model_core.engine.resources import EngineOptions  # noqa: E402
from model_core.engine.rounds.blocks import Choices  # noqa: E402
from model_core.engine.rounds.parallel import BlockUse  # noqa: E402
from model_core.engine.rounds.row import AnswerRow  # noqa: E402
from model_core.engine.rounds.row_state import Window  # noqa: E402
from model_core.policy import PolicyOptions, ReasoningPolicy  # noqa: E402
from model_core.spec.types import Decision, DecisionRequest  # noqa: E402

Prompt = tuple[Tensor, Tensor] | None
CAUSAL = ("plain", "drafts", "drafts + block", "drafts + block always")


@dataclass(slots=True)
class Side:
    """One way to answer, and what it took."""

    policy: ReasoningPolicy
    drafts: bool = True
    milliseconds: list[float] = field(default_factory=list)
    forwards: list[int] = field(default_factory=list)
    action_ms: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    agreed: dict[str, list[float]] = field(default_factory=dict)
    last: Decision | None = None

    def answer(self, seen: Sighting, level: str) -> Decision:
        """Answer one sighting, timed."""
        previous = self.last if self.drafts and seen.consumed else None
        began = time.perf_counter()
        request = DecisionRequest(observation=seen.observation, level=level, previous=previous, consumed=seen.consumed)
        (decision,) = self.policy.answer([request])
        self.milliseconds.append((time.perf_counter() - began) * 1e3)
        self.forwards.append(decision.counts["forwards"])
        self.action_ms.append(decision.timing_ms.get("action", 0.0))
        self._compare(decision, previous, seen.consumed)
        self.last = decision
        return decision

    def watch(self) -> None:
        """Keep what placeholders choose, to compare it with what is said in the end."""
        block = self.policy.engine.block
        assert block is not None
        inner = block.read

        def read(row: AnswerRow, window: Window, cache: RowCache, place: int, prompt: Prompt = None, *, margins: bool) -> Choices:
            made = inner(row, window, cache, place, prompt, margins=margins)
            self.chosen = [row.block[state] for state in block.states]
            return made

        block.read = read  # type: ignore[method-assign]

    def _compare(self, decision: Decision, previous: Decision | None, consumed: int) -> None:
        """Share of action values that equal each kind of draft, whether it was fed or not."""
        assert decision.reasoning is not None
        bins_KA = decision.reasoning.bins_KA
        if self.chosen:
            language = self.policy.engine.language
            assert isinstance(language, CompactLanguage)
            ids = np.array(self.chosen) - (language.layout.vocabulary.action.start - 1)
            self.agreed.setdefault("block", []).append(float((ids == bins_KA.reshape(-1)).mean()))
            self.chosen = []
        if previous is not None and previous.reasoning is not None:
            rows_K = np.minimum(np.arange(len(bins_KA)) + consumed, len(bins_KA) - 1)
            self.agreed.setdefault("last chunk, shifted", []).append(float((previous.reasoning.bins_KA[rows_K] == bins_KA).mean()))

    def row(self) -> dict[str, object]:
        """The figures of this side."""
        return {
            "p50_ms": round(float(np.median(self.milliseconds)), 2),
            "p95_ms": round(float(np.quantile(self.milliseconds, 0.95)), 2),
            "action_ms": round(float(np.median(self.action_ms)), 2),
            "forwards": round(float(np.mean(self.forwards)), 1),
            "actions_agree": {name: round(float(np.mean(shares)), 3) for name, shares in self.agreed.items()},
        }


def sides_of(both: Checkpoint, parallel: Checkpoint) -> dict[str, Side]:
    """The sides by name."""

    def policy(of: Checkpoint, **options: object) -> ReasoningPolicy:
        engine = DecodingEngine(of.model, of.layout, EngineOptions(**options))  # type: ignore[arg-type]
        # no memory: a session's own last decision is the only source from outside the answer
        return ReasoningPolicy(of.model, of.layout, of.contract, PolicyOptions(remember=0), engine=engine)

    made = {
        "plain": Side(policy(both, speculate=False), drafts=False),
        "drafts": Side(policy(both, block=BlockUse.NONE)),
        "drafts + block": Side(policy(both)),
        "drafts + block always": Side(policy(both)),
        "parallel policy": Side(policy(parallel)),
    }
    always = made["drafts + block always"].policy.engine.block
    assert always is not None
    always.always = True
    made["drafts + block always"].watch()
    return made


def said_values(decision: Decision) -> np.ndarray:
    """Everything that was said: depth codes, trace, action bins."""
    said = decision.reasoning
    assert said is not None
    depth = [] if said.depth is None else said.depth.codes_G
    trace = [] if said.trace is None else said.trace.points_N2.reshape(-1)
    return np.concatenate([depth, trace, said.bins_KA.reshape(-1)])


def run(both: Path, parallel: Path, recording: Path, decisions: int, level: str) -> dict[str, object]:
    """All sides over the recording; raises `AssertionError` where two causal sides differ."""
    sides = sides_of(load_checkpoint(both), load_checkpoint(parallel))
    seen = load_recording(recording).first(decisions)
    for side in sides.values():  # what is measured once is not part of a decision
        if side.policy.engine.rows.speculate:
            side.policy.engine.warm_up()
        side.answer(seen[0], level)
        for figures in (side.milliseconds, side.forwards, side.action_ms, side.agreed):
            figures.clear()
    names = list(sides)
    for number, sighting in enumerate(seen):
        turn = names[number % len(names) :] + names[: number % len(names)]
        said = {name: sides[name].answer(sighting, level) for name in turn}
        reference = said_values(said["plain"])
        for name in CAUSAL[1:]:
            if not np.array_equal(said_values(said[name]), reference):
                raise AssertionError(f"decision {number}: {name} says something else than plain decoding")
    return {
        "decisions": decisions,
        "level": level,
        "tokens_equal": True,
        "sides": {name: side.row() for name, side in sides.items()},
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(sides: Mapping[str, Mapping[str, object]]) -> str:
    """The figures for a person."""
    lines = [f"{'':24}{'p50 ms':>9}{'p95 ms':>9}{'actions ms':>12}{'forwards':>10}  action values that equal a draft"]
    for name, row in sides.items():
        rates = row["actions_agree"]
        assert isinstance(rates, Mapping)
        told = ", ".join(f"{source} {rate:.2f}" for source, rate in rates.items())
        lines.append(f"{name:24}{row['p50_ms']:>9}{row['p95_ms']:>9}{row['action_ms']:>12}{row['forwards']:>10}  {told}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--both", type=Path, required=True)
    parser.add_argument("--parallel", type=Path, required=True)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--decisions", type=int, default=200)
    parser.add_argument("--level", default="full")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = run(asked.both, asked.parallel, asked.recording, asked.decisions, asked.level)
    sides = found["sides"]
    assert isinstance(sides, Mapping)
    sys.stdout.write(table(sides) + "\n")
    out = ROOT / "benchmarks" / "results" / "parallel_block.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
