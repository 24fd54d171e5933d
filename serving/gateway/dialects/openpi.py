"""openpi (Physical Intelligence): WebSocket, metadata first, then one msgpack map per request and one chunk per answer.

Arrays are maps with bytes keys (`__ndarray__`, `data`, `dtype`, `shape`). A refusal is a text frame, after which the
connection ends, as upstream does; but it holds a code and a sentence instead of a traceback. Source: openpi-client 0.1.2.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, WireError
from model_core.spec.protocol import strict_msgpack
from model_core.spec.protocol.wire import Chunk, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.dialects.arrays import array_of, msgpack_array
from serving.gateway.dialects.backend import Asked, Backend, PeerGone, notes_of, receive
from serving.gateway.dialects.fields import FieldMap, observation_of
from serving.gateway.dialects.flatten import NESTED, flatten
from serving.gateway.inference.served_model import ServedModel


def routes(backend: Backend, fields: FieldMap) -> list[BaseRoute]:
    """`/`, `/openpi`, and the health endpoint that openpi's own server has."""

    async def session(ws: WebSocket) -> None:
        await ws.accept()
        with contextlib.suppress(PeerGone, WebSocketDisconnect):
            await _serve(ws, backend, fields)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("OK\n" if backend.is_ready else f"{backend.reason}\n", status_code=200 if backend.is_ready else 503)

    return [WebSocketRoute("/", session), WebSocketRoute("/openpi", session), Route("/healthz", healthz)]


def metadata(model: ServedModel) -> dict[str, Any]:
    """The first message to a client: the contract, flattened to the keys that openpi's clients read."""
    contract, body = model.contract, model.contract.embodiment
    return {
        "model_version": model.model_version,
        "contract_id": model.contract_id,
        "embodiment": body.name,
        "control_hz": body.control_hz,
        "action_horizon": contract.chunk_length,
        "execute_horizon": contract.execute_horizon,
        "cameras": [{"name": c.name, "height": c.height, "width": c.width, "color": c.color} for c in body.cameras],
        "state": [d.name for d in body.proprio.dims],
        "state_units": [d.unit for d in body.proprio.dims],
        "action": [d.name for d in body.action.dims],
        "action_units": [d.unit for d in body.action.dims],
        "action_modes": list(body.action.modes),
    }


async def _serve(ws: WebSocket, backend: Backend, fields: FieldMap) -> None:
    model = backend.model
    if model is None or not backend.is_ready:
        await _refuse(ws, backend, RefusalCode.NOT_READY, backend.reason)
        return
    if not backend.enter():
        await _refuse(ws, backend, RefusalCode.OVERLOAD, "the service has its highest number of clients")
        return
    try:
        await ws.send_bytes(strict_msgpack.pack(b"", metadata(model)))
        await _answer_all(ws, backend, fields, model.contract)
    finally:
        backend.leave()


async def _answer_all(ws: WebSocket, backend: Backend, fields: FieldMap, contract: PolicyContract) -> None:
    key, early = f"openpi-{uuid.uuid4().hex[:12]}", None
    while True:
        data = early if early is not None else await receive(ws)
        try:
            observation = await backend.off_loop(lambda data=data: decode(data, contract, fields))
        except (WireError, ContractError) as error:
            code = RefusalCode.DECODE if isinstance(error, WireError) else RefusalCode.CONTRACT
            await _refuse(ws, backend, code, str(error))
            return
        reply, early = await backend.answer_to(ws, Asked(observation=observation, session_key=key))
        if isinstance(reply, Reject):
            await _refuse(ws, None, reply.code, reply.reason)
            return
        await ws.send_bytes(encode(reply))


def decode(data: bytes, contract: PolicyContract, fields: FieldMap) -> Observation:
    """One request. Raises WireError for bytes that are none, ContractError for what does not fit."""
    return observation_of(flatten(strict_msgpack.unpack(data, bytes_keys=True), _leaf), contract, fields)


def encode(chunk: Chunk) -> bytes:
    """One answer: the whole chunk, the time of each stage, and what was noticed or cheapened."""
    timing = {name: float(ms) for name, ms in chunk.timing_ms.items()}
    document = {
        "actions": msgpack_array(chunk.actions_KA, bytes_keys=True),
        "server_timing": {"infer_ms": timing.get("model", timing.get("service", 0.0)), **timing},
        "chunk_id": chunk.chunk_id,
        "contract_id": chunk.contract_id,
        "control_hz": chunk.control_hz,
        **notes_of(chunk),
    }
    return strict_msgpack.pack(b"", document)


def _leaf(value: Mapping[Any, Any]) -> Any:
    """Arrays and numpy scalars are values, other maps hold fields."""
    if b"__ndarray__" in value:
        return array_of(_text(value.get(b"dtype")), value.get(b"shape"), value.get(b"data"))
    return value.get(b"data") if b"__npgeneric__" in value else NESTED


def _text(value: Any) -> Any:
    return bytes(value).decode("ascii", errors="replace") if isinstance(value, memoryview) else value


async def _refuse(ws: WebSocket, backend: Backend | None, code: RefusalCode, reason: str) -> None:
    if backend is not None:
        backend.refuse(code)
    await ws.send_text(f"{code.value}: {reason[:400]}")
    await ws.close(code=1011)
