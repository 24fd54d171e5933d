"""Observation -> reasoning -> decision: composition only. What a robot or a model does wrong becomes a refusal, never an exception."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.decode import Answer, DecodingEngine, Question
from model_core.network.model import MolmoAct
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, GrammarError, SpecError
from model_core.spec.types import ActionChunk, Decision, DepthTokens, Observation, Refusal, RefusalCode, Trace
from model_core.speech.action_codec import ActionCodec
from model_core.speech.compact import CompactLayout, Mode, proprio_bins

logger = logging.getLogger(__name__)

# How much is said before acting, as recipes name it.
REASONING_LEVELS: dict[str, Mode] = {"full": Mode.FULL, "trace+action": Mode.TRACE_ACTION, "action": Mode.ACTION}
# Proprioception this far (of its range) past the contract's limits is a calibration matter and is clipped; further is another robot.
_PROPRIO_SLACK = 0.1


class ReasoningPolicy:
    """A model that speaks the compact language, as a `Policy`.

    reasoning: one of `REASONING_LEVELS`. An observation with a steering trace is answered from that trace instead.
    dtype: bfloat16 decodes under autocast.
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
    ) -> None:
        if reasoning not in REASONING_LEVELS:
            raise SpecError(f"no reasoning level {reasoning!r}; there are {', '.join(REASONING_LEVELS)}")
        self.contract, self.model_version, self.reasoning = contract, model_version, reasoning
        self.engine = DecodingEngine(model, layout, dtype=dtype)
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
        return self._decide([self._question_or_refusal(observation) for observation in observations])

    def decide_edited(self, observation: Observation, *, depth: DepthTokens | None = None, trace: Trace | None = None) -> Decision:
        """Go on from what a person changed: an edited depth grid (level full), or an edited trace after its depth."""
        return self._decide([self._question_or_refusal(observation, depth=depth, trace=trace)])[0]

    def _decide(self, asked: Sequence[Question | Refusal]) -> list[Decision]:
        questions = [entry for entry in asked if isinstance(entry, Question)]
        answers, timing_ms = iter(()), {}
        if questions:
            try:
                decoded = self.engine.decode(questions)
            except GrammarError as error:
                return self._all_refused(asked, Refusal(code=RefusalCode.PARSE, reason=str(error)))
            except Exception:  # whatever failed is ours; the robot gets a refusal and holds, the log gets the traceback
                logger.exception("decision.failed questions=%d", len(questions))
                reason = "the model failed to answer; see the service's log"
                return self._all_refused(asked, Refusal(code=RefusalCode.INTERNAL, reason=reason, retryable=True))
            answers, timing_ms = iter(decoded.answers), {k: v / len(questions) for k, v in decoded.timing_ms.items()}
        return [self._decision(next(answers), timing_ms) if isinstance(entry, Question) else self._refused(entry) for entry in asked]

    def _decision(self, answer: Answer, timing_ms: dict[str, float]) -> Decision:
        if not answer.finite:
            return self._refused(Refusal(code=RefusalCode.NONFINITE, reason="the model computed NaN or inf"))
        actions_KA = self._codec.decode(answer.reasoning.bins_KA)
        return Decision(
            contract_id=self.contract.contract_id,
            model_version=self.model_version,
            reasoning=answer.reasoning,
            chunk=ActionChunk(actions_KA=actions_KA, control_hz=self.contract.embodiment.control_hz),
            timing_ms=timing_ms,
        )

    def _question_or_refusal(
        self, observation: Observation, *, depth: DepthTokens | None = None, trace: Trace | None = None
    ) -> Question | Refusal:
        try:
            return self._question(observation, depth, trace)
        except (ContractError, GrammarError, SpecError) as error:
            return Refusal(code=RefusalCode.CONTRACT, reason=str(error))
        except Exception:  # an observation so odd that checking it fails is still the robot's fault, and still no exception
            logger.exception("observation.unreadable")
            return Refusal(
                code=RefusalCode.CONTRACT, reason="the observation could not be read; expected images, proprio and an instruction"
            )

    def _question(self, observation: Observation, depth: DepthTokens | None, trace: Trace | None) -> Question:
        check_observation(observation, self.contract)
        body, layout = self.contract.embodiment, self.engine.layout
        mode = REASONING_LEVELS[self.reasoning]
        if observation.steering is not None and trace is None:
            mode, trace = Mode.STEERED, observation.steering
        question = Question(
            images_VHW3=np.stack([observation.images[camera.name] for camera in body.cameras]),
            words_W=layout.instruction_ids(observation.instruction),
            proprio_bins_P=proprio_bins(observation.proprio_P, body.proprio.low, body.proprio.high),
            mode=mode,
            depth=depth,
            trace=trace,
        )
        layout.given(mode, depth=depth, trace=trace)  # refused here, this row alone, and not in the batch
        return question

    def _all_refused(self, asked: Sequence[Question | Refusal], refusal: Refusal) -> list[Decision]:
        """`refusal` for every question; an observation that was refused before keeps its own reason."""
        return [self._refused(entry if isinstance(entry, Refusal) else refusal) for entry in asked]

    def _refused(self, refusal: Refusal) -> Decision:
        return Decision(contract_id=self.contract.contract_id, model_version=self.model_version, refusal=refusal)


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
