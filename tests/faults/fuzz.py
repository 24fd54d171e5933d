"""Malformed messages to every endpoint, seeded: no crash, no leak, nobody else slowed down.

    python -m tests.faults.fuzz --messages 200000 --seconds 20        (`make fuzz`) writes reports/fuzz.json

volume      every endpoint of the real application in this process (ASGI, no sockets): N messages each. Counted are answers by
            kind; an exception, HTTP 500, REJECT(INTERNAL) or a hang is a finding. Resident memory is read along the way.
sockets     the service in a process of its own (50 ms a block), fuzzed through real sockets from another process, while a good
            cell keeps asking: its p99 against its p99 before, and the service's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import hashlib
import http.client
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_core.access import Tokens, read_table
from model_core.spec.fleet.kill_list import Kill, KillList
from model_core.spec.fleet.signatures import sealed
from model_core.spec.protocol.wire import (
    Chunk,
    Control,
    Edit,
    End,
    Hello,
    Message,
    Observe,
    Reject,
    SteeringInput,
    decode_message,
    encode_message,
)
from model_core.spec.types import RefusalCode
from serving.gateway.app import create_app
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.faults.asgi import Socket, call
from tests.faults.mutate import Mutator, mutants
from tests.faults.peer import CONTRACT, observation
from tests.faults.stub_service import rss_mib, stub_process

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "fuzz.json"
SESSION = "S" * 32  # stands for the session's id in the seeds
PIXELS = np.full((16, 16, 3), 7, np.uint8)


@dataclass(slots=True)
class Found:
    """What one endpoint answered. findings: what must not happen, with the message that did it (first bytes, hex)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    rss_mib: list[float] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return sum(self.outcomes.values())

    def bad(self, what: str, message: bytes) -> None:
        if len(self.findings) < 20:
            self.findings.append(f"{what}: {message[:120].hex()}")

    def report(self) -> dict[str, object]:
        return {
            "messages": self.messages,
            "outcomes": dict(self.outcomes.most_common()),
            "findings": self.findings,
            "seconds": round(self.seconds, 1),
            "rss_mib": self.rss_mib,
            "grown_mib": round(self.rss_mib[-1] - self.rss_mib[len(self.rss_mib) // 3], 1) if self.rss_mib else 0.0,
        }


# --- seeds ------------------------------------------------------------------------------------------------------------


def native_seeds() -> list[bytes]:
    """Good native messages of every kind that a cell sends."""
    seen = Observe(session_id=SESSION, epoch=1, seq=1, episode_id="e", step=1, deadline_ms=1000, observation=observation())
    steering = SteeringInput(points_N2=np.array([[4, 4], [8, 8]], np.float32), image="front", width=16, height=16, revision=1, author="a")
    edit = Edit(depth_codes_G=np.zeros(100, np.int64), trace_N2=np.array([[1, 1]], np.int64), revision=2)
    messages: list[Message] = [
        seen,
        replace(seen, seq=2, age_ms={"front": 3.0}, level="action", previous_chunk_id="x", consumed=2),
        replace(seen, seq=3, committed_DA=np.zeros((2, 4), np.float32)),
        replace(seen, seq=4, steering=steering),
        replace(seen, seq=5, edit=edit),
        Hello(cell="cell-f", epoch=1, embodiment=CONTRACT.embodiment),
        Control(kind="CANCEL", session_id=SESSION, epoch=1, seq=1),
        Control(kind="LEASE", session_id=SESSION, epoch=1, value=5.0),
        Control(kind="RESET", session_id=SESSION, epoch=1),
        End(session_id=SESSION, epoch=1, episode_id="e", stop_reason="success", success=True),
    ]
    return [encode_message(message) for message in messages]


def _openpi_array(array: np.ndarray) -> dict[bytes, object]:
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": list(array.shape)}


def openpi_seeds() -> list[bytes]:
    state = np.zeros(4, np.float32)
    plain = {"observation/image": _openpi_array(PIXELS), "observation/state": _openpi_array(state), "prompt": "push"}
    nested = {"observation": {"image": _openpi_array(PIXELS), "state": _openpi_array(state)}, "prompt": "push"}
    return [bytes(msgpack.packb(plain)), bytes(msgpack.packb(nested))]  # type: ignore[arg-type]


def _numpy_json(array: np.ndarray) -> dict[str, object]:
    return {"__numpy__": base64.b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}


def act_seeds() -> list[bytes]:
    molmo = {"front": _numpy_json(PIXELS), "instruction": "push", "state": _numpy_json(np.zeros(4, np.float32)), "num_steps": 10}
    openvla = {"image": _numpy_json(PIXELS), "instruction": "push", "state": [0.0, 0.0, 0.0, 0.0], "unnorm_key": "stub-arm"}
    jpeg = {"images_jpeg": {"front": base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode()}, "instruction": "push", "state": [0] * 4}
    return [json.dumps(body).encode() for body in (molmo, openvla, jpeg, {"encoded": json.dumps(openvla)})]


def vla_eval_seeds() -> list[bytes]:
    array = {"__ndarray__": True, "data": np.zeros(4, np.float32).tobytes(), "dtype": "<f4", "shape": [4]}
    image = {"__image__": True, "format": "raw", "dtype": "|u1", "shape": [16, 16, 3], "data": PIXELS.tobytes()}
    bodies = [
        {"type": "hello", "payload": {"protocol_version": 1, "harness_version": "0.8.0"}, "seq": 1, "timestamp": 1.0},
        {"type": "episode_start", "payload": {"task": {"name": "x"}}, "seq": 2, "timestamp": 1.0},
        {
            "type": "observation",
            "payload": {"images": {"front": image}, "states": array, "task_description": "push"},
            "seq": 3,
            "timestamp": 1.0,
        },
        {"type": "episode_end", "payload": {"result": {}}, "seq": 4, "timestamp": 1.0},
    ]
    return [bytes(msgpack.packb(body)) for body in bodies]  # type: ignore[arg-type]


def admin_seeds() -> list[bytes]:
    scoped = [{"scope": scope, "value": "x", "reason": "test"} for scope in ("digest", "model", "cell", "site", "fleet")]
    orders = ({"reason": "test"}, {"reason": "test", "cell": "cell-a"}, {}, *scoped)
    listed = sealed(KillList(number=1, sent_at_s=1.0, kills=(Kill(id="k", scope="fleet"),)), Ed25519PrivateKey.generate())
    return [*(json.dumps(body).encode() for body in orders), listed]


# --- volume: the application in this process ---------------------------------------------------------------------------


async def fuzz_session(app: Any, mutator: Mutator, count: int, found: Found) -> None:
    """The native WebSocket: mutants after a good handshake, and one in ten in its place."""
    sent = 0
    while sent < count:
        socket = Socket(app, "/v1/session")
        number = sent
        with contextlib.suppress(TimeoutError):
            if number % 10 == 3:
                message = mutator.next()
                socket.send(message)
                _judge_frame(await socket.receive(), message, found)
                sent += 1
            else:
                socket.send(encode_message(Hello(cell=f"fuzz-{number % 8}", epoch=1, embodiment=CONTRACT.embodiment)))
                ready = await socket.receive()
                session_id = msgpack.unpackb(bytes(ready)[1:])["session_id"].encode() if isinstance(ready, bytes) else b""
                sent += await _one_session(socket, mutator, count - sent, session_id, found)
        await _hang_up(socket, found)


async def _one_session(socket: Socket, mutator: Mutator, left: int, session_id: bytes, found: Found) -> int:
    """Mutants until the service hangs up; after each batch a PING must be answered or the connection closed."""
    sent, marker = 0, 10**9
    while sent < left and socket.closed is None:
        batch = [mutator.next().replace(SESSION.encode(), session_id) for _ in range(min(8, left - sent))]
        for message in batch:
            if sent % 97 == 5:
                socket.send(message[:200].decode("latin1"))
            else:
                socket.send(message)
            sent += 1
        marker += 1
        socket.send(encode_message(Control(kind="PING", session_id=session_id.decode(), epoch=1, seq=marker)))
        answers = 0
        while True:
            try:
                data = await socket.receive(20.0)
            except TimeoutError:
                found.bad("no PONG after", b"".join(batch)[:120])
                raise
            if data is None or (isinstance(data, bytes) and _is_pong(data, marker)):
                break
            answers += 1
            _judge_frame(data, batch[-1], found)
        found.outcomes["no answer needed"] += max(len(batch) - answers, 0)
        if sum(found.outcomes.values()) % 4096 < 8:
            await asyncio.sleep(0)
    return sent


def _is_pong(data: bytes, marker: int) -> bool:
    message = decode_message(data)
    return isinstance(message, Control) and message.kind == "PONG" and message.seq == marker


def _judge_frame(data: bytes | str | None, cause: bytes, found: Found) -> None:
    if data is None:
        found.outcomes["closed"] += 1
        return
    message = decode_message(bytes(data)) if isinstance(data, bytes) else None  # what the service sends must be a message
    if isinstance(message, Reject):
        found.outcomes[f"REJECT {message.code}"] += 1
        if message.code is RefusalCode.INTERNAL:
            found.bad("INTERNAL", cause)
    elif isinstance(message, Chunk):
        found.outcomes["CHUNK"] += 1
        if not np.isfinite(message.actions_KA).all():
            found.bad("a chunk that is not finite", cause)
    else:
        found.outcomes[type(message).__name__.upper()] += 1


async def fuzz_openpi(app: Any, mutator: Mutator, count: int, found: Found) -> None:
    """openpi: metadata, then one mutant after the other; a refusal is a text frame and the end."""
    sent = 0
    while sent < count:
        socket = Socket(app, "/openpi" if sent % 2 else "/")
        with contextlib.suppress(TimeoutError):
            first = await socket.receive()
            while first is not None and sent < count and socket.closed is None:
                message = mutator.next()
                socket.send(message)
                sent += 1
                try:
                    answer = await socket.receive(20.0)
                except TimeoutError:
                    found.bad("no answer to", message)
                    break
                if isinstance(answer, str):
                    found.outcomes[f"text {answer.partition(':')[0]}"] += 1
                    if "INTERNAL" in answer or "Traceback" in answer or "File " in answer:
                        found.bad(answer[:60], message)
                    break
                found.outcomes["closed" if answer is None else "actions"] += 1
                if answer is None:
                    break
            else:
                if first is None:
                    sent += 1
                    found.outcomes["turned away"] += 1
        await _hang_up(socket, found)


async def fuzz_vla_eval(app: Any, mutator: Mutator, count: int, found: Found) -> None:
    """vla-eval: mutants, each followed by a HELLO that must be answered unless the service hung up."""
    sent = 0
    while sent < count:
        socket = Socket(app, "/vla-eval")
        with contextlib.suppress(TimeoutError):
            while sent < count and socket.closed is None:
                message, sent = mutator.next(), sent + 1
                socket.send(message)
                socket.send(
                    bytes(msgpack.packb({"type": "hello", "payload": {"protocol_version": 1}, "seq": sent + 10**9, "timestamp": 0.0}))
                )  # type: ignore[arg-type]
                before = found.messages
                while True:
                    try:
                        data = await socket.receive(20.0)
                    except TimeoutError:
                        found.bad("no answer to", message)
                        raise
                    if data is None:
                        break
                    answer = msgpack.unpackb(bytes(data), raw=False)  # type: ignore[arg-type]
                    if answer["type"] == "hello" and answer["seq"] == sent + 10**9:
                        break
                    text = str(answer["payload"].get("error", answer["type"]))
                    found.outcomes[text.partition(":")[0]] += 1
                    if "INTERNAL" in text or "Traceback" in text:
                        found.bad(text[:60], message)
                if found.messages == before:
                    found.outcomes["no answer needed"] += 1
        await _hang_up(socket, found)


async def _hang_up(socket: Socket, found: Found) -> None:
    try:
        await socket.close()
    except Exception as error:
        found.bad(f"the application raised {type(error).__name__}: {error}", b"")


def fuzz_http(path: str, headers: Callable[[int], list[tuple[bytes, bytes]]]) -> Callable[[Any, Mutator, int, Found], Awaitable[None]]:
    """POST mutants to `path`."""

    async def fuzz(app: Any, mutator: Mutator, count: int, found: Found) -> None:
        for number in range(count):
            message = mutator.next()
            where = path if "{" not in path else path.format(("drain", "kill", "resume", "kills")[number % 4])
            try:
                status, body = await asyncio.wait_for(call(app, "POST", where, message, headers(number)), 20)
            except Exception as error:
                found.outcomes["raised"] += 1
                found.bad(f"{type(error).__name__}: {error}", message)
                continue
            found.outcomes[f"HTTP {status}"] += 1
            if status == 500 or b"Traceback" in body:
                found.bad(f"HTTP {status}", message)

    return fuzz


ADMIN, SECOND, WATCHER = "admin-token", "second-admin-token", "watch-token"


def _tokens() -> Tokens:
    table = {
        hashlib.sha256(token.encode()).hexdigest(): {"subject": token, "role": role, "expires_at": None}
        for token, role in ((ADMIN, "admin"), (SECOND, "admin"), (WATCHER, "observe"))
    }
    return Tokens(read_table(table))


def _bearer(number: int) -> list[tuple[bytes, bytes]]:
    held = (None, "wrong", WATCHER, ADMIN, ADMIN)[number % 5]
    return [] if held is None else [(b"authorization", f"Bearer {held}".encode())]


def application(tokens: Tokens | None = None) -> tuple[Any, Gateway]:
    """The whole application over the stub, dialects included."""
    policy = StubPolicy(contract=CONTRACT)
    model = LoadedModel(policy=policy, contract=CONTRACT, model_version=policy.model_version)
    options: dict[str, Any] = {} if tokens is None else {"tokens": tokens}
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=0.0), **options)
    app = create_app(gateway)
    return app, gateway


