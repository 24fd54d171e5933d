"""`/act`: JSON with numpy arrays (`{"__numpy__": base64, "dtype", "shape"}`), one observation per request.

Two forms, distinguished by their fields: MolmoAct2's (named cameras, `instruction`, `state`; answers the whole chunk as
{actions, dt_ms}) and OpenVLA's (one `image`; answers one action as an array). The body is read raw, because some clients
send no Content-Type. Sources: inspect-robots-yam 0.37.0 (`ActServerPolicy`), MolmoAct2's README, OpenVLA's deploy.py.
"""

from __future__ import annotations

import asyncio
import json
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
from serving.gateway.dialects.backend import Asked, Backend, notes_of
from serving.gateway.dialects.fields import FieldMap, observation_of
from serving.gateway.dialects.flatten import put
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.client_request import BodyTooLarge, read_body, unless_disconnected
from serving.gateway.http.status_codes import CLIENT_GONE, STATUS_OF

_BODY_TIMEOUT_S = 30.0
_MAX_ITEMS = 100_000  # an image is one item, a state a few; a list of millions would become objects before it is checked
NOTES_HEADER = "x-actwright-notes"


def routes(backend: Backend, fields: FieldMap) -> list[BaseRoute]:
    """`GET /act` and `POST /act`."""

    async def act(request: Request) -> Response:
        if request.method == "GET":
            return _health(backend)
        if not backend.enter():
            return _refused(backend, RefusalCode.OVERLOAD, "the service has its highest number of clients")
        try:
            return await _act(request, backend, fields)
        finally:
            backend.leave()

    return [Route("/act", act, methods=["GET", "POST"])]


def _health(backend: Backend) -> Response:
    model = backend.model
    if model is None or not backend.is_ready:
        return JSONResponse({"status": "unavailable", "error": backend.reason}, status_code=503)
    body = model.contract.embodiment
    return JSONResponse(
        {
            "status": "ok",
            "repo_id": model.model_version,
            "norm_tag": body.name,
            "num_cameras": len(body.cameras),
            "cameras": [c.name for c in body.cameras],
            "state_dim": len(body.proprio),
            "action_dim": len(body.action),
            "chunk_length": model.contract.chunk_length,
            "contract_id": model.contract_id,
        }
    )


async def _act(request: Request, backend: Backend, fields: FieldMap) -> Response:
    model = backend.model
    if model is None:
        return _refused(backend, RefusalCode.NOT_READY, backend.reason)
    try:
        # base64 and JSON make images a third larger
        body = await asyncio.wait_for(read_body(request, 2 * MAX_MESSAGE_BYTES), _BODY_TIMEOUT_S)
        observation, wants_one = await backend.off_loop(lambda: decode(body, model.contract, fields))
    except (WireError, TimeoutError, ClientDisconnect) as error:
        code = RefusalCode.TOO_LARGE if isinstance(error, BodyTooLarge) else RefusalCode.DECODE
        return _refused(backend, code, str(error) or "the body did not arrive in time")
    except ContractError as error:
        return _refused(backend, RefusalCode.CONTRACT, str(error))
    try:
        reply = await unless_disconnected(
            request, backend.answer(Asked(observation=observation, session_key="act"), caller_of(request.scope))
        )
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    if isinstance(reply, Reject):
        return _refused(None, reply.code, reply.reason)
    notes = notes_of(reply)
    if wants_one:  # the answer is an array and nothing else: the notes are in its header
        return JSONResponse(json_array(reply.actions_KA[0]), headers={NOTES_HEADER: json.dumps(notes)})
    document = {"actions": json_array(reply.actions_KA), "dt_ms": 1e3 / reply.control_hz, "chunk_id": reply.chunk_id}
    return JSONResponse({**document, "contract_id": reply.contract_id, **notes})


def decode(body: bytes, contract: PolicyContract, fields: FieldMap) -> tuple[Observation, bool]:
    """The observation, and whether one action is wanted (OpenVLA's form). Raises WireError or ContractError."""
    document = _json(body)
    if isinstance(document.get("encoded"), str):  # OpenVLA's clients without json_numpy send JSON inside JSON
        document = _json(document["encoded"])
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "images_jpeg" and isinstance(value, dict):
            for camera, text in value.items():
                put(values, camera, _jpeg(camera, text, contract, fields))
        else:
            put(values, name, _value(value))
    return observation_of(values, contract, fields), "image" in document and "image" not in fields.cameras.values()


def _json(text: bytes | str) -> dict[str, Any]:
    items = text.count(b",") if isinstance(text, bytes) else text.count(",")
    if items > _MAX_ITEMS:
        raise WireError(f"the body holds {items} items, at most {_MAX_ITEMS} are taken; send arrays as json_numpy does")
    try:
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except WireError:  # a ValueError too
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError(f"the body is not JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise WireError(f"the body is a JSON map, got {type(document).__name__}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON map; Python would take the last of two values under one name."""
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})[:4] if len(names) <= 1000 else []
        raise WireError(f"a name appears twice in one JSON map: {', '.join(name[:40] for name in twice)}. Fix: send each field once")
    return document


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "__numpy__" in value:
        return array_of(value.get("dtype"), value.get("shape"), base64_bytes(value["__numpy__"]))
    if isinstance(value, list) and len(value) <= 1024 and all(type(n) in {int, float} for n in value):
        return np.asarray(value, np.float64)  # a plain list is a state vector
    return value


def _jpeg(camera: str, text: Any, contract: PolicyContract, fields: FieldMap) -> EncodedImage:
    # JPEG names no camera size here, so it must have the contract's: that is compared before a pixel is decoded.
    name = fields.cameras.get(camera, camera)
    spec = next((c for c in contract.embodiment.cameras if name in {c.name, c.name.removesuffix("_cam"), c.role}), None)
    if spec is None:
        raise ContractError(f"images_jpeg: {str(camera)[:40]!r} is none of {', '.join(c.name for c in contract.embodiment.cameras)}")
    try:
        return EncodedImage(encoding="jpeg", data=base64_bytes(text), shape=(spec.height, spec.width, 3))
    except SpecError as error:
        raise WireError(str(error)) from error


def _refused(backend: Backend | None, code: RefusalCode, reason: str) -> Response:
    if backend is not None:
        backend.refuse(code)
    return JSONResponse({"code": code.value, "error": reason[:400]}, status_code=STATUS_OF[code])
