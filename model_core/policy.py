"""Observation -> reasoning -> decision: composition only. What a robot or a model does wrong becomes a refusal, never an exception."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.answer import CancelledError, DecodeFailure, DecodeResult, NotFiniteError
from model_core.engine.callbacks import cancellation_of, part_listener
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts, Question
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.resources import EngineOptions
from model_core.network.model import MolmoAct
from model_core.policy_options import DEFAULT_OPTIONS, PolicyOptions, trained_level
from model_core.port.compact import CompactPort
from model_core.port.interface import ModelPort
from model_core.port.of_checkpoint import port_of
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, ContractError, GrammarError, SpecError
from model_core.spec.types import (
    ActionChunk,
    ActionReasoning,
    Decision,
    DecisionRequest,
    Observation,
    Refusal,
    RefusalCode,
)
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.observation import check_observation

logger = logging.getLogger(__name__)

# What is left to be predicted where a person has drawn the trace.
STEERED_LEVEL = "trace+action"


class ReasoningPolicy:
    """A model behind its port, as a `RequestPolicy`.

    An observation with a steering trace is answered from that trace. language: the model's port, or a layout of the compact language.
    engine: used in place of a new one.
    """

    def __init__(
        self,
        model: MolmoAct,
        language: CompactLayout | ModelPort,
        contract: PolicyContract,
        options: PolicyOptions = DEFAULT_OPTIONS,
        *,
        engine: DecodingEngine | None = None,
    ) -> None:
        self.port: ModelPort = CompactPort(language, contract) if isinstance(language, CompactLayout) else language
        self.contract, self.options = contract, options
        self.model_version, self.reasoning = options.model_version, options.reasoning
        chosen = EngineOptions(dtype=options.dtype or self.port.dtype, constrained=self.port.constrained)
        self.engine = engine or DecodingEngine(model, self.port.language, chosen)
        self.memory = DraftMemory(self.engine.language, capacity=options.remember) if options.remember else None

    @staticmethod
    def of(checkpoint: Checkpoint, *, reasoning: str = "", model_version: str = "", dtype: torch.dtype | None = None) -> ReasoningPolicy:
        """The policy of a checkpoint that was read. reasoning: "" for the first level that it was trained at.

        Raises `CheckpointError` where its parts cannot work together, or where it was not trained at that level.
        """
        level = trained_level(checkpoint.contract, reasoning)
        options = PolicyOptions(reasoning=level, model_version=model_version, dtype=dtype)
        return ReasoningPolicy(checkpoint.model, port_of(checkpoint), checkpoint.contract, options)

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations in one batch; an observation that breaks the contract is refused, its neighbours are answered."""
        return self.answer([DecisionRequest(observation=observation) for observation in observations])

    def answer(self, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Answer several requests together; each answer equals the one that it would get alone. Never raises."""
        if not requests:
            return []
        together = self.open_round(min(len(requests), self.engine.capacity))
        keys = [together.join(request) for request in requests]
        found: dict[int, Decision] = {}
        while together.active:
            try:
                found.update(together.step())
            except Exception:  # whatever failed is ours; the robots get a refusal and hold, the log gets the traceback
                logger.exception("decision.failed questions=%d", len(requests) - len(found))
        together.close()
        reason = "the model failed to answer; see the service's log"
        return [found.get(key) or self.refused(RefusalCode.INTERNAL, reason, retryable=True) for key in keys]

    def open_round(self, capacity: int) -> PolicyRound:
        """Begin to decode for up to `capacity` requests that join and leave between blocks; more of them wait for a place."""
        return PolicyRound(self, capacity)

    # ---- requests to questions, answers to decisions

    def question(self, request: DecisionRequest) -> tuple[Question, Drafts]:
        """What a request asks the engine. Raises an `ActwrightError` for what breaks the contract or the language."""
        observation, level = request.observation, request.level or self.reasoning
        check_observation(observation, self.contract)
        is_steered = request.drawn is not None  # its level is what the drawing leaves to be predicted
        if level not in self.contract.reasoning.levels and not (is_steered and level == STEERED_LEVEL):
            raise ContractError(f"level {level!r}: this policy answers at {', '.join(self.contract.reasoning.levels)}")
        question = self.port.question(request, level)
        return question, self._drafts(request, question, level)

    def _drafts(self, request: DecisionRequest, question: Question, level: str) -> Drafts:
        last = None if request.previous is None else request.previous.reasoning
        likely = self._likely(question, last, max(0, request.consumed))
        reusable = level == "reuse-depth" and not question.is_steered and question.depth is None
        if not reusable or last is None or last.depth is None:
            return likely
        kept = self._encoded(ActionReasoning(depth=last.depth, trace=None, bins_KA=np.empty((0, 0), np.int64)), question)
        return Drafts(ids={**likely.ids, **kept}, reuse_depth=self.options.reuse_threshold) if kept else likely

    def _likely(self, question: Question, last: ActionReasoning | None, consumed: int) -> Drafts:
        if self.memory is not None:
            return self.memory.suggest(question, last=last, consumed=consumed) or Drafts()
        return Drafts() if last is None else Drafts(ids=self._encoded(last, question, consumed))

    def _encoded(self, reasoning: ActionReasoning, question: Question, shift: int = 0) -> dict[int, int]:
        try:
            return self.engine.language.encode(reasoning, question, shift=shift)
        except ActwrightError:  # a decision of another policy is no draft, and no reason to refuse
            return {}

    def decision(self, answer: DecodeResult, question: Question, level: str) -> Decision:
        """The decision that the robot gets."""
        served = STEERED_LEVEL if question.is_steered else level
        if served == "reuse-depth" and not answer.counts.get("reused.depth"):
            served = "full"
        if self.memory is not None and served == level:
            self.memory.note(question, answer.reasoning)
        reasoning = self.port.told(answer.reasoning, question)
        return Decision(
            contract_id=self.contract.contract_id,
            model_version=self.model_version,
            reasoning=reasoning,
            chunk=ActionChunk(actions_KA=self.port.actions_of(reasoning.bins_KA), control_hz=self.contract.embodiment.control_hz),
            timing_ms=answer.timing_ms,
            level=served,
            counts=answer.counts,
        )

    def refused(self, code: RefusalCode, reason: str, *, retryable: bool = False) -> Decision:
        """A decision not to act."""
        refusal = Refusal(code=code, reason=reason, retryable=retryable)
        return Decision(contract_id=self.contract.contract_id, model_version=self.model_version, refusal=refusal)


class PolicyRound:
    """A round of requests, see `spec.types.DecisionRound`. Nothing that a request, a listener or the model's answer does raises.

    What does raise, out of `step`, is a failure of this machine or of this code (no memory, a lost device). Of the requests only those
    are then left that were refused already; who runs the round decides about the others: it can ask each alone, with less memory, or
    not again.
    """

    def __init__(self, policy: ReasoningPolicy, capacity: int) -> None:
        self._policy, self._capacity = policy, capacity
        self._round = policy.engine.open_round(capacity)
        self._asked: dict[int, tuple[int, Question, str]] = {}  # the engine's key -> our key, question, level
        self._refused: list[tuple[int, Decision]] = []
        self._next_key = 0

    @property
    def active(self) -> int:
        """Requests in it."""
        return len(self._asked) + len(self._refused)

    def join(self, request: DecisionRequest) -> int:
        """Take a request in; what is wrong with it comes out of the next `step` as a refusal."""
        key, self._next_key = self._next_key, self._next_key + 1
        policy, refusal = self._policy, RefusalCode.CONTRACT
        try:
            question, drafts = policy.question(request)
            inner = self._round.join(question, drafts, on_part=part_listener(request), is_cancelled=cancellation_of(request))
            self._asked[inner] = (key, question, request.level or policy.reasoning)
        except (ContractError, GrammarError, SpecError) as error:
            self._refused.append((key, policy.refused(refusal, str(error))))
        except Exception:  # an observation so odd that checking it fails is still the robot's fault, and still no exception
            logger.exception("observation.unreadable")
            reason = "the observation could not be read; expected images, proprio and an instruction"
            self._refused.append((key, policy.refused(refusal, reason)))
        return key

    def step(self) -> list[tuple[int, Decision]]:
        """One block for all requests; those that are finished."""
        outcomes = self._step() if self._asked else []
        finished, self._refused = self._refused, []
        for inner, outcome in outcomes:
            key, question, level = self._asked.pop(inner)
            finished.append((key, self._decision(outcome, question, level)))
        return finished

    def leave(self, key: int) -> None:
        """Take a request out; nothing happens if it has left already."""
        self._refused = [entry for entry in self._refused if entry[0] != key]
        for inner, (found, _, _) in list(self._asked.items()):
            if found == key:
                del self._asked[inner]
                self._round.leave(inner)

    def close(self) -> None:
        """The round is over: its memory serves the next one."""
        self._asked.clear()
        self._refused.clear()
        self._round.close()

    def _decision(self, outcome: DecodeResult | DecodeFailure, question: Question, level: str) -> Decision:
        if isinstance(outcome, DecodeResult):
            return self._policy.decision(outcome, question, level)
        codes = {CancelledError: RefusalCode.CANCELLED, NotFiniteError: RefusalCode.NONFINITE}
        return self._policy.refused(codes.get(type(outcome), RefusalCode.PARSE), str(outcome))

    def _step(self) -> list[tuple[int, DecodeResult | DecodeFailure]]:
        try:
            return self._round.step()
        except Exception:
            self._asked.clear()
            with contextlib.suppress(Exception):  # a lost device cannot even be wiped; its memory is then left to the collector
                self._round.abandon()
            self._round = self._policy.engine.open_round(self._capacity)
            raise


def load_policy(folder: Path, *, model_version: str = "", reasoning: str = "", device: torch.device | str = "cpu") -> ReasoningPolicy:
    """Open a checkpoint folder as a policy. reasoning: "" for the first level that it was trained at.

    Raises `CheckpointError` when it is not whole or was not trained at that level, `SpecError` for an unknown level.
    """
    return ReasoningPolicy.of(load_checkpoint(folder, device=device), reasoning=reasoning, model_version=model_version)
