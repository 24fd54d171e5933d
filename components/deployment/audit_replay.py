"""Look at a recorded decision again, and ask the same policy the same question: does it still answer so?

The question is rebuilt from the audit file alone: frames bit for bit, proprioception, instruction, steering, edits, committed rows.
A bundle answers exactly as it did, on any machine whose arithmetic gives the same tokens.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.release.bundle import PackedPolicy
from model_core.spec import conversion
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile, AuditRecord
from model_core.spec.contract import EmbodimentSpec, PolicyContract, embodiment_from_json
from model_core.spec.errors import ContractError, DatasetError, SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.types import ActionChunk, ActionReasoning, Decision, DecisionRequest, DepthTokens, Observation, RequestPolicy, Trace

# Refused for the state of the service or the link at that moment: asked again in peace, the same question has an answer.
_OF_THE_MOMENT = frozenset(
    (
        "DEADLINE",
        "OVERLOAD",
        "NOT_READY",
        "STALE_OBS",
        "STALE_EPOCH",
        "LEASE",
        "AUTH",
        "DRAINING",
        "KILLED",
        "CANCELLED",
        "INTERNAL",
        "down",
    )
)
ACTION_TOLERANCE = 1e-5  # of a dimension's unit: tokens are equal or not, and equal tokens give equal float32 actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The same question, asked again. is_equal: every token the same, every action within the tolerance."""

    is_equal: bool
    depth_differing: int
    trace_differing: int
    max_action_difference: float
    detail: str = ""


def decisions_of(found: AuditFile) -> list[AuditRecord]:
    """The decisions of a file, in order. Raises DatasetError where not one can be read."""
    decisions = found.of(Kind.DECISION)
    if not decisions:
        raise DatasetError(f"{found.path}: no decision can be read ({found.problem or 'the episode had none'})")
    return decisions


def pick_decision(found: AuditFile, number: int) -> AuditRecord:
    """Decision `number`, counted from 1; negative ones from the end. Raises SpecError naming what there is."""
    decisions = decisions_of(found)
    place = number - 1 if number > 0 else len(decisions) + number
    if number == 0 or not 0 <= place < len(decisions):
        raise SpecError(f"--decision {number}: {found.path.name} has decisions 1..{len(decisions)} (-1 is the last)")
    return decisions[place]


def contract_of(found: AuditFile) -> PolicyContract:
    """The contract that the episode ran under. Raises ContractError."""
    if not found.contract:
        raise ContractError(f"{found.path}: its first record is unreadable, so there is no contract")
    return PolicyContract.from_json(found.contract)


def body_of(found: AuditFile) -> EmbodimentSpec:
    """The body of the cell: the contract's, or its own where the service converts between them."""
    own = found.records[0].body.get("body")
    return embodiment_from_json(own) if own else contract_of(found).embodiment


def images_of(found: AuditFile, record: AuditRecord) -> dict[str, NDArray[np.uint8]]:
    """The frames that a decision was made on, those that are still there."""
    images = {}
    for camera, stored in record.body.get("frames", {}).items():
        frame = found.frames.get(stored.get("digest", ""))
        if frame is not None:
            with Image.open(io.BytesIO(frame.data)) as image:
                images[camera] = np.asarray(image.convert("RGB"))
    return images


def request_of(found: AuditFile, record: AuditRecord) -> DecisionRequest:
    """The question of a decision, as it was asked. Raises DatasetError when its frames were given up to make room."""
    body, images = record.body, images_of(found, record)
    missing = sorted(set(body.get("frames", {})) - set(images))
    if missing or not images:
        gone = ", ".join(missing) or "every camera"
        raise DatasetError(f"{found.path.name} has the frames of {gone} no more: the decision can be looked at, not asked again")
    chunk = body.get("chunk") or {}
    is_steered = any(str(flag).startswith("steering:rev") for flag in chunk.get("flags", ())) or bool(body.get("drawn"))
    drawn = (body.get("drawn") or {}).get("points_N2") or (chunk.get("trace_N2") if is_steered else None)
    edit = body.get("edit") or {}
    observation = Observation(
        images=images,
        proprio_P=np.asarray(body["proprio"], np.float32),
        instruction=str(body["instruction"]),
        steering=recorded_trace(drawn),
    )
    committed = body.get("committed_DA")
    return DecisionRequest(
        observation=observation,
        level=str(chunk.get("level") or body.get("level") or ""),
        depth=_depth(edit.get("depth_codes_G")),
        trace=recorded_trace(edit.get("trace_N2")),
        committed_DA=None if not committed else np.asarray(committed, np.float32),
        previous=_previous(found, str(body.get("previous_chunk_id", ""))),
        consumed=int(body.get("consumed", 0)),
    )


def ask_again(found: AuditFile, record: AuditRecord, policy: RequestPolicy) -> tuple[Comparison, Decision]:
    """Ask `policy` the recorded question and compare. Raises DatasetError when the frames are gone."""
    contract = contract_of(found)
    conversions = conversion.compare(contract, body_of(found)).conversions  # as the service did on the way in, and back on the way out
    asked = request_of(found, record)
    observation = conversion.convert_observation(conversions, asked.observation, contract.embodiment)
    rows_DA = None if asked.committed_DA is None else conversion.convert_committed(conversions, asked.committed_DA)
    (again,) = Guarded(policy=policy, contract=contract).answer([replace(asked, observation=observation, committed_DA=rows_DA)])
    if again.chunk is not None:
        again = replace(again, chunk=replace(again.chunk, actions_KA=conversion.convert_actions(conversions, again.chunk.actions_KA)))
    return compare(record.body, again), again


