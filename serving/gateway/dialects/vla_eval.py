"""vla-eval (Ai2's evaluation harness): typed msgpack messages, one action for every observation.

Every message is {type, payload, seq, timestamp}. The harness executes one action per observation, so a chunk is kept here, per
connection, and one action is sent each time; it is bounded by `execute_horizon` and forgotten when an episode begins or
ends, the instruction changes or anything is refused. An error names its reason and leaves the connection open. Source:
vla-eval 0.8.0, protocol version 1.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, SpecError, WireError
from model_core.spec.protocol import packing, strict_msgpack
from model_core.spec.protocol.wire import EncodedImage, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.dialects.arrays import array_of, msgpack_array
from serving.gateway.dialects.backend import Asked, Backend, PeerGone, notes_of, receive
from serving.gateway.dialects.fields import FieldMap, observation_of
from serving.gateway.dialects.flatten import NESTED, flatten, put
from serving.gateway.inference.served_model import ServedModel
from serving.gateway.sessions.observation_adapter import ObservationAdapter

PROTOCOL_VERSION = 1
MAX_ERRORS = 16


def routes(backend: Backend, fields: FieldMap) -> list[BaseRoute]:
    """`/vla-eval`."""

    async def session(ws: WebSocket) -> None:
        await ws.accept()
        with contextlib.suppress(PeerGone, WebSocketDisconnect):
            await _Connection(ws, backend, fields).run()

    return [WebSocketRoute("/vla-eval", session)]


class _Connection:
    """One connection: its chunk buffer and its instruction."""

    def __init__(self, ws: WebSocket, backend: Backend, fields: FieldMap) -> None:
        self._ws, self._backend, self._fields = ws, backend, fields
        self._key = f"vla-eval-{uuid.uuid4().hex[:12]}"
        self._actions: deque[np.ndarray] = deque()
        self._notes: dict[str, Any] = {}  # of the chunk that the actions are from
        self._given = 0  # actions of it: the harness executes each
        self._adapter: ObservationAdapter | None = None
        self._instruction: str | None = None
        self._errors = 0
        self._early: bytes | None = None

    async def run(self) -> None:
        if not self._backend.enter():
            await self._fail(0, RefusalCode.OVERLOAD, "the service has its highest number of clients")
            await self._ws.close(code=1013)
            return
        try:
            while self._errors < MAX_ERRORS:
                data, self._early = self._early if self._early is not None else await receive(self._ws), None
                await self._take(data)
            await self._ws.close(code=1002)
        finally:
            self._backend.leave()

    async def _take(self, data: bytes) -> None:
        try:
            kind, payload, seq = await self._backend.off_loop(lambda: decode(data))
        except WireError as error:
            await self._fail(0, RefusalCode.DECODE, str(error))
            return
        if kind == "hello":
            await self._hello(payload, seq)
        elif kind in {"episode_start", "episode_end"}:
            self._forget()
        elif kind == "observation":
            await self._observe(payload, seq)
        else:
            await self._fail(seq, RefusalCode.DECODE, f"{kind[:40]!r} is not expected here")

    async def _hello(self, payload: Mapping[str, Any], seq: int) -> None:
        model = self._backend.model
        version = payload.get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            await self._fail(seq, RefusalCode.CONTRACT, f"protocol version {version!r}; this service has {PROTOCOL_VERSION}")
        elif model is None or not self._backend.is_ready:
            await self._fail(seq, RefusalCode.NOT_READY, self._backend.reason)
        else:
            await self._send("hello", hello_of(model, str(payload.get("harness_version", ""))[:64]), seq)

    async def _observe(self, payload: Mapping[str, Any], seq: int) -> None:
        model = self._backend.model
        if model is None:
            await self._fail(seq, RefusalCode.NOT_READY, self._backend.reason)
            return
        try:
            observation = await self._backend.off_loop(lambda: observed(payload, model.contract, self._fields))
        except (WireError, ContractError) as error:
            code = RefusalCode.DECODE if isinstance(error, WireError) else RefusalCode.CONTRACT
            await self._fail(seq, code, str(error))
            return
        if observation.instruction != self._instruction:
            self._actions.clear()
            self._instruction = observation.instruction
        if not self._actions:
            reply, self._early = await self._backend.answer_to(self._ws, self._asked(observation, model.contract))
            if isinstance(reply, Reject):
                await self._fail(seq, reply.code, reply.reason, is_counted=True)
                return
            self._actions.extend(reply.actions_KA[: model.contract.execute_horizon])
            self._notes, self._given = notes_of(reply), 0
        self._errors = 0
        self._given += 1
        await self._send("action", {"actions": msgpack_array(self._actions.popleft(), bytes_keys=False), **self._notes}, seq)

    def _asked(self, observation: Observation, contract: PolicyContract) -> Asked:
        if self._adapter is None or self._adapter.contract != contract:
            self._adapter = ObservationAdapter(contract)
        return Asked(observation=observation, session_key=self._key, consumed=self._given, adapter=self._adapter)

    def _forget(self) -> None:
        self._actions.clear()
        self._instruction, self._given = None, 0

    async def _fail(self, seq: int, code: RefusalCode, reason: str, *, is_counted: bool = False) -> None:
        self._forget()
        self._errors += 1
        if not is_counted:
            self._backend.refuse(code)
        await self._send("error", {"error": f"{code.value}: {reason[:400]}"}, seq)

    async def _send(self, kind: str, payload: Mapping[str, Any], seq: int) -> None:
        message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
        await self._ws.send_bytes(strict_msgpack.pack(b"", message))


def hello_of(model: ServedModel, harness_version: str) -> dict[str, Any]:
    """The answer to the harness's HELLO: the served model, what to send, what an action is."""
    body = model.contract.embodiment
    return {
        "harness_version": harness_version,
        "protocol_version": PROTOCOL_VERSION,
        "model_server": f"actwright {model.model_version} ({model.contract_id})",
        "capabilities": {},
        "observation_params": {"send_wrist_image": len(body.cameras) > 1, "send_state": len(body.proprio) > 0},
    }


