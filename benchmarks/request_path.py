"""What the request path costs without a model: two 378x378 RGB frames and a state in, a chunk out, over loopback.

Ours (`WS /v1/session`: session, contract, guard, admission, metrics) against raw TCP (the question one way, and echoed), an
openpi-type WebSocket server without compression and with the library's default deflate, FastAPI with json_numpy, and BentoML's
own endpoint with its own client. Every service is a process of its own, every answer is compared with the expected one, the
services take turns, 1 and 16 clients.
Run: python benchmarks/request_path.py [--rounds 10] [--calls 50]      writes benchmarks/results/request_path.json
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgpack  # noqa: E402
import numpy as np  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from benchmarks.peers import request_path as peer  # noqa: E402
from model_core.spec.protocol.wire import Chunk, Hello, Observe, Ready, decode_message, encode_message  # noqa: E402
from model_core.spec.types import Observation  # noqa: E402

NAMES = ("raw-tcp", "raw-tcp-echo", "actwright", "openpi-like", "openpi-like-deflate", "fastapi-json-numpy", "bentoml")
SLOW = {"openpi-like-deflate", "bentoml"}  # fewer calls: their medians are far from everybody's noise
SLOW_ROUNDS = 3
DROPS = {"bentoml"}
GOAL = 2.5
RESULT = ROOT / "benchmarks" / "results" / "request_path.json"
Frames = tuple[np.ndarray, np.ndarray, np.ndarray]
Ask = Callable[[Frames], np.ndarray]


def questions(count: int = 8) -> list[Frames]:
    """Pictures as cameras give them: smooth, with noise. (Pure noise would be kind to nobody's deflate, flat ones too kind.)"""
    rng = np.random.default_rng(0)
    wave = np.sin(np.linspace(0, 6, peer.SIDE))[:, None, None] * np.cos(np.linspace(0, 4, peer.SIDE))[None, :, None]
    found = []
    for i in range(count):
        frames = [np.clip(128 + 90 * wave + rng.normal(0, 6, (peer.SIDE, peer.SIDE, 3)), 0, 255).astype(np.uint8) for _ in peer.CAMERAS]
        frames[0][0, 0, 0] = 10 * i
        found.append((frames[0], frames[1], np.full(peer.STATE, i / 4, np.float32)))
    return found


# --- clients ------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tcp_client(port: int, *, echoes: bool = False) -> Iterator[Ask]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        echo = bytearray(2 * peer.FRAME_BYTES + 4 * peer.STATE)

        def ask(seen: Frames) -> np.ndarray:
            parts = [memoryview(a.reshape(-1).view(np.uint8)) for a in seen]
            connection.sendall(struct.pack("<I", sum(len(p) for p in parts)))
            for part in parts:
                connection.sendall(part)
            if echoes:
                _into(connection, memoryview(echo))
            size = struct.unpack("<I", _exactly(connection, 4))[0]
            return np.frombuffer(_exactly(connection, size), np.float32).reshape(peer.ROWS, peer.DIMS)

        yield ask


def _into(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        view = view[connection.recv_into(view) :]


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        data += connection.recv(count - len(data))
    return bytes(data)


@contextlib.contextmanager
def our_client(port: int) -> Iterator[Ask]:
    url = f"ws://127.0.0.1:{port}/v1/session"
    with connect(url, compression=None, max_size=None, proxy=None) as ws:
        cell = f"bench-{threading.get_ident()}"
        ws.send(encode_message(Hello(cell=cell, epoch=1, embodiment=peer.our_contract().embodiment)))
        ready = decode_message(_bytes(ws.recv()))
        assert isinstance(ready, Ready), ready
        seq = 0

        def ask(seen: Frames) -> np.ndarray:
            nonlocal seq
            seq += 1
            front, wrist, state = seen
            observation = Observation(images={"front": front, "wrist": wrist}, proprio_P=state, instruction="go")
            message = Observe(
                session_id=ready.session_id, epoch=1, seq=seq, episode_id="e", step=seq, deadline_ms=30_000.0, observation=observation
            )
            ws.send(encode_message(message))
            chunk = decode_message(_bytes(ws.recv()))
            assert isinstance(chunk, Chunk), chunk
            assert chunk.seq == seq
            return chunk.actions_KA

        yield ask


def _bytes(data: str | bytes) -> bytes:
    assert isinstance(data, bytes)
    return data


@contextlib.contextmanager
def openpi_client(port: int, compression: str | None) -> Iterator[Ask]:
    with connect(f"ws://127.0.0.1:{port}", compression=compression, max_size=None, proxy=None) as ws:
        ws.recv()

        def ask(seen: Frames) -> np.ndarray:
            names = ("observation/front", "observation/wrist", "observation/state")
            ws.send(msgpack.packb({**{n: peer.packed(a) for n, a in zip(names, seen, strict=True)}, "prompt": "go"}) or b"")
            return msgpack.unpackb(_bytes(ws.recv()), object_hook=peer.unpacked)["actions"]

        yield ask


@contextlib.contextmanager
def fastapi_client(port: int) -> Iterator[Ask]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(seen: Frames) -> np.ndarray:
        body = json.dumps({n: peer.as_json(a) for n, a in zip((*peer.CAMERAS, "state"), seen, strict=True)} | {"instruction": "go"})
        connection.request("POST", "/act", body=body, headers={"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read(), object_hook=peer.from_json)["actions"]

    yield ask
    connection.close()


@contextlib.contextmanager
def bento_client(port: int) -> Iterator[Ask]:
    import bentoml

    with bentoml.SyncHTTPClient(f"http://127.0.0.1:{port}") as client:
        yield lambda seen: np.asarray(client.act(front=seen[0], wrist=seen[1], state=seen[2]), np.float32)


CLIENTS: dict[str, Callable[[int], contextlib.AbstractContextManager[Ask]]] = {
    "raw-tcp": tcp_client,
    "raw-tcp-echo": lambda port: tcp_client(port, echoes=True),
    "actwright": our_client,
    "openpi-like": lambda port: openpi_client(port, None),
    "openpi-like-deflate": lambda port: openpi_client(port, "deflate"),
    "fastapi-json-numpy": fastapi_client,
    "bentoml": bento_client,
}


# --- the run ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(names: list[str], home: Path) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Every service, each a process; gives their ports and process ids."""
    ports, processes = {}, []
    try:
        for name in names:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports[name] = int(free.getsockname()[1])
            command = [sys.executable, "-m", "benchmarks.peers.request_path", name, str(ports[name])]
            if name == "bentoml":
                service = "benchmarks.peers.request_path_bento:Plain"
                command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(ports[name])]
            settings = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
            settings["BENTOML_CONFIG_OPTIONS"] = "api_server.logging.access.enabled=false"
            quiet = subprocess.DEVNULL
            processes.append(subprocess.Popen(command, cwd=ROOT, env=settings, stdout=quiet, stderr=quiet, start_new_session=True))
        yield ports, {name: process.pid for name, process in zip(names, processes, strict=True)}
    finally:
        for process in processes:
            process.terminate()  # and not killed: BentoML's workers are in sessions of their own and end with their parent's goodbye
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def cpu_ms(pid: int) -> float:
    """Processor time that a service and its children have used so far: unlike the clock, it hardly feels a busy machine."""
    used = sum(int(ticks) for ticks in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return 1e3 * used / os.sysconf("SC_CLK_TCK") + sum(cpu_ms(child) for child in children)


def await_answer(name: str, port: int, question: Frames, timeout_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            with CLIENTS[name](port) as ask:
                ask(question)
                return
        except Exception:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)


def measure(name: str, port: int, clients: int, calls: int, asked: list[Frames]) -> list[float]:
    """Milliseconds of every call of every client; all begin together. Raises AssertionError for a wrong answer, and for a call
    that failed, except where the peer drops clients under this load by itself (then NaN stands for it).
    """
    waited: list[list[float]] = [[] for _ in range(clients)]
    wrong: list[str] = []
    start = threading.Barrier(clients)

    def work(me: int) -> None:
        try:
            with CLIENTS[name](port) as ask:
                with contextlib.suppress(*((Exception,) if name in DROPS else ())):
                    ask(asked[me % len(asked)])  # the first call pays for the connection
                start.wait()
                for call in range(calls):
                    seen = asked[(me + call) % len(asked)]
                    began = time.perf_counter()
                    try:
                        said = ask(seen)
                    except Exception:
                        if name not in DROPS:
                            raise
                        waited[me].append(float("nan"))
                        continue
                    waited[me].append(1e3 * (time.perf_counter() - began))
                    if not np.array_equal(said, peer.answer(*seen)):
                        wrong.append(f"{name}: a wrong answer")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
            start.abort()

    threads = [threading.Thread(target=work, args=(me,)) for me in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    return [ms for per_client in waited for ms in per_client]


def summary(samples: list[float], floor: float, used_ms: float) -> dict[str, Any]:
    p10, p50, p99 = np.nanpercentile(samples, [10, 50, 99])
    failed = int(np.isnan(samples).sum())
    return {
        "calls": len(samples),
        "failed": failed,
        "p10_ms": round(float(p10), 3),  # what a machine that is busy with other things hides least
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "over_raw_tcp": round(p50 / floor, 2),
        "server_cpu_ms": round(used_ms / len(samples), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=50, help="per client-1 round; 16 clients make a fifth of it each")
    parser.add_argument("--only", nargs="*", default=list(NAMES), choices=NAMES)
    args = parser.parse_args()
    asked, names = questions(), [n for n in NAMES if n in args.only or n == "raw-tcp"]
    found: dict[str, Any] = {}
    with running(names, ROOT / ".actwright" / "bench-bento") as (ports, pids):
        for name in names:
            await_answer(name, ports[name], asked[0])
        for clients in (1, 16):
            samples: dict[str, list[float]] = {name: [] for name in names}
            used = dict.fromkeys(names, 0.0)
            for done in range(args.rounds):
                for name in names if done < SLOW_ROUNDS else [n for n in names if n not in SLOW]:
                    calls = max(args.calls // (5 if clients > 1 else 1), 1)
                    before_ms = cpu_ms(pids[name])
                    samples[name] += measure(name, ports[name], clients, max(calls // 10, 1) if name in SLOW else calls, asked)
                    used[name] += cpu_ms(pids[name]) - before_ms
            floor = float(np.median(samples["raw-tcp"]))
            found[f"{clients} clients" if clients > 1 else "1 client"] = {name: summary(samples[name], floor, used[name]) for name in names}
    document = {
        "question": f"two {peer.SIDE}x{peer.SIDE}x3 uint8 frames and {peer.STATE} float32; answer ({peer.ROWS}, {peer.DIMS}) float32",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "load": [round(x, 1) for x in os.getloadavg()],
        "goal": f"actwright at most {GOAL} x raw TCP (median, 1 client)",
        "answers": "all equal",
        "results": found,
    }
    if set(names) == set(NAMES):
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    for title, rows in found.items():
        print(title)
        for name, row in rows.items():
            times = (
                f"p10 {row['p10_ms']:8.2f}   p50 {row['p50_ms']:8.2f}   p99 {row['p99_ms']:9.2f} ms   {row['over_raw_tcp']:8.2f} x raw TCP"
            )
            print(f"  {name:20} {times}   {row['server_cpu_ms']:8.2f} ms CPU   {row['failed']} failed")


if __name__ == "__main__":
    main()
