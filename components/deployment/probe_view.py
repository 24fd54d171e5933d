"""What a probe found, for a person: the question and its answer as a drawing, the contract in lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from components.deployment.audit_view import decode_depth, stages_of
from components.deployment.probe import Probed
from components.drawing.decision import DecisionView
from model_core.spec.contract import PolicyContract, ReasoningSpec
from model_core.spec.protocol.wire import Chunk, Reject
from model_core.spec.types import Trace


def view_of_probe(probed: Probed, codebooks: Iterable[Path] = ()) -> DecisionView:
    """The question and its answer as a drawing's content."""
    answer, contract = probed.answer, probed.contract
    chunk = answer if isinstance(answer, Chunk) else None
    codes_G = None if chunk is None else chunk.depth_codes_G
    refused = "" if chunk is not None else f"; refused: {answer.code.value}: {answer.reason}" if isinstance(answer, Reject) else ""
    stages = {} if chunk is None else stages_of(chunk.timing_ms)
    if stages:
        stages["wire and the rest"] = max(probed.ms["answer"] - sum(stages.values()), 0.0)
    return DecisionView(
        title=f"{probed.ready.model_version} at {probed.url.http}: one synthetic decision",
        images=probed.asked.images,
        action=contract.embodiment.action,
        raw_KA=None if chunk is None else chunk.actions_KA,
        trace=None if chunk is None or chunk.trace_N2 is None else Trace(points_N2=chunk.trace_N2),
        trace_camera=contract.reasoning.trace_camera,
        depth_HW=decode_depth(codes_G, contract.reasoning.codebook_digest, codebooks),
        codes_G=codes_G,
        notes=[
            f'"{probed.asked.instruction}" on noise; connect {probed.ms["connect"]:.1f} ms, handshake {probed.ms["handshake"]:.1f} ms, '
            f"answer {probed.ms['answer']:.1f} ms{refused}",
            f"contract {probed.contract_id}, body {contract.embodiment.name}",
            *probed.notes,
        ],
        timing_ms=stages,
    )


def contract_lines(contract: PolicyContract, levels: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """The contract for a person, a line each."""
    body, reasoning = contract.embodiment, contract.reasoning
    lines = [f"contract  {contract.contract_id} (protocol {contract.protocol}), body {body.name} at {body.control_hz:g} Hz"]
    for camera in body.cameras:
        sent = f"{camera.color} as {' or '.join(camera.encodings)}, resized by the {camera.resize}, at most {camera.max_age_ms:.0f} ms old"
        lines.append(f"camera    {camera.name}: {camera.width}x{camera.height} {sent}")
    lines += [f"state     {dim.name}: {dim.low:g} .. {dim.high:g} {dim.unit} ({dim.frame})" for dim in body.proprio.dims]
    for dim, mode in zip(body.action.dims, body.action.modes, strict=True):
        opens = f", {body.gripper_open:g} opens" if dim.name == body.gripper_dim else ""
        lines.append(f"action    {dim.name}: {dim.low:g} .. {dim.high:g} {dim.unit} ({dim.frame}), {mode or 'absolute'}{opens}")
    ask, committed = contract.execute_horizon, contract.max_prefix_rows
    lines.append(f"chunk     {contract.chunk_length} rows, ask again after {ask}; up to {committed} rows may be committed")
    lines.append(f"says      {', '.join(_said(reasoning))}")
    for level in reasoning.levels:
        measured = {name.removesuffix("_ms"): ms for name, ms in sorted(levels.get(level, {}).items())}
        lines.append(f"level     {level}" + (f": {', '.join(f'{name} {ms:.0f} ms' for name, ms in measured.items())}" if measured else ""))
    words = f"{len(contract.words)} words" if contract.words else f"any text of at most {contract.max_instruction_chars} characters"
    return [*lines, f"language  {words}"]


def _said(reasoning: ReasoningSpec) -> Iterable[str]:
    """What is predicted beside actions, at the level that predicts most, and whether a person may draw it."""
    rows, columns = reasoning.depth_grid
    if "full" in reasoning.levels:
        yield f"depth {rows}x{columns} of {reasoning.depth_codes} codes"
    if reasoning.levels == ("action",):
        yield "actions alone"
    else:
        yield f"up to {reasoning.trace_points} trace points on {reasoning.trace_camera or 'the first camera'}"
    yield "may be steered" if reasoning.steering else "cannot be steered"
