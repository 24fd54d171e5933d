"""Twice the load that the service can carry, an abusive peer, and ten thousand sessions dropped at random points.

The real gateway over the stub policy (a set time per block, no processor), in a process of its own, on loopback.

    overload    16 robots, each with one question open, ask at half, twice and half the capacity. Late answers among the accepted
                ones must be 0, refusals must come early, and all must be well within 5 s of the load's end.
    sessions    opened and dropped: before, inside and after the handshake, with a question open, politely or by RST.
                Resident memory and the service's own counters must be flat.

Run: python benchmarks/overload.py [--sessions 10000] [--seconds 10]      writes benchmarks/results/overload.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "overload.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """So many seconds at so many times the capacity."""

    name: str
    seconds: float
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question and what came of it. code "": a chunk. sent_s: from the beginning of the run. service_ms: as the service says."""

    phase: str
    sent_s: float
    took_ms: float
    code: str
    is_own: bool
    service_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that was asked, and what was meant."""

    asked: list[Asked]
    phases: list[Phase]
    deadline_ms: float


def drive(address: str, phases: list[Phase], *, robots: int, capacity_per_s: float, deadline_ms: float) -> Run:
    """Let `robots` ask through all phases; a robot never has more than one question open."""
    return asyncio.run(_drive(address, phases, robots, capacity_per_s, deadline_ms))


async def _drive(address: str, phases: list[Phase], robots: int, capacity_per_s: float, deadline_ms: float) -> Run:
    asked: list[Asked] = []
    start = asyncio.Event()
    began: list[float] = []
    cells = [
        asyncio.create_task(_robot(address, i, robots, phases, capacity_per_s, deadline_ms, start, began, asked)) for i in range(robots)
    ]
    await asyncio.sleep(1.0)
    began.append(time.monotonic())
    start.set()
    await asyncio.gather(*cells)
    return Run(asked=sorted(asked, key=lambda a: a.sent_s), phases=phases, deadline_ms=deadline_ms)


async def _robot(
    address: str,
    index: int,
    robots: int,
    phases: list[Phase],
    capacity_per_s: float,
    deadline_ms: float,
    start: asyncio.Event,
    began: list[float],
    asked: list[Asked],
) -> None:
    from websockets.asyncio.client import connect

    from model_core.spec.protocol.wire import Hello, Ready, decode_message, encode_message
    from serving.gateway.inference.stub_policy import stub_contract

    contract = stub_contract()
    rng = random.Random(index)
    async with connect(f"ws://{address}/v1/session", compression=None, proxy=None, ping_interval=None, open_timeout=30) as ws:
        await ws.send(encode_message(Hello(cell=f"robot-{index:02d}", epoch=1, embodiment=contract.embodiment)))
        ready = decode_message(bytes(await ws.recv()))  # type: ignore[arg-type]
        assert isinstance(ready, Ready), ready
        await start.wait()
        seq, ends = 0, began[0]
        for phase in phases:
            period_s = robots / (phase.load * capacity_per_s)
            next_at, ends = ends + rng.random() * period_s, ends + phase.seconds
            while next_at < ends:
                await asyncio.sleep(max(next_at - time.monotonic(), 0.0))
                seq += 1
                asked.append(await _ask(ws, ready, seq, (16 * index + seq) % 256, phase.name, deadline_ms, began[0]))
                while next_at <= time.monotonic():  # ticks that passed while a question was open are not made up for
                    next_at += period_s


async def _ask(ws, ready, seq: int, value: int, phase: str, deadline_ms: float, began: float) -> Asked:
    from model_core.spec.protocol.wire import Chunk, Observe, Reject, decode_message, encode_message
    from model_core.spec.types import Observation
    from serving.gateway.inference.stub_policy import expected_actions

    contract = ready.contract
    seen = Observation(
        images={c.name: np.full((c.height, c.width, 3), value, np.uint8) for c in contract.embodiment.cameras},
        proprio_P=np.zeros(len(contract.embodiment.proprio), np.float32),
        instruction="push the button",
    )
    question = Observe(session_id=ready.session_id, epoch=1, seq=seq, episode_id="e", step=seq, deadline_ms=deadline_ms, observation=seen)
    data = encode_message(question)
    sent = time.monotonic()
    await ws.send(data)
    while True:
        answer = decode_message(bytes(await ws.recv()))
        if isinstance(answer, Chunk | Reject) and answer.seq == seq:
            break
    took_ms = 1e3 * (time.monotonic() - sent)
    if isinstance(answer, Reject):
        return Asked(phase=phase, sent_s=sent - began, took_ms=took_ms, code=answer.code.value, is_own=True)
    is_own = bool(np.array_equal(answer.actions_KA, expected_actions(seen, contract)))
    return Asked(phase=phase, sent_s=sent - began, took_ms=took_ms, code="", is_own=is_own, service_ms=answer.timing_ms.get("service", 0.0))


def judged(run: Run, slack_ms: float = 50.0) -> dict[str, object]:
    """The run in numbers. late: accepted answers that left the service after their deadline. late_at_client: that arrived after it,
    by the client's own clock, which also counts what the client's machine was busy with (slack_ms of that counts as recovered).

    recovery_s: from the end of the overload to the moment after which at most one question in twenty is refused or late.
    """
    chunks = [a for a in run.asked if not a.code]
    rejects = [a for a in run.asked if a.code]
    overloads = [phase for phase in run.phases if phase.load > 1]
    ends_s = sum(phase.seconds for phase in run.phases[: run.phases.index(overloads[-1]) + 1]) if overloads else 0.0
    after = [(a.sent_s - ends_s, bool(a.code) or a.took_ms > run.deadline_ms + slack_ms) for a in run.asked if a.sent_s >= ends_s]
    per_phase = {}
    for phase in run.phases:
        mine = [a for a in run.asked if a.phase == phase.name]
        took = [a.took_ms for a in mine if not a.code] or [0.0]
        per_phase[phase.name] = {
            "load": phase.load,
            "asked": len(mine),
            "served": sum(not a.code for a in mine),
            "refused": dict(Counter(a.code for a in mine if a.code)),
            "p50_ms": round(float(np.percentile(took, 50)), 1),
            "p99_ms": round(float(np.percentile(took, 99)), 1),
        }
    return {
        "deadline_ms": run.deadline_ms,
        "accepted": len(chunks),
        "rejected": len(rejects),
        "late": sum(a.service_ms > run.deadline_ms for a in chunks),
        "late_at_client": sum(a.took_ms > run.deadline_ms for a in chunks),
        "worst_ms": round(max((a.took_ms for a in chunks), default=0.0), 1),
        "wrong_answers": sum(not a.is_own for a in chunks),
        "reject_p50_ms": round(float(np.percentile([a.took_ms for a in rejects] or [0.0], 50)), 2),
        "reject_p95_ms": round(float(np.percentile([a.took_ms for a in rejects] or [0.0], 95)), 2),
        "recovery_s": round(_recovered_after(after), 3),
        "phases": per_phase,
    }


def _recovered_after(after: list[tuple[float, bool]]) -> float:
    moments = [0.0, *(at_s for at_s, failed in after if failed)]
    for moment in moments:
        later = [failed for at_s, failed in after if at_s > moment]
        if sum(later) <= 0.05 * max(len(later), 1):
            return moment
    return moments[-1]


# --- sessions that are dropped ----------------------------------------------------------------------------------------


def abort_sessions(address: str, count: int, *, seed: int, threads: int = 8) -> dict[str, int]:
    """Open `count` sessions and drop each at a random point; how many got how far."""
    reached: Counter[str] = Counter()
    lock = threading.Lock()
    numbers = iter(range(count))

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            point = _abort_one(address, number, random.Random(seed * 1_000_003 + number))
            with lock:
                reached[point] += 1

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return dict(sorted(reached.items()))


POINTS = ("connected", "half a request", "opened", "half a hello", "hello sent", "ready", "asked", "asked twice", "answered", "garbage")


def _abort_one(address: str, number: int, rng: random.Random) -> str:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    from model_core.spec.errors import WireError
    from model_core.spec.protocol.wire import Hello, decode_message, encode_message
    from serving.gateway.inference.stub_policy import stub_contract

    host, _, port = address.partition(":")
    point = rng.choice(POINTS)
    raw = socket.create_connection((host, int(port)), timeout=30)
    try:
        if point == "connected":
            return point
        if point == "half a request":
            raw.sendall(b"GET /v1/session HTTP/1.1\r\nHost: x\r\nUpgrade: webso")
            return point
        ws = connect(f"ws://{address}/v1/session", sock=raw, compression=None, ping_interval=None, open_timeout=30, close_timeout=1)
        hello = encode_message(Hello(cell=f"cell-{number % 64}", epoch=number + 1, embodiment=stub_contract().embodiment))
        if point == "opened":
            return point
        ws.send(hello[: len(hello) // 2] if point == "half a hello" else hello)
        if point in {"half a hello", "hello sent"}:
            return point
        answer = decode_message(bytes(ws.recv(timeout=30)))  # type: ignore[arg-type]
        if point == "ready" or type(answer).__name__ != "Ready":
            return point
        for seq in (1, 2) if point == "asked twice" else (1,):
            ws.send(_question(answer, seq) if point != "garbage" else rng.randbytes(200))
        if point == "answered":
            ws.recv(timeout=30)
        if rng.random() < 0.3:
            ws.close()
    except (OSError, EOFError, TimeoutError, WebSocketException, WireError):
        return f"{point} (refused)"
    finally:
        if rng.random() < 0.5:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)  # the client's own reading thread would keep the connection open
        raw.close()
    return point


def _question(ready, seq: int) -> bytes:
    from model_core.spec.protocol.wire import Observe, encode_message
    from model_core.spec.types import Observation

    body = ready.contract.embodiment
    seen = Observation(
        images={c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in body.cameras},
        proprio_P=np.zeros(len(body.proprio), np.float32),
        instruction="push the button",
    )
    return encode_message(
        Observe(session_id=ready.session_id, epoch=ready.epoch, seq=seq, episode_id="e", step=seq, deadline_ms=2000, observation=seen)
    )


def counters(metrics: bytes) -> dict[str, float]:
    """The gauges of /metrics that must go back to where they were."""
    found = {}
    for line in metrics.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name in {"actwright_sessions", "actwright_queue_depth", "actwright_session_bytes"}:
            found[name] = float(value)
    return found


def sessions_run(count: int) -> dict[str, object]:
    """Memory and counters over `count` aborted sessions, in ten parts after a warm-up."""
    from tests.faults.stub_service import stub_process

    with stub_process(service_ms=2) as service:
        abort_sessions(service.address, max(count // 20, 50), seed=0)
        rss = [round(service.rss_mib(), 2)]
        reached: Counter[str] = Counter()
        began = time.monotonic()
        for part in range(10):
            reached.update(abort_sessions(service.address, count // 10, seed=part + 1))
            rss.append(round(service.rss_mib(), 2))
        took_s = time.monotonic() - began
        time.sleep(3.0)
        return {
            "sessions": 10 * (count // 10),
            "seconds": round(took_s, 1),
            "rss_mib": rss,
            "grown_mib": round(rss[-1] - rss[0], 2),
            "counters": counters(service.get("/metrics")),
            "threads": len(list(Path(f"/proc/{service.pid}/task").iterdir())),
            "files": len(list(Path(f"/proc/{service.pid}/fd").iterdir())),
            "reached": dict(sorted(reached.items())),
        }


def main() -> None:
    """Run both parts and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000, help="sessions to open and abort (default 10000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the overload (default 10)")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    from tests.faults.stub_service import stub_process

    # 4 rows in 200 ms: 20 answers a second. A question can wait for one block and be in the next one, no longer.
    with stub_process(service_ms=200, limits='{"max_batch": 4}') as service:
        phases = [
            Phase(name="calm", seconds=5.0, load=0.5),
            Phase(name="overload", seconds=args.seconds, load=2.0),
            Phase(name="after", seconds=8.0, load=0.5),
        ]
        overload = judged(drive(service.address, phases, robots=16, capacity_per_s=20.0, deadline_ms=450.0))
    sessions = sessions_run(args.sessions)
    result = {"machine": f"{platform.processor() or platform.machine()}, {platform.system()}", "overload": overload, "sessions": sessions}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
