"""Observation -> reasoning -> decision: composition only. What a robot or a model does wrong becomes a refusal, never an exception."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.answer import CancelledError, DecodeFailure, DecodeResult, NotFiniteError
from model_core.engine.callbacks import cancellation_of, part_listener
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import DecodeRequest, Drafts
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.resources import EngineOptions
from model_core.network.model import MolmoAct
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
from model_core.tokenization.compact.layout import CompactLayout, ReasoningMode
from model_core.tokenization.observation import PolicyInputs, check_observation

logger = logging.getLogger(__name__)

# How much is predicted before the actions, as recipes and requests name it.
REASONING_LEVELS: dict[str, ReasoningMode] = {
    "full": ReasoningMode.FULL,
    "reuse-depth": ReasoningMode.FULL,
    "trace+action": ReasoningMode.TRACE_ACTION,
    "action": ReasoningMode.ACTION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """How a policy answers.

    reasoning: the level of requests that name none, one of `spec.types.LEVELS`. dtype: of the decoding, see `EngineOptions`.
    reuse_threshold: share of the last decision's depth cells that the model must still agree with for level "reuse-depth" to keep
    them. remember: frames of an instruction whose answers are kept as drafts for similar ones (0: none, drafts come from the
    session alone); never changes an answer.
    """

    reasoning: str = "full"
    model_version: str = ""
    dtype: torch.dtype = torch.float32
    reuse_threshold: float = 0.8
    remember: int = 2048

    def __post_init__(self) -> None:
        if self.reasoning not in REASONING_LEVELS:
            raise SpecError(f"no reasoning level {self.reasoning!r}; there are {', '.join(REASONING_LEVELS)}")


class ReasoningPolicy:
    """A model of the compact language, as a `RequestPolicy`.

    An observation with a steering trace is answered from that trace. engine: used in place of a new one.
    """

    def __init__(
        self,
        model: MolmoAct,
        layout: CompactLayout,
        contract: PolicyContract,
        options: PolicyOptions = PolicyOptions(),
        *,
        engine: DecodingEngine | None = None,
    ) -> None:
        self.contract, self.layout, self.options = contract, layout, options
        self.model_version, self.reasoning = options.model_version, options.reasoning
        self.inputs = PolicyInputs(layout=layout, contract=contract)
        self.engine = engine or DecodingEngine(model, layout, EngineOptions(dtype=options.dtype))
        self.memory = DraftMemory(self.engine.language, capacity=options.remember) if options.remember else None

    @staticmethod
    def of(
        checkpoint: Checkpoint, *, reasoning: str = "full", model_version: str = "", dtype: torch.dtype = torch.float32
    ) -> ReasoningPolicy:
        """The policy of a checkpoint that was read."""
        options = PolicyOptions(reasoning=reasoning, model_version=model_version, dtype=dtype)
        return ReasoningPolicy(checkpoint.model, checkpoint.layout, checkpoint.contract, options)

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

    def question(self, request: DecisionRequest) -> tuple[DecodeRequest, Drafts]:
        """What a request asks the engine. Raises an `ActwrightError` for what breaks the contract or the language."""
        observation, level = request.observation, request.level or self.reasoning
        check_observation(observation, self.contract)
        if level not in self.contract.reasoning.levels:
            raise ContractError(f"level {level!r}: this policy answers at {', '.join(self.contract.reasoning.levels)}")
        mode, trace = REASONING_LEVELS[level], request.trace
        if observation.steering is not None and trace is None:
            mode, trace = ReasoningMode.STEERED, observation.steering
        question = DecodeRequest(
            images_VHW3=self.inputs.images(observation),
            words_W=self.inputs.words(observation.instruction),
            proprio_bins_P=self.inputs.proprio_bins(observation.proprio_P),
            mode=mode,
            depth=request.depth,
            trace=trace,
            committed_DA=self._prefix(request),
        )
        return question, self._drafts(request, question, level)

    def _prefix(self, request: DecisionRequest) -> NDArray[np.int64] | None:
        if request.committed_DA is None:
            return None
        last = None if request.previous is None else request.previous.reasoning
        return self.inputs.prefix_bins(request.committed_DA, None if last is None else last.bins_KA[max(0, request.consumed) :])

    def _drafts(self, request: DecisionRequest, question: DecodeRequest, level: str) -> Drafts:
        last = None if request.previous is None else request.previous.reasoning
        likely = self._likely(question, last, max(0, request.consumed))
        reusable = level == "reuse-depth" and question.mode is ReasoningMode.FULL and question.depth is None
        if not reusable or last is None or last.depth is None:
            return likely
        kept = self._encoded(ActionReasoning(depth=last.depth, trace=None, bins_KA=np.empty((0, 0), np.int64)), question)
        return Drafts(ids={**likely.ids, **kept}, reuse_depth=self.options.reuse_threshold) if kept else likely

    def _likely(self, question: DecodeRequest, last: ActionReasoning | None, consumed: int) -> Drafts:
        if self.memory is not None:
            return self.memory.suggest(question, last=last, consumed=consumed) or Drafts()
        return Drafts() if last is None else Drafts(ids=self._encoded(last, question, consumed))

    def _encoded(self, reasoning: ActionReasoning, question: DecodeRequest, shift: int = 0) -> dict[int, int]:
        try:
            return self.engine.language.encode(reasoning, question, shift=shift)
        except ActwrightError:  # a decision of another policy is no draft, and no reason to refuse
            return {}

    def decision(self, answer: DecodeResult, question: DecodeRequest, level: str) -> Decision:
        """The decision that the robot gets."""
        served = "trace+action" if question.mode is ReasoningMode.STEERED else level
        if served == "reuse-depth" and not answer.counts.get("reused.depth"):
            served = "full"
        if self.memory is not None and served == level:
            self.memory.note(question, answer.reasoning)
        return Decision(
            contract_id=self.contract.contract_id,
            model_version=self.model_version,
            reasoning=answer.reasoning,
            chunk=ActionChunk(actions_KA=self.inputs.actions_of(answer.reasoning.bins_KA), control_hz=self.contract.embodiment.control_hz),
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
        self._asked: dict[int, tuple[int, DecodeRequest, str]] = {}  # the engine's key -> our key, question, level
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

    def _decision(self, outcome: DecodeResult | DecodeFailure, question: DecodeRequest, level: str) -> Decision:
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


def load_policy(folder: Path, *, model_version: str = "", reasoning: str = "full", device: torch.device | str = "cpu") -> ReasoningPolicy:
    """Open a checkpoint folder as a policy. Raises `CheckpointError` when it is not whole, `SpecError` for an unknown level."""
    return ReasoningPolicy.of(load_checkpoint(folder, device=device), reasoning=reasoning, model_version=model_version)
