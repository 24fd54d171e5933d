"""`/act`: JSON with numpy arrays (`{"__numpy__": base64, "dtype", "shape"}`), one question a request.

Two forms, told apart by their fields: MolmoAct2's (named cameras, `instruction`, `state`; answers the whole chunk as
{actions, dt_ms}) and OpenVLA's (one `image`; answers one action as an array). The body is read raw, because some clients
send no Content-Type. Sources: inspect-robots-yam 0.37.0 (`ActServerPolicy`), MolmoAct2's README, OpenVLA's deploy.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, SpecError, WireError
from model_core.spec.protocol.wire import MAX_MESSAGE_BYTES, EncodedImage, Reject
from model_core.spec.types import Observation, RefusalCode
from serving.gateway.dialects.arrays import array_of, base64_bytes, json_array
from serving.gateway.dialects.backend import Backend
from serving.gateway.dialects.fields import FieldMap, check_norm_tag, observation_of
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.disconnect import unless_gone

_BODY_S = 30.0
_MAX_ITEMS = 100_000  # a picture is one item, a state a few; a list of millions would be objects before anybody looked at it
_TAGS = ("unnorm_key", "normalization_tag", "norm_tag")


def routes(backend: Backend, fields: FieldMap, status: Mapping[RefusalCode, int]) -> list[BaseRoute]:
    """`GET /act` and `POST /act`."""

    async def act(request: Request) -> Response:
        if request.method == "GET":
            return _health(backend)
        if not backend.enter():
            return _refused(backend, status, RefusalCode.OVERLOAD, "as many clients as this service takes are connected")
        try:
            return await _act(request, backend, fields, status)
        finally:
            backend.leave()

    return [Route("/act", act, methods=["GET", "POST"])]


def _health(backend: Backend) -> Response:
    who = backend.identity
    if who is None or not backend.is_ready:
        return JSONResponse({"status": "unavailable", "error": backend.reason}, status_code=503)
    body = who.contract.embodiment
    return JSONResponse(
        {
            "status": "ok",
            "repo_id": who.model_version,
            "norm_tag": body.name,
            "num_cameras": len(body.cameras),
            "cameras": [c.name for c in body.cameras],
            "state_dim": len(body.proprio),
            "action_dim": len(body.action),
            "chunk_length": who.contract.chunk_length,
            "contract_id": who.contract_id,
        }
    )


async def _act(request: Request, backend: Backend, fields: FieldMap, status: Mapping[RefusalCode, int]) -> Response:
    who = backend.identity
    if who is None:
        return _refused(backend, status, RefusalCode.NOT_READY, backend.reason)
    try:
        body = await asyncio.wait_for(_body(request), _BODY_S)
        observation, wants_one = await backend.off_loop(lambda: decode(body, who.contract, fields))
    except (WireError, TimeoutError, ClientDisconnect) as error:
        code = RefusalCode.TOO_LARGE if isinstance(error, _TooLarge) else RefusalCode.DECODE
        return _refused(backend, status, code, str(error) or "the body did not arrive in time")
    except ContractError as error:
        return _refused(backend, status, RefusalCode.CONTRACT, str(error))
    try:
        reply = await unless_gone(request, backend.answer(observation, "act", caller_of(request.scope)))
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    if isinstance(reply, Reject):
        return _refused(None, status, reply.code, reply.reason)
    if wants_one:
        return JSONResponse(json_array(reply.actions_KA[0]))
    document = {"actions": json_array(reply.actions_KA), "dt_ms": 1e3 / reply.control_hz, "chunk_id": reply.chunk_id}
    return JSONResponse({**document, "contract_id": reply.contract_id})


def decode(body: bytes, contract: PolicyContract, fields: FieldMap) -> tuple[Observation, bool]:
    """The question, and whether one action is wanted (OpenVLA's form). Raises WireError or ContractError."""
    document = _json(body)
    if isinstance(document.get("encoded"), str):  # OpenVLA's clients without json_numpy send JSON inside JSON
        document = _json(document["encoded"])
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "images_jpeg" and isinstance(value, dict):
            values |= {f"{camera}": _jpeg(camera, text, contract) for camera, text in value.items()}
        else:
            values[name] = _value(value)
    for tag in _TAGS:
        check_norm_tag(values.pop(tag, None), contract, fields)
    return observation_of(values, contract, fields), "image" in document and "image" not in fields.cameras.values()


def _json(text: bytes | str) -> dict[str, Any]:
    items = text.count(b",") if isinstance(text, bytes) else text.count(",")
    if items > _MAX_ITEMS:
        raise WireError(f"the body holds {items} items, at most {_MAX_ITEMS} are taken; send arrays as json_numpy does")
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError(f"the body is not JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise WireError(f"the body is a JSON map, got {type(document).__name__}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "__numpy__" in value:
        return array_of(value.get("dtype"), value.get("shape"), base64_bytes(value["__numpy__"]))
    if isinstance(value, list) and len(value) <= 1024 and all(type(n) in {int, float} for n in value):
        return np.asarray(value, np.float64)  # a plain list is a state vector
    return value


def _jpeg(camera: str, text: Any, contract: PolicyContract) -> EncodedImage:
    # JPEG names no camera size here, so it must have the contract's: that is compared before a pixel is decoded.
    spec = next((c for c in contract.embodiment.cameras if camera in {c.name, c.name.removesuffix("_cam"), c.role}), None)
    if spec is None:
        raise ContractError(f"images_jpeg: {str(camera)[:40]!r} is none of {', '.join(c.name for c in contract.embodiment.cameras)}")
    try:
        return EncodedImage(encoding="jpeg", data=base64_bytes(text), shape=(spec.height, spec.width, 3))
    except SpecError as error:
        raise WireError(str(error)) from error


def _refused(backend: Backend | None, status: Mapping[RefusalCode, int], code: RefusalCode, reason: str) -> Response:
    if backend is not None:
        backend.refuse(code)
    return JSONResponse({"code": code.value, "error": reason[:400]}, status_code=status[code])


class _TooLarge(WireError):  # noqa: N818
    """More bytes than are taken."""


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > 2 * MAX_MESSAGE_BYTES:  # base64 and JSON make pictures a third larger
            raise _TooLarge(f"a body has at most {2 * MAX_MESSAGE_BYTES} bytes")
    return bytes(data)
