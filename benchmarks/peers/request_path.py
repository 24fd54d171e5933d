"""Services without a model: two 378x378 RGB frames and a state in, a chunk (8, 7) out that follows from them.

Each serves on 127.0.0.1: python -m benchmarks.peers.request_path NAME PORT
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import sys
import threading
from typing import Any

import numpy as np

SIDE, STATE, ROWS, DIMS, HZ = 378, 8, 8, 7, 20.0
CAMERAS = ("front", "wrist")
FRAME_BYTES = SIDE * SIDE * 3


def answer(front: np.ndarray, wrist: np.ndarray, state: np.ndarray) -> np.ndarray:
    """What every service must say: float32 (8, 7), different for every request."""
    seed = (float(front[0, 0, 0]) + float(wrist[-1, -1, -1])) / 1024 + float(state[0])
    return (seed + np.arange(ROWS * DIMS, dtype=np.float32).reshape(ROWS, DIMS) / 64).astype(np.float32)


# --- raw TCP: the floor. Length, frames, state; length, chunk ------------------------------------------------------------


def serve_tcp(port: int, *, echoes: bool = False) -> None:
    """Blocking sockets, one thread a connection, one buffer that is used again: nothing is parsed, nothing is copied twice.

    echoes: the question is sent back before the answer.
    """
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_tcp_peer, args=(connection, echoes), daemon=True).start()


def _tcp_peer(connection: socket.socket, echoes: bool) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head, body = bytearray(4), bytearray(2 * FRAME_BYTES + 4 * STATE)
    while _fill(connection, head):
        _fill(connection, memoryview(body)[: struct.unpack("<I", head)[0]])
        frames = np.frombuffer(body, np.uint8, 2 * FRAME_BYTES).reshape(2, SIDE, SIDE, 3)
        said = answer(frames[0], frames[1], np.frombuffer(body, np.float32, STATE, 2 * FRAME_BYTES)).tobytes()
        if echoes:
            connection.sendall(body)
        connection.sendall(struct.pack("<I", len(said)) + said)


def _fill(connection: socket.socket, buffer: bytearray | memoryview) -> bool:
    view, at = memoryview(buffer), 0
    while at < len(view):
        got = connection.recv_into(view[at:])
        if got == 0:
            return False
        at += got
    return True


# --- ours -------------------------------------------------------------------------------------------------------------------


def our_contract() -> Any:
    """A body with these two cameras."""
    from model_core.spec.contract import CameraSpec, DimSpec, EmbodimentSpec, PolicyContract, ReasoningSpec, VectorSpec
    from model_core.spec.stats import UnnormStats

    def dims(count: int) -> tuple[DimSpec, ...]:
        return tuple(DimSpec(name=f"d{i}", unit="1", low=-100.0, high=100.0) for i in range(count))

    body = EmbodimentSpec(
        name="bench",
        cameras=tuple(CameraSpec(name=name, width=SIDE, height=SIDE) for name in CAMERAS),
        proprio=VectorSpec(dims=dims(STATE)),
        action=VectorSpec(dims=dims(DIMS), mode="delta"),
        control_hz=HZ,
        gripper_dim="d6",
        gripper_open=1.0,
        hold=(0.0,) * DIMS,
    )
    stats = UnnormStats(q01=(-100.0,) * DIMS, q99=(100.0,) * DIMS, mask=(True,) * DIMS)
    return PolicyContract(embodiment=body, stats=stats, reasoning=ReasoningSpec(), chunk_length=ROWS, execute_horizon=4)


class NoModel:
    """A policy that takes no time."""

    def __init__(self, contract: Any) -> None:
        self.contract = contract

    def decide(self, observation: Any) -> Any:
        """Answer one observation."""
        from model_core.spec.types import ActionChunk, Decision

        actions_KA = answer(observation.images["front"], observation.images["wrist"], observation.proprio_P)
        return Decision(contract_id="", chunk=ActionChunk(actions_KA=actions_KA, control_hz=HZ))

    def decide_many(self, observations: list[Any]) -> list[Any]:
        """Answer several."""
        return [self.decide(observation) for observation in observations]


def serve_ours(port: int) -> None:
    """The gateway as `python -m serving.gateway` runs it: sessions, contract check, guard, admission, metrics, all of it."""
    import uvicorn

    from serving.gateway.app import create_app
    from serving.gateway.http.malloc import keep_freed
    from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
    from serving.gateway.sessions.gateway import Gateway, LoadedModel

    contract = our_contract()
    gateway = Gateway(lambda: LoadedModel(policy=NoModel(contract), contract=contract, model_version="bench/1"))
    app = create_app(gateway)
    keep_freed()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", **SOCKET_OPTIONS)


# --- openpi's server: WebSocket, msgpack with numpy, inference in the event loop -----------------------------------------------


def packed(array: np.ndarray) -> dict[bytes, Any]:
    """As openpi's msgpack_numpy writes an array."""
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def unpacked(value: dict[Any, Any]) -> Any:
    """msgpack's object hook for such arrays."""
    if b"__ndarray__" in value:
        return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])
    return value


def serve_openpi(port: int, compression: str | None) -> None:
    """Upstream's loop with `websockets`, no limits; compression None as upstream sets it, "deflate" is the library's default."""
    import asyncio

    import msgpack
    from websockets.asyncio.server import serve

    async def handler(ws: Any) -> None:
        await ws.send(msgpack.packb({"action_horizon": ROWS}))
        async for message in ws:
            seen = msgpack.unpackb(message, object_hook=unpacked)
            actions_KA = answer(seen["observation/front"], seen["observation/wrist"], seen["observation/state"])
            await ws.send(msgpack.packb({"actions": packed(actions_KA), "server_timing": {"infer_ms": 0.0}}))

    async def run() -> None:
        async with serve(handler, "127.0.0.1", port, compression=compression, max_size=None) as server:
            await server.serve_forever()

    asyncio.run(run())


# --- /act: FastAPI and json_numpy --------------------------------------------------------------------------------------------------


def as_json(array: np.ndarray) -> dict[str, Any]:
    """As json_numpy writes an array."""
    return {"__numpy__": base64.b64encode(np.ascontiguousarray(array)).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}


def from_json(value: dict[str, Any]) -> Any:
    """json's object hook for such arrays."""
    if "__numpy__" in value:
        return np.frombuffer(base64.b64decode(value["__numpy__"]), value["dtype"]).reshape(value["shape"])
    return value


def serve_fastapi(port: int) -> None:
    """OpenVLA's and MolmoAct2's way: JSON body, FastAPI, uvicorn."""
    import uvicorn
    from fastapi import FastAPI, Request
    from starlette.responses import JSONResponse

    app = FastAPI()

    # Registered by hand: a decorated handler's annotations are text here, which FastAPI cannot look up inside a function.
    async def act(request: Any) -> Any:
        seen = json.loads(await request.body(), object_hook=from_json)
        return JSONResponse({"actions": as_json(answer(seen["front"], seen["wrist"], seen["state"])), "dt_ms": 1e3 / HZ})

    act.__annotations__["request"] = Request
    app.post("/act", response_model=None)(act)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    wanted, where = sys.argv[1], int(sys.argv[2])
    {
        "raw-tcp": lambda: serve_tcp(where),
        "raw-tcp-echo": lambda: serve_tcp(where, echoes=True),
        "actwright": lambda: serve_ours(where),
        "openpi-like": lambda: serve_openpi(where, None),
        "openpi-like-deflate": lambda: serve_openpi(where, "deflate"),
        "fastapi-json-numpy": lambda: serve_fastapi(where),
    }[wanted]()
