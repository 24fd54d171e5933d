"""Recorded observations asked again of an engine, with the drafts that a running session would have had."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.evaluation.observation_log import Recording
from model_core.checkpoint import Checkpoint
from model_core.engine.decode import Answer, DecodingEngine
from model_core.engine.decode_request import CompactLanguage, Drafts, Question
from model_core.engine.draft_cache import DraftMemory
from model_core.spec.errors import GrammarError
from model_core.spec.types import Observation
from model_core.tokenization.compact.layout import proprio_bins

FIELDS = ("depth", "trace", "action")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """One decision to make. follows: index of the same session's decision before, or None at its first."""

    index: int
    question: Question
    follows: int | None
    consumed: int


class Replay:
    """The decisions of a recording as questions to a checkpoint, in order."""

    def __init__(self, checkpoint: Checkpoint, recording: Recording) -> None:
        self.checkpoint, self.language = checkpoint, CompactLanguage(checkpoint.layout)
        self.asks: list[Ask] = []
        last: dict[int, int] = {}
        for index, sighting in enumerate(recording):
            question = self._question(sighting.observation)
            self.asks.append(Ask(index=index, question=question, follows=last.get(sighting.session), consumed=sighting.consumed))
            last[sighting.session] = index

    def __len__(self) -> int:
        return len(self.asks)

    def _question(self, seen: Observation) -> Question:
        body, layout = self.checkpoint.contract.embodiment, self.checkpoint.layout
        return Question(
            images_VHW3=np.stack([seen.images[camera.name] for camera in body.cameras]),
            words_W=layout.instruction_ids(seen.instruction),
            proprio_bins_P=proprio_bins(seen.proprio_P, body.proprio.low, body.proprio.high),
        )

    def engine(self, *, dtype: torch.dtype = torch.float32, **options: Any) -> DecodingEngine:
        """A fresh engine over the checkpoint's weights."""
        return DecodingEngine(self.checkpoint.model, self.checkpoint.layout, dtype=dtype, **options)

    def drafts(self, ask: Ask, before: Answer | None, memory: DraftMemory | None = None) -> Drafts | None:
        """What a memory suggests, else the session's last answer: its depth and trace, and its chunk less the rows that were executed."""
        if memory is not None:
            return memory.suggest(ask.question, last=None if before is None else before.reasoning, consumed=ask.consumed)
        if before is None:
            return None
        return Drafts(ids=self.language.spell(before.reasoning, ask.question, shift=ask.consumed))

    def one_by_one(self, engine: DecodingEngine, asks: Sequence[Ask] | None = None, memory: DraftMemory | None = None) -> Iterator[Answer]:
        """Answers in order, each drafted from the session's answer before, or from a memory that learns on the way."""
        known: dict[int, Answer] = {}
        for ask in self.asks if asks is None else asks:
            before = None if ask.follows is None else known.get(ask.follows)
            known[ask.index] = answer_one(engine, ask.question, self.drafts(ask, before, memory))
            if memory is not None:
                memory.note(ask.question, known[ask.index].reasoning)
            yield known[ask.index]

    def side_by_side(
        self, engine: DecodingEngine, sessions: int, asks: Sequence[Ask] | None = None, memory: DraftMemory | None = None
    ) -> dict[int, Answer]:
        """{index: answer} with up to `sessions` sessions in one round: a session's next question joins when its last is answered."""
        waiting = list(self.asks if asks is None else asks)
        known: dict[int, Answer] = {}
        running: dict[int, Ask] = {}
        asked = {ask.index for ask in waiting}
        began = engine.open_round(sessions)
        try:
            while waiting or running:
                for ask in [a for a in waiting if a.follows not in asked or a.follows in known][: sessions - len(running)]:
                    waiting.remove(ask)
                    before = None if ask.follows is None else known.get(ask.follows)
                    running[began.join(ask.question, self.drafts(ask, before, memory))] = ask
                for key, outcome in began.step():
                    if not isinstance(outcome, Answer):
                        raise outcome
                    ask = running.pop(key)
                    known[ask.index] = outcome
                    if memory is not None:
                        memory.note(ask.question, outcome.reasoning)
        finally:
            began.close()
        return known


def answer_one(engine: DecodingEngine, question: Question, drafts: Drafts | None = None) -> Answer:
    """One answer of one row. Raises `GrammarError` for an answer outside the language (faithful decoding only)."""
    return engine.decode([question], [drafts]).answers[0]


def readable(engine: DecodingEngine, question: Question, drafts: Drafts | None = None) -> Answer | None:
    """As `answer_one`, None in place of the error."""
    try:
        return answer_one(engine, question, drafts)
    except GrammarError:
        return None


def acceptance(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Share of fed guesses that stood, by field."""
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
