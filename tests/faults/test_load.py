"""F25, F26, F28: many robots, one of them abusive; twice the load; sessions opened and dropped. Small here, full in benchmarks/."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from benchmarks.overload import Phase, abort_sessions, drive, judged
from model_core.spec.protocol.wire import Chunk
from tests.faults.peer import Peer, greeted, is_own_answer
from tests.faults.stub_service import stub_process
from tests.faults.verdicts import covers


@covers(
    "F26", I2="at twice the capacity no accepted answer is late", I8="those that cannot be met are refused early; it recovers within 5 s"
)
@pytest.mark.slow
def test_overload_is_refused_early_and_forgotten_soon(record_property: pytest.RecordProperty) -> None:
    with stub_process(service_ms=200, limits='{"max_batch": 4}') as service:
        phases = [
            Phase(name="calm", seconds=1.0, load=0.5),
            Phase(name="overload", seconds=2.5, load=2.0),
            Phase(name="after", seconds=2.5, load=0.5),
        ]
        report = judged(drive(service.address, phases, robots=16, capacity_per_s=20.0, deadline_ms=450.0), slack_ms=150.0)
    record_property(
        "overload", {name: report[name] for name in ("late", "late_at_client", "accepted", "rejected", "reject_p50_ms", "recovery_s")}
    )
    assert report["late"] == 0
    assert report["wrong_answers"] == 0
    assert report["accepted"] > 30
    assert report["rejected"] > 0
    assert report["reject_p50_ms"] < 225.0  # half of the deadline: early, even where the machine is busy with other tests
    assert report["recovery_s"] <= 5.0


@covers("F28", I7="sessions opened and aborted at random points leave nothing behind: counters at zero, memory flat")
@pytest.mark.slow
def test_aborted_sessions_leave_nothing(record_property: pytest.RecordProperty) -> None:
    with stub_process(service_ms=1, limits='{"max_sessions": 32}') as service:
        abort_sessions(service.address, 50, seed=1, threads=4)
        before = service.rss_mib()
        abort_sessions(service.address, 120, seed=2, threads=4)
        give_up_at = time.monotonic() + 10
        while b"actwright_sessions 0.0" not in service.get("/metrics"):
            assert time.monotonic() < give_up_at, "sessions are left"
            time.sleep(0.1)
        grown = service.rss_mib() - before
        record_property("grown_mib", round(grown, 2))
        assert grown < 12.0
        with greeted(service.address) as peer:
            assert is_own_answer(peer.ask(1, value=5), 5, 1)


def flood(address: str, stop: threading.Event) -> None:
    """A cell that asks as fast as it can and never reads."""
    with contextlib.suppress(Exception), Peer(address, "flood") as peer:
        peer.greet()
        seq = 0
        while not stop.is_set():
            seq += 1
            peer.observe(seq, value=seq % 200)


def slow_loris(address: str, stop: threading.Event) -> None:
    """Connections that say half a handshake, and one that sends a giant frame's head and no more."""
    host, _, port = address.partition(":")
    held = []
    with contextlib.suppress(OSError):
        for _ in range(20):
            one = socket.create_connection((host, int(port)), timeout=5)
            one.sendall(b"GET /v1/session HTTP/1.1\r\nHost: x\r\n")
            held.append(one)
    stop.wait(20)
    for one in held:
        one.close()


def giant(address: str, stop: threading.Event) -> None:
    """Frames far above the limit, again and again."""
    frame = bytes(20 * 2**20)
    while not stop.is_set():
        with contextlib.suppress(Exception), Peer(address, "giant") as peer:
            peer.greet()
            peer.send(frame)
            peer.is_hung_up(2.0)
        stop.wait(0.2)


@covers(
    "F25", I8="a flood, a slow loris and giant frames: the others keep their answers and their pace", I7="the service's memory is bounded"
)
@pytest.mark.slow
@pytest.mark.parametrize(
    "abuse",
    # short: one that does all it can; giant frames beside a real cell in test_real_runs
    [flood, *(pytest.param(peer, marks=pytest.mark.soak) for peer in (slow_loris, giant))],
    ids=lambda f: f.__name__,
)
def test_one_abusive_peer_does_not_take_from_the_others(abuse, record_property: pytest.RecordProperty) -> None:
    with stub_process(service_ms=5) as service:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(greeted(service.address, f"cell-{i}")) for i in range(4)]
            alone_ms = rounds(peers, 1, 12)
            stop = threading.Event()
            thread = threading.Thread(target=abuse, args=(service.address, stop), daemon=True)
            before = service.rss_mib()
            thread.start()
            time.sleep(0.2)
            abused_ms = rounds(peers, 1000, 25)
            stop.set()
            thread.join(1)
            grown = service.rss_mib() - before
        alone, abused = float(np.percentile(alone_ms, 99)), float(np.percentile(abused_ms, 99))
        record_property("p99_ms", [round(alone, 1), round(abused, 1)])
        # The abuser runs in this process, on the same two processors, so the bound is loose; benchmarks/overload.py has the numbers.
        assert abused < 10 * alone + 700.0
        assert grown < 200.0


def rounds(peers: list[Peer], first: int, count: int) -> list[float]:
    """Latencies of `count` questions of each peer, every answer checked to be its own."""
    took = []
    for seq in range(first, first + count):
        for index, peer in enumerate(peers):
            value = (seq + 40 * index) % 256
            began = time.monotonic()
            answer = peer.ask(seq, value=value)
            took.append(1e3 * (time.monotonic() - began))
            assert isinstance(answer, Chunk), answer
            assert is_own_answer(answer, value, seq)
    return took


@covers("F25", I1="32 robots at once: every chunk is the asker's own", I8="everybody is served in turn")
@pytest.mark.slow
def test_thirty_two_robots_get_their_own_answers() -> None:
    with stub_process(service_ms=10) as service, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(greeted(service.address, f"cell-{i}")) for i in range(32)]
        for seq in range(1, 4):
            for index, peer in enumerate(peers):
                peer.observe(seq, value=8 * index + seq)
            for index, peer in enumerate(peers):
                assert is_own_answer(peer.answer(), 8 * index + seq, seq)
