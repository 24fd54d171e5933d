"""Observation -> reasoning -> decision: composition only. What a robot or a model does wrong becomes a refusal, never an exception."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Drafts, Question
from model_core.engine.draft_cache import DraftMemory
from model_core.engine.rounds.round import Answer, CancelledError, NotFiniteError, Wrong
from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, ContractError, GrammarError, SpecError
from model_core.spec.types import (
    ActionChunk,
    ActionReasoning,
    Decision,
    DecisionRequest,
    DepthTokens,
    Observation,
    Refusal,
    RefusalCode,
    Trace,
)
from model_core.tokenization.action_codec import NUM_BINS, ActionCodec
from model_core.tokenization.compact.layout import CompactLayout, Mode, proprio_bins

logger = logging.getLogger(__name__)

# How much is said before acting, as recipes and requests name it.
REASONING_LEVELS: dict[str, Mode] = {
    "full": Mode.FULL,
    "reuse-depth": Mode.FULL,
    "trace+action": Mode.TRACE_ACTION,
    "action": Mode.ACTION,
}
# Proprioception this far (of its range) past the contract's limits is a calibration matter and is clipped; further is another robot.
_PROPRIO_SLACK = 0.1
# Width of an action bin in the normalised range [-1, 1].
_BIN = 2.0 / (NUM_BINS - 1)


class ReasoningPolicy:
    """A model that speaks the compact language, as a `RequestPolicy`.

    reasoning: the level of requests that name none, one of `spec.types.LEVELS`. An observation with a steering trace is answered
    from that trace instead. dtype, engine: see `DecodingEngine`; `engine` is used in place of a new one. reuse_threshold: share of
    the last decision's depth cells that the model must still agree with for level "reuse-depth" to keep them. remember: frames of an
    instruction whose answers are kept as drafts for similar ones (0: none, drafts come from the session alone); never changes an answer.
    """

    def __init__(
        self,
        model: MolmoAct,
        layout: CompactLayout,
        contract: PolicyContract,
        *,
        reasoning: str = "full",
        model_version: str = "",
        dtype: torch.dtype = torch.float32,
        engine: DecodingEngine | None = None,
        reuse_threshold: float = 0.8,
        remember: int = 2048,
    ) -> None:
        if reasoning not in REASONING_LEVELS:
            raise SpecError(f"no reasoning level {reasoning!r}; there are {', '.join(REASONING_LEVELS)}")
        self.contract, self.model_version, self.reasoning = contract, model_version, reasoning
        self.layout, self.reuse_threshold = layout, reuse_threshold
        self.engine = engine or DecodingEngine(model, layout, dtype=dtype)
        self.memory = DraftMemory(self.engine.language, capacity=remember) if remember else None
        self._codec = ActionCodec(stats=contract.stats)

    @staticmethod
    def of(
        checkpoint: Checkpoint, *, reasoning: str = "full", model_version: str = "", dtype: torch.dtype = torch.float32
    ) -> ReasoningPolicy:
        """The policy of a checkpoint that was read."""
        return ReasoningPolicy(
            checkpoint.model, checkpoint.layout, checkpoint.contract, reasoning=reasoning, model_version=model_version, dtype=dtype
        )

    def decide(self, observation: Observation) -> Decision:
        """Answer one observation."""
        return self.decide_many([observation])[0]

    def decide_many(self, observations: list[Observation]) -> list[Decision]:
        """Answer several observations in one batch; an observation that breaks the contract is refused, its neighbours are answered."""
        return self.answer([DecisionRequest(observation=observation) for observation in observations])

    def decide_edited(self, observation: Observation, *, depth: DepthTokens | None = None, trace: Trace | None = None) -> Decision:
        """Go on from what a person changed: an edited depth grid (level full), or an edited trace after its depth."""
        return self.answer([DecisionRequest(observation=observation, depth=depth, trace=trace)])[0]

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
        if level not in self.contract.reasoning.levels:
            raise ContractError(f"level {level!r}: this policy answers at {', '.join(self.contract.reasoning.levels)}")
        mode, trace = REASONING_LEVELS[level], request.trace
        if observation.steering is not None and trace is None:
            mode, trace = Mode.STEERED, observation.steering
        body, layout = self.contract.embodiment, self.layout
        question = Question(
            images_VHW3=np.stack([observation.images[camera.name] for camera in body.cameras]),
            words_W=layout.instruction_ids(observation.instruction),
            proprio_bins_P=proprio_bins(observation.proprio_P, body.proprio.low, body.proprio.high),
            mode=mode,
            depth=request.depth,
            trace=trace,
            committed_DA=None if request.committed_DA is None else self._committed(request.committed_DA, request),
        )
        return question, self._drafts(request, question, level)

    def _committed(self, rows_DA: NDArray[np.float32], request: DecisionRequest) -> NDArray[np.int64]:
        """Rows in the contract's units -> bins. Raises `ContractError` for rows that the policy could not have said."""
        rows_DA = np.asarray(rows_DA)
        most, dims = self.contract.max_prefix_rows, self.layout.action_dims
        if rows_DA.ndim != 2 or rows_DA.shape[1] != dims or len(rows_DA) > most:
            raise ContractError(f"committed rows: expected at most {most} rows of {dims} numbers, got shape {rows_DA.shape}")
        if not np.isfinite(rows_DA).all():
            raise ContractError("committed rows hold NaN or inf")
        last = None if request.previous is None else request.previous.reasoning
        fits = last is not None and last.bins_KA.shape[1:] == (dims,)
        bins_DA = self._codec.recall(rows_DA, last.bins_KA[max(0, request.consumed) :] if last is not None and fits else None)
        two_bins_A = self.contract.stats.unnormalize(np.full(dims, 2.0 * _BIN)) - self.contract.stats.unnormalize(np.zeros(dims))
        off_DA = np.abs(self._codec.decode(bins_DA) - rows_DA) - np.abs(two_bins_A)
        if off_DA.size and float(off_DA.max()) > 1e-6:
            row, dim = np.unravel_index(int(off_DA.argmax()), off_DA.shape)
            raise ContractError(
                f"committed row {row}: {self.contract.embodiment.action.dims[int(dim)].name} = {rows_DA[row, dim]:.4g} is outside what "
                "this policy says; commit rows of its own answers"
            )
        return bins_DA

    def _drafts(self, request: DecisionRequest, question: Question, level: str) -> Drafts:
        said = None if request.previous is None else request.previous.reasoning
        likely = self._likely(question, said, max(0, request.consumed))
        if level != "reuse-depth" or question.mode is not Mode.FULL or question.depth is not None or said is None or said.depth is None:
            return likely
        kept = self._spelt(ActionReasoning(depth=said.depth, trace=None, bins_KA=np.empty((0, 0), np.int64)), question)
        return Drafts(ids={**likely.ids, **kept}, reuse_depth=self.reuse_threshold) if kept else likely

    def _likely(self, question: Question, said: ActionReasoning | None, consumed: int) -> Drafts:
        if self.memory is not None:
            return self.memory.suggest(question, last=said, consumed=consumed) or Drafts()
        return Drafts() if said is None else Drafts(ids=self._spelt(said, question, consumed))

    def _spelt(self, said: ActionReasoning, question: Question, shift: int = 0) -> dict[int, int]:
        try:
            return self.engine.language.spell(said, question, shift=shift)
        except ActwrightError:  # a decision of another policy is no draft, and no reason to refuse
            return {}

    def decision(self, answer: Answer, question: Question, level: str) -> Decision:
        """What the robot is told."""
        served = "trace+action" if question.mode is Mode.STEERED else level
        if served == "reuse-depth" and not answer.counts.get("reused.depth"):
            served = "full"
        if self.memory is not None and served == level:
            self.memory.note(question, answer.reasoning)
        return Decision(
            contract_id=self.contract.contract_id,
            model_version=self.model_version,
            reasoning=answer.reasoning,
            chunk=ActionChunk(actions_KA=self._codec.decode(answer.reasoning.bins_KA), control_hz=self.contract.embodiment.control_hz),
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
            inner = self._round.join(question, drafts, on_part=_listener(request), is_cancelled=_giving_up(request))
            self._asked[inner] = (key, question, request.level or policy.reasoning)
        except (ContractError, GrammarError, SpecError) as error:
            self._refused.append((key, policy.refused(refusal, str(error))))
        except Exception:  # an observation so odd that checking it fails is still the robot's fault, and still no exception
            logger.exception("observation.unreadable")
            reason = "the observation could not be read; expected images, proprio and an instruction"
            self._refused.append((key, policy.refused(refusal, reason)))
        return key

    def step(self) -> list[tuple[int, Decision]]:
        """One block for everybody; those that are finished."""
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

    def _decision(self, outcome: Answer | Wrong, question: Question, level: str) -> Decision:
        if isinstance(outcome, Answer):
            return self._policy.decision(outcome, question, level)
        codes = {CancelledError: RefusalCode.CANCELLED, NotFiniteError: RefusalCode.NONFINITE}
        return self._policy.refused(codes.get(type(outcome), RefusalCode.PARSE), str(outcome))

    def _step(self) -> list[tuple[int, Answer | Wrong]]:
        try:
            return self._round.step()
        except Exception:
            self._asked.clear()
            with contextlib.suppress(Exception):  # a lost device cannot even be wiped; its memory is then left to the collector
                self._round.abandon()
            self._round = self._policy.engine.open_round(self._capacity)
            raise


def _listener(request: DecisionRequest) -> Callable[[str, DepthTokens | Trace], None] | None:
    """The request's `on_part`, whose failure is not the round's."""
    if request.on_part is None:
        return None
    told = request.on_part

    def tell(field: str, value: DepthTokens | Trace) -> None:
        try:
            told(field, value)
        except Exception:  # a listener that fails loses its part; the answer goes on
            logger.exception("part.not_delivered field=%s", field)

    return tell


def _giving_up(request: DecisionRequest) -> Callable[[], bool] | None:
    """The request's `is_cancelled`; one that fails gives nothing up, and is the end of nobody else's answer."""
    if request.is_cancelled is None:
        return None
    asked = request.is_cancelled

    def ask() -> bool:
        try:
            return asked()
        except Exception:  # whatever a listener does wrong stays its own
            logger.exception("cancellation.unknown")
            return False

    return ask


def check_observation(observation: Observation, contract: PolicyContract) -> None:
    """Raise `ContractError` naming the first way in which `observation` is not what the contract promises."""
    body = contract.embodiment
    wanted = [camera.name for camera in body.cameras]
    if sorted(observation.images) != sorted(wanted):
        raise ContractError(f"cameras: expected {wanted}, got {sorted(observation.images)}")
    for camera in body.cameras:
        image = observation.images[camera.name]
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            raise ContractError(
                f"camera {camera.name!r}: expected {camera.height}x{camera.width}x3 uint8, "
                f"got {'x'.join(map(str, image.shape))} {image.dtype}; send the raw frame"
            )
    proprio_P = np.asarray(observation.proprio_P)
    if proprio_P.shape != (len(body.proprio),):
        raise ContractError(f"proprio: expected {len(body.proprio)} numbers, got shape {proprio_P.shape}")
    if not np.isfinite(proprio_P).all():
        raise ContractError("proprio holds NaN or inf; check the sensor")
    slack_P = _PROPRIO_SLACK * (body.proprio.high - body.proprio.low)
    outside_P = (proprio_P < body.proprio.low - slack_P) | (proprio_P > body.proprio.high + slack_P)
    if outside_P.any():
        dim = body.proprio.dims[int(np.flatnonzero(outside_P)[0])]
        raise ContractError(
            f"proprio {dim.name!r} is far outside {dim.low}..{dim.high} {dim.unit}: this is not the state that the policy knows"
        )
    if len(observation.instruction) > contract.max_instruction_chars:
        raise ContractError(f"instruction: at most {contract.max_instruction_chars} characters, got {len(observation.instruction)}")
    if observation.steering is not None and not contract.reasoning.steering:
        raise ContractError("this policy was not trained to be steered; send no trace")


def load_policy(folder: Path, *, model_version: str = "", reasoning: str = "full", device: torch.device | str = "cpu") -> ReasoningPolicy:
    """Open a checkpoint folder as a policy. Raises `CheckpointError` when it is not whole, `SpecError` for an unknown level."""
    return ReasoningPolicy.of(load_checkpoint(folder, device=device), reasoning=reasoning, model_version=model_version)