def decode(data: bytes) -> tuple[str, dict[str, Any], int]:
    """(type, payload, seq) of one message; raises WireError."""
    document = strict_msgpack.unpack(data)
    kind, payload, seq = document.get("type"), document.get("payload"), document.get("seq")
    packing.expect(isinstance(kind, str), "a message with a type", kind)
    packing.expect(isinstance(payload, dict), "a payload that is a map", payload)
    packing.expect(type(seq) is int and 0 <= seq < 2**63, "a seq", seq)
    return str(kind), payload or {}, int(seq or 0)


def observed(payload: Mapping[str, Any], contract: PolicyContract, fields: FieldMap) -> Observation:
    """The payload of an OBSERVATION as the contract's. Raises WireError or ContractError."""
    values: dict[str, Any] = {}
    for name, value in flatten(payload, _leaf).items():
        put(values, name.removeprefix("images/"), value)  # "images/agentview" is "agentview"
    return observation_of(values, contract, fields)


def _leaf(value: Mapping[Any, Any]) -> Any:
    if "__ndarray__" in value:
        return array_of(value.get("dtype"), value.get("shape"), value.get("data"))
    return _image(value) if "__image__" in value else NESTED


def _image(value: Mapping[str, Any]) -> np.ndarray | EncodedImage:
    encoding, shape, data = value.get("format"), value.get("shape"), value.get("data")
    if encoding == "raw":
        return array_of(value.get("dtype", "|u1"), shape, data)
    sound = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and 0 < n <= 2**14 for n in shape)
    packing.expect(sound, "an image's shape [H, W, 3]", shape)
    packing.expect(str(encoding) in {"png", "jpeg"} and isinstance(data, memoryview), "a png or jpeg image", encoding)
    height, width, channels = shape or (1, 1, 3)
    try:
        return EncodedImage(encoding=str(encoding), data=bytes(data or b""), shape=(height, width, channels))
    except SpecError as error:
        raise WireError(str(error)) from error