def ask_all(found: AuditFile, policy: RequestPolicy) -> dict[str, int]:
    """Ask every decision of a file again: how many were asked, gave the same answer, differ, or lost their frames.

    first_differing: number of the first decision whose answer differs, counted from 1; 0 when none does.
    """
    counts = {"decisions": 0, "asked": 0, "equal": 0, "without_frames": 0, "first_differing": 0}
    for number, record in enumerate(decisions_of(found), 1):
        counts["decisions"] += 1
        try:
            same, _ = ask_again(found, record, policy)
        except DatasetError:
            counts["without_frames"] += 1
            continue
        counts["asked"] += 1
        counts["equal"] += same.is_equal
        if not same.is_equal and not counts["first_differing"]:
            counts["first_differing"] = number
    return counts


def compare(body: Mapping[str, Any], again: Decision) -> Comparison:
    """A recorded answer and a new one, token by token and action by action."""
    chunk = body.get("chunk")
    if chunk is None or again.chunk is None:
        return _compare_refusals(str(body.get("code", "")), again, had_chunk=chunk is not None)
    predicted = again.reasoning
    depth = _differing(chunk.get("depth_codes_G"), None if predicted is None or predicted.depth is None else predicted.depth.codes_G)
    trace = _differing(chunk.get("trace_N2"), None if predicted is None or predicted.trace is None else predicted.trace.points_N2)
    was_KA, now_KA = np.asarray(chunk["actions_KA"], np.float64), np.asarray(again.chunk.actions_KA, np.float64)
    far = float(np.abs(was_KA - now_KA).max()) if was_KA.shape == now_KA.shape else float("inf")
    is_equal = depth == trace == 0 and far <= ACTION_TOLERANCE
    return Comparison(is_equal=is_equal, depth_differing=depth, trace_differing=trace, max_action_difference=far)


def _compare_refusals(code: str, again: Decision, *, had_chunk: bool) -> Comparison:
    now = "answered" if again.refusal is None else f"refused ({again.refusal.code.value}: {again.refusal.reason})"
    if not had_chunk and code in _OF_THE_MOMENT:
        detail = f"nothing to compare: it was refused for {code}, a matter of that moment; now it is {now}"
        return Comparison(is_equal=True, depth_differing=0, trace_differing=0, max_action_difference=0.0, detail=detail)
    same = not had_chunk and again.refusal is not None and again.refusal.code.value == code
    detail = f"it was {'answered' if had_chunk else f'refused ({code})'}, now it is {now}"
    return Comparison(is_equal=same, depth_differing=0, trace_differing=0, max_action_difference=0.0, detail=detail)


def open_packed(packed: PackedPolicy, found: AuditFile) -> RequestPolicy:
    """The policy of a bundle. Raises ContractError when it is not the one that the episode ran with."""
    from model_core.policy import load_policy

    contract = contract_of(found)
    policy = load_policy(packed.checkpoint, model_version=packed.model_version, reasoning=packed.reasoning)
    stated = str(packed.manifest.get("contract_id") or policy.contract.contract_id)
    if stated not in (contract.contract_id, str(found.records[0].body.get("contract_id"))):
        raise ContractError(
            f"{packed.checkpoint}: its contract is {stated}, the episode ran under {contract.contract_id}; give the bundle it ran with"
        )
    return as_request_policy(policy)


def _previous(found: AuditFile, chunk_id: str) -> Decision | None:
    """The answer that this question went on from: its depth may stand, and its tokens are drafts."""
    if not chunk_id:
        return None
    for record in found.of(Kind.DECISION):
        chunk = record.body.get("chunk") or {}
        if chunk.get("chunk_id") == chunk_id:
            actions_KA = np.asarray(chunk["actions_KA"], np.float32)
            reasoning = ActionReasoning(
                depth=_depth(chunk.get("depth_codes_G")), trace=recorded_trace(chunk.get("trace_N2")), bins_KA=np.zeros((0, 0), np.int64)
            )
            return Decision(
                contract_id=str(chunk["contract_id"]),
                model_version=str(chunk["model_version"]),
                reasoning=reasoning,
                chunk=ActionChunk(actions_KA=actions_KA, control_hz=float(chunk["control_hz"])),
            )
    return None


def _differing(was: list[Any] | None, now: NDArray[np.integer] | None) -> int:
    if was is None or now is None:
        return 0 if was is None and now is None else -1 if was is None else len(was)
    was_X = np.asarray(was)
    return int((was_X != now).sum()) if was_X.shape == now.shape else max(was_X.size, now.size)


def recorded_trace(points: list[list[int]] | None) -> Trace | None:
    """The trace of a record, or None where it has none."""
    return None if not points else Trace(points_N2=np.asarray(points, np.int64))


def _depth(codes: list[int] | None) -> DepthTokens | None:
    return None if not codes else DepthTokens(codes_G=np.asarray(codes, np.int64))
