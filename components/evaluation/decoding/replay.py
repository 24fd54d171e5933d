"""Recorded observations decoded again by an engine, with the drafts that a running session would have had."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from components.evaluation.observation_recording import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.answer import DecodeResult
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts, Question
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.resources import EngineOptions
from model_core.port.of_checkpoint import port_of
from model_core.spec.errors import GrammarError
from model_core.spec.types import DecisionRequest

FIELDS = ("depth", "trace", "action")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayItem:
    """One decision to decode. follows: index of the same session's decision before, or None at its first."""

    index: int
    question: Question
    follows: int | None
    consumed: int


class Replay:
    """The decisions of a recording as requests to a checkpoint, in order."""

    def __init__(self, checkpoint: Checkpoint, recording: Recording) -> None:
        self.checkpoint, self.port = checkpoint, port_of(checkpoint)
        self.language = self.port.language
        self.items: list[ReplayItem] = []
        last: dict[int, int] = {}
        for index, sighting in enumerate(recording):
            question = self.port.question(DecisionRequest(observation=sighting.observation), "full")
            self.items.append(ReplayItem(index=index, question=question, follows=last.get(sighting.session), consumed=sighting.consumed))
            last[sighting.session] = index

    def __len__(self) -> int:
        return len(self.items)

    def engine(self, *, dtype: torch.dtype = torch.float32, **options: Any) -> DecodingEngine:
        """A fresh engine over the checkpoint's weights."""
        return DecodingEngine(self.checkpoint.model, self.language, EngineOptions(dtype=dtype, **options))

    def drafts(self, item: ReplayItem, before: DecodeResult | None, memory: DraftMemory | None = None) -> Drafts | None:
        """What a memory suggests, else the session's last answer, its chunk without the actions that were executed."""
        if memory is not None:
            return memory.suggest(item.question, last=None if before is None else before.reasoning, consumed=item.consumed)
        if before is None:
            return None
        return Drafts(ids=self.language.encode(before.reasoning, item.question, shift=item.consumed))

    def one_by_one(
        self, engine: DecodingEngine, items: Sequence[ReplayItem] | None = None, memory: DraftMemory | None = None
    ) -> Iterator[DecodeResult]:
        """Answers in order, each drafted from the session's answer before, or from a memory that grows on the way."""
        known: dict[int, DecodeResult] = {}
        for item in self.items if items is None else items:
            before = None if item.follows is None else known.get(item.follows)
            known[item.index] = answer_one(engine, item.question, self.drafts(item, before, memory))
            if memory is not None:
                memory.note(item.question, known[item.index].reasoning)
            yield known[item.index]

    def side_by_side(
        self, engine: DecodingEngine, sessions: int, items: Sequence[ReplayItem] | None = None, memory: DraftMemory | None = None
    ) -> dict[int, DecodeResult]:
        """{index: answer} with up to `sessions` sessions in one round: a session's next request joins when its last is answered."""
        waiting = list(self.items if items is None else items)
        known: dict[int, DecodeResult] = {}
        running: dict[int, ReplayItem] = {}
        asked = {item.index for item in waiting}
        began = engine.open_round(sessions)
        try:
            while waiting or running:
                for item in [a for a in waiting if a.follows not in asked or a.follows in known][: sessions - len(running)]:
                    waiting.remove(item)
                    before = None if item.follows is None else known.get(item.follows)
                    running[began.join(item.question, self.drafts(item, before, memory))] = item
                for key, outcome in began.step():
                    if not isinstance(outcome, DecodeResult):
                        raise outcome
                    item = running.pop(key)
                    known[item.index] = outcome
                    if memory is not None:
                        memory.note(item.question, outcome.reasoning)
        finally:
            began.close()
        return known


def answer_one(engine: DecodingEngine, question: Question, drafts: Drafts | None = None) -> DecodeResult:
    """One answer of one row. Raises `GrammarError` for an answer outside the language (faithful decoding only)."""
    return engine.decode([question], [drafts]).answers[0]


def readable(engine: DecodingEngine, question: Question, drafts: Drafts | None = None) -> DecodeResult | None:
    """As `answer_one`, None in place of the error."""
    try:
        return answer_one(engine, question, drafts)
    except GrammarError:
        return None


def acceptance(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Share of verified drafts that were accepted, by field."""
    found = {}
    for name in FIELDS:
        drafted = sum(count.get(f"drafted.{name}", 0) for count in counts)
        found[name] = sum(count.get(f"accepted.{name}", 0) for count in counts) / drafted if drafted else 0.0
    return found


def machine(dtype: str, device: str = "cpu") -> dict[str, Any]:
    """What a measurement was taken on, and when."""
    name = torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else _processor()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