ENDPOINTS: dict[str, tuple[Callable[[Any, Mutator, int, Found], Awaitable[None]], Callable[[], list[bytes]], bool, int]] = {
    # name: (driver, seeds, is it JSON, bytes before the msgpack)
    "WS /v1/session": (fuzz_session, native_seeds, False, 1),
    "POST /v1/act": (fuzz_http("/v1/act", lambda _: []), native_seeds, False, 1),
    "WS /openpi": (fuzz_openpi, openpi_seeds, False, 0),
    "POST /act": (fuzz_http("/act", lambda _: []), act_seeds, True, 0),
    "WS /vla-eval": (fuzz_vla_eval, vla_eval_seeds, False, 0),
    "POST /v1/admin": (fuzz_http("/v1/admin/{}", _bearer), admin_seeds, True, 0),
}


async def volume(name: str, count: int, seed: int) -> Found:
    """`count` malformed messages to one endpoint; memory is read after every tenth."""
    drive, seeds, is_text, head = ENDPOINTS[name]
    app, gateway = application(_tokens() if "admin" in name else None)
    mutator, found = mutants(seeds(), seed, text=is_text, head=head), Found()
    async with app.router.lifespan_context(app):
        while not gateway.is_ready:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        for _ in range(10):
            await drive(app, mutator, max(count // 10, 1), found)
            gc.collect()
            found.rss_mib.append(round(rss_mib(os.getpid()), 1))
        found.seconds = time.monotonic() - began
        if "admin" in name:
            for token in (ADMIN, SECOND):  # a kill is released by two
                status, _ = await call(app, "POST", "/v1/admin/resume", b"{}", [(b"authorization", f"Bearer {token}".encode())])
            assert status == 200, status
        if not gateway.is_ready or gateway.sessions:
            await asyncio.sleep(0.5)
        if not gateway.is_ready:
            found.bad(f"the service is not ready any more: {gateway.status()}", b"")
        if gateway.sessions:
            found.bad(f"{len(gateway.sessions)} sessions are left", b"")
    return found


# --- sockets: the service in another process, under fire from a third ---------------------------------------------------


def hammer(address: str, seconds: float, seed: int) -> dict[str, int]:
    """Fuzz through real sockets for so long; how many messages each endpoint got."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    host, _, port = address.partition(":")
    sources = {name: mutants(make(), seed, text=is_text, head=head) for name, (_, make, is_text, head) in ENDPOINTS.items()}
    sent: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for name, mutator in sources.items():
            kind, path = name.split()
            try:
                if kind == "POST":
                    link = http.client.HTTPConnection(host, int(port), timeout=10)
                    link.request("POST", path + ("/kil" if "admin" in path else ""), mutator.next())
                    link.getresponse().read()
                    link.close()
                    sent[name] += 1
                    continue
                with connect(f"ws://{address}{path}", compression=None, open_timeout=10, close_timeout=1, ping_interval=None) as ws:
                    if "session" in path:
                        ws.send(encode_message(Hello(cell=f"hammer-{seed}", epoch=1, embodiment=CONTRACT.embodiment)))
                        ws.recv(timeout=5)
                    for _ in range(12):
                        ws.send(mutator.next())
                        sent[name] += 1
                    with contextlib.suppress(TimeoutError):
                        ws.recv(timeout=0.05)
            except (OSError, EOFError, WebSocketException, http.client.HTTPException):
                continue
    return dict(sent)


def sockets(seconds: float, seed: int, *, hammers: int = 1, service_ms: float = 50.0) -> dict[str, object]:
    """A good cell's latency before and under fire, and the service's memory."""
    from tests.faults.peer import greeted, is_own_answer

    with stub_process(service_ms=service_ms) as service, greeted(service.address, "good") as good:

        def ask_for(duration_s: float, first: int) -> list[float]:
            took, seq, ends_at = [], first, time.monotonic() + duration_s
            while time.monotonic() < ends_at or len(took) < 5:
                began = time.monotonic()
                answer = good.ask(seq, value=seq % 256)
                took.append(1e3 * (time.monotonic() - began))
                assert is_own_answer(answer, seq % 256, seq), answer
                seq += 1
            return took

        alone = ask_for(seconds, 1)
        command = [sys.executable, "-m", "tests.faults.fuzz", "--hammer", service.address, "--seconds", str(seconds + 1.0)]
        guns = [subprocess.Popen([*command, "--seed", str(seed + i)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for i in range(hammers)]
        time.sleep(1.0)
        rss = [round(service.rss_mib(), 1)]
        fired = ask_for(seconds, 100_000)
        rss.append(round(service.rss_mib(), 1))
        sent: Counter[str] = Counter()
        for gun in guns:
            out, _ = gun.communicate(timeout=60)
            sent.update(json.loads(out))
        is_alive = service.get("/livez") == b"alive\n"
    p99 = [round(float(np.percentile(took, 99)), 1) for took in (alone, fired)]
    p50 = [round(float(np.percentile(took, 50)), 1) for took in (alone, fired)]
    return {
        "service_ms": service_ms,
        "questions": [len(alone), len(fired)],
        "p50_ms_alone_and_under_fire": p50,
        "p99_ms_alone_and_under_fire": p99,
        "p99_ratio": round(p99[1] / p99[0], 2),
        "rss_mib": rss,
        "messages": dict(sent),
        "alive": bool(is_alive),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000, help="malformed messages to each endpoint (default 200000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the part over real sockets (default 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="one endpoint, such as 'POST /act'")
    parser.add_argument("--hammer", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a line for each of a million refusals helps nobody
    if args.hammer:
        sys.stdout.write(json.dumps(hammer(args.hammer, args.seconds, args.seed)) + "\n")
        return
    found = {}
    for name in ENDPOINTS:
        if args.only in {"", name}:
            # Each endpoint begins with its own copy of the interpreter's memory: growth is then its own.
            found[name] = asyncio.run(volume(name, args.messages, args.seed)).report()
            sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
            sys.stdout.flush()
    report = {"seed": args.seed, "volume": found, "sockets": sockets(args.seconds, args.seed) if args.seconds else {}}
    sys.stdout.write(f"sockets: {json.dumps(report['sockets'])}\n")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    bad = [text for part in found.values() for text in part["findings"]]  # type: ignore[attr-defined]
    sys.stdout.write(f"{sum(part['messages'] for part in found.values())} messages, {len(bad)} findings; {REPORT}\n")  # type: ignore[misc]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
