"""The tools themselves: scripts that repeat, a server and a proxy that do what they say, a judge that can say guilty."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from model_core.spec.errors import SpecError, WireError
from model_core.spec.protocol.wire import Chunk, Hello, Observe, Ready, decode_message, encode_message
from serving.fault_injection.catalog import BYTES, FAULTS, MEANING
from serving.fault_injection.damage import damage
from serving.fault_injection.link_conditions import Conditions, LinkAction
from serving.fault_injection.proxy import FaultProxy, running_proxy
from serving.fault_injection.script import Latency, Rule, Script, read_script, rule_of, script_of
from serving.fault_injection.server import RunningServer, running_server
from tests.fakes import make_embodiment, make_observation
from tests.faults.checker import Bounds, Evidence, Line, broken, check
from tests.faults.verdicts import table


def shaken(server: RunningServer, port: int = 0) -> tuple[ClientConnection, Ready]:
    peer = connect(f"ws://127.0.0.1:{port or server.port}/v1/session", compression=None, proxy=None, open_timeout=5)
    peer.send(encode_message(Hello(cell="c", epoch=1, embodiment=make_embodiment())))
    ready = decode_message(bytes(peer.recv(timeout=5)))  # type: ignore[arg-type]
    assert isinstance(ready, Ready)
    return peer, ready


def question(ready: Ready, seq: int) -> bytes:
    observe = Observe(
        session_id=ready.session_id, epoch=1, seq=seq, episode_id="e", step=seq, deadline_ms=500, observation=make_observation()
    )
    return encode_message(observe)


def heard(peer: ClientConnection, timeout_s: float = 0.2, *, due: int = 0) -> list[bytes | str]:
    """What comes until nothing comes for timeout_s; the first `due` messages are waited for, however slow the machine is."""
    found: list[bytes | str] = []
    try:
        while True:
            found.append(peer.recv(timeout=5.0 if len(found) < due else timeout_s))
    except (TimeoutError, ConnectionClosed):
        return found


# --- scripts ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_whatever_the_order() -> None:
    script = Script(
        seed=5, latency=Latency(kind="bimodal", ms=50, to_ms=400, jitter_ms=20), faults=(rule_of("drop~0.3"), rule_of("nan~0.2"))
    )
    forward = [script.for_request(n) for n in range(1, 101)]
    assert forward == [script.for_request(n) for n in range(100, 0, -1)][::-1]
    assert forward != [Script(seed=6, latency=script.latency, faults=script.faults).for_request(n) for n in range(1, 101)]
    dropped = sum("drop" in planned.names for planned in forward)
    assert 15 <= dropped <= 45
    assert 2 <= sum(planned.delay_ms >= 400 for planned in forward) <= 25


@pytest.mark.parametrize(
    ("text", "hit"),
    [("drop@3", {3}), ("drop@3,5", {3, 5}), ("drop@3-5", {3, 4, 5}), ("drop@8-", {8, 9, 10}), ("drop@*4", {4, 8}), ("version@9", {9, 10})],
)
def test_when_a_short_rule_happens(text: str, hit: set[int]) -> None:
    script = Script(faults=(rule_of(text),))
    assert {n for n in range(1, 11) if script.for_request(n).rules} == hit


def test_latency_kinds() -> None:
    rng = np.random.default_rng(0)
    ramp = Latency(kind="ramp", ms=50, to_ms=800, over=16)
    assert [ramp.of(n, rng) for n in (1, 16, 40)] == [50, 800, 800]
    assert [Latency(kind="spike", ms=50, to_ms=3000, at=4).of(n, rng) for n in (3, 4, 5)] == [50, 3000, 50]


@pytest.mark.parametrize("name", ["toml", "json"])
def test_scripts_are_read_from_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"night.{name}"
    path.write_text(
        'seed = 7\n[latency]\nkind = "ramp"\nms = 50\nto_ms = 800\n[[faults]]\nfault = "drop"\nat = [3]\n'
        if name == "toml"
        else json.dumps({"seed": 7, "latency": {"kind": "ramp", "ms": 50, "to_ms": 800}, "faults": [{"fault": "drop", "at": [3]}]})
    )
    assert read_script(path) == Script(seed=7, latency=Latency(kind="ramp", ms=50, to_ms=800), faults=(Rule(fault="drop", at=(3,)),))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "script: expected the fields of Script"),
        ({"speed": 1}, "speed"),
        ({"seed": 1.5}, "script.seed"),
        ({"latency": {"kind": "slow"}}, "slow"),
        ({"latency": {"ms": "50"}}, "latency.ms"),
        ({"latency": {"ms": True}}, "latency.ms"),
        ({"faults": [{"fault": "dorp"}]}, "dorp"),
        ({"faults": [{"fault": "drop", "at": 3}]}, "faults[0].at"),
        ({"faults": [{"fault": "drop", "at": [0]}]}, "counted from 1"),
        ({"faults": [{"fault": "drop", "chance": 1.5}]}, "chance"),
        ({"faults": [{"fault": "freeze", "ms": float("nan")}]}, "script.faults[0]: fault 'freeze': chance is 0..1 and ms is 0..1e9"),
    ],
)
def test_a_wrong_script_is_refused_with_the_field_named(document: object, says: str) -> None:
    with pytest.raises(SpecError) as error:
        script_of(document)
    assert says in str(error.value)


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BYTES))
def test_damaged_bytes_are_no_message(name: str) -> None:
    rng = np.random.default_rng(3)
    with running_server(Script()) as server:
        peer, ready = shaken(server)
        peer.send(question(ready, 1))
        good = bytes(peer.recv(timeout=5))  # type: ignore[arg-type]
        peer.close()
    refused = 0
    for _ in range(20):
        bad = damage(name, good, rng, count=3)
        assert bad != good
        try:
            decode_message(bad if isinstance(bad, bytes) else bad.encode())
        except WireError:
            refused += 1
    # A bit flipped inside a number is a well-formed message: what it says is checked later, by contract and guard.
    assert refused >= (1 if name == "flip" else 20)


@pytest.mark.parametrize("name", sorted(MEANING))
def test_false_answers_are_well_formed_and_not_the_good_one(name: str) -> None:
    with running_server(Script(faults=(Rule(fault=name, at=(2,)),))) as server:
        peer, ready = shaken(server)
        answers = []
        for seq in (1, 2):
            peer.send(question(ready, seq))
            answers.append(msgpack.unpackb(bytes(peer.recv(timeout=5))[1:]))  # type: ignore[arg-type]
        peer.close()
        assert server.log.count(fault=name, request=2) == 1
    good, false = answers
    assert {**good, "seq": 2, "chunk_id": false["chunk_id"]} != false


def test_delivery_faults_and_their_journal() -> None:
    script = Script(
        faults=tuple(map(rule_of, ["drop@1", "duplicate@2:count=2", "reorder@3", "replay@5", "reject@6:text=PARSE", "close@7"]))
    )
    with running_server(script) as server:
        peer, ready = shaken(server)
        due = [[], [2, 2, 2], [], [4, 3], [2, 5], [6], []]
        got: list[list[int]] = []
        for seq, answers in enumerate(due, start=1):
            peer.send(question(ready, seq))
            said = heard(peer, 0.05, due=len(answers))
            got.append([getattr(decode_message(data), "seq", 0) for data in said if isinstance(data, bytes)])
        assert got == due
        assert [line["fault"] for line in server.log.lines] == ["drop", "duplicate", "reorder", "replay", "reject", "close"]


def test_the_process_prints_its_faults_and_dies_when_told(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "serving.fault_injection",
        "server",
        "--port",
        "0",
        "--fault",
        "drop@1",
        "--fault",
        "kill@2",
        "--seed",
        "3",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        peer = connect(listening["url"], compression=None, proxy=None)
        peer.send(encode_message(Hello(cell="c", epoch=1, embodiment=make_embodiment())))
        ready = decode_message(bytes(peer.recv(timeout=5)))  # type: ignore[arg-type]
        assert isinstance(ready, Ready)
        for seq in (1, 2):
            peer.send(question(ready, seq))
        assert process.wait(10) == 137
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
    assert [(line["fault"], line["request"]) for line in lines] == [("drop", 1), ("kill", 2)]


def test_help_names_every_fault_and_shows_examples() -> None:
    run = subprocess.run([sys.executable, "-m", "serving.fault_injection", "server", "--help"], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in run.stdout for name in FAULTS)
    assert "python -m serving.fault_injection server --port 8765" in run.stdout


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["server", "--fault", "dorp@1"], "dorp"),
        (["server", "--fault", "drop@x"], "not a number"),
        (["server", "--latency", "wavy:ms=5"], "wavy"),
        (["proxy", "--upstream", "nowhere"], "HOST:PORT"),
        (["proxy", "--upstream", "a:1", "--loss", "2"], "loss"),
        (["proxy", "--upstream", "a:1", "--at", "5:explode"], "explode"),
    ],
)
def test_wrong_usage_says_what_is_wrong(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    from serving.fault_injection.__main__ import main

    assert main(argv) == 2
    assert says in capsys.readouterr().err


# --- the proxy --------------------------------------------------------------------------------------------------------


def test_the_proxy_adds_latency_and_keeps_order() -> None:
    with running_server(Script()) as server, running_proxy(f"127.0.0.1:{server.port}", Conditions(latency_ms=30, jitter_ms=20)) as proxy:
        peer, ready = shaken(server, proxy.port)
        began = time.monotonic()
        for seq in range(1, 11):
            peer.send(question(ready, seq))
        seqs = [getattr(decode_message(bytes(peer.recv(timeout=5))), "seq", 0) for _ in range(10)]  # type: ignore[arg-type]
        assert seqs == list(range(1, 11))
        assert time.monotonic() - began >= 0.06
        peer.close()


def test_half_open_swallows_everything_without_a_fin_and_heals_with_a_reset() -> None:
    with running_server(Script()) as server, running_proxy(f"127.0.0.1:{server.port}") as proxy:
        peer, ready = shaken(server, proxy.port)
        proxy.do("half-open")
        peer.send(question(ready, 1))
        assert heard(peer, 0.2) == []
        peer.ping()  # the socket still takes what is written to it
        proxy.do("heal")
        with pytest.raises(ConnectionClosed):
            peer.recv(timeout=5)
        again, _ = shaken(server, proxy.port)
        again.close()


def test_cut_resets_at_once_and_refuse_lets_nobody_in() -> None:
    with running_server(Script()) as server, running_proxy(f"127.0.0.1:{server.port}") as proxy:
        peer, _ = shaken(server, proxy.port)
        began = time.monotonic()
        proxy.do("refuse")
        with pytest.raises(ConnectionClosed):
            peer.recv(timeout=5)
        assert time.monotonic() - began < 2.0
        with pytest.raises((OSError, EOFError, WebSocketException)):
            shaken(server, proxy.port)
        proxy.do("heal")
        shaken(server, proxy.port)[0].close()


def test_a_narrow_link_is_as_slow_as_it_says_and_pushes_back() -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        with running_proxy(f"127.0.0.1:{port}", Conditions(rate_kbps=4000)) as proxy:
            near = socket.create_connection(("127.0.0.1", proxy.port))
            far, _ = upstream.accept()
            began = time.monotonic()
            near.sendall(bytes(200_000))
            while len(received) < 200_000:
                received += far.recv(65536)
            assert 0.3 <= time.monotonic() - began < 5.0  # 1.6 Mbit at 4 Mbit/s are 0.4 s
            near.close()
            far.close()


def test_flipped_bits_and_stalls_are_told() -> None:
    dirty = Conditions(flip=0.5, loss=0.5, stall_ms=5)
    with running_server(Script()) as server, running_proxy(f"127.0.0.1:{server.port}", dirty, seed=4) as proxy:
        for _ in range(5):
            try:
                peer, ready = shaken(server, proxy.port)
                for seq in range(1, 5):
                    peer.send(question(ready, seq))
                heard(peer, 0.05)
                peer.close()
            except (OSError, ConnectionClosed, WireError, AssertionError, EOFError, Exception):
                continue
        assert proxy.proxy.log.count(fault="flip") >= 1
        assert proxy.proxy.log.count(fault="loss") >= 1


def test_the_proxy_process_follows_its_plan(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        argv = [
            sys.executable,
            "-m",
            "serving.fault_injection",
            "proxy",
            "--upstream",
            f"127.0.0.1:{port}",
            "--port",
            "0",
            "--at",
            "0.3:kill",
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "address" in json.loads(process.stdout.readline())
            assert process.wait(10) == 137
            assert json.loads(process.stdout.readline())["fault"] == "kill"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_server_ends_quietly_on_sigterm() -> None:
    argv = [sys.executable, "-m", "serving.fault_injection", "server", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_link_actions_and_conditions_are_checked() -> None:
    for wrong in (lambda: LinkAction(at_s=-1, action="cut"), lambda: Conditions(latency_ms=float("nan")), lambda: FaultProxy("x:y")):
        with pytest.raises(SpecError):
            wrong()


# --- the judge --------------------------------------------------------------------------------------------------------

BOUNDS = Bounds(low=[-1.0] * 2, high=[1.0] * 2, hold=[0.0, None])


def honest() -> Evidence:
    """Four commands of one chunk, then a hold."""
    rows = [[0.1 * k, 1.0] for k in range(4)]
    chunk = {"chunk_id": "c1", "session_id": "s", "epoch": 1, "seq": 1, "contract_id": "k", "model_version": "m/1"}
    chunk |= {"expires_ms": 400.0, "actions_KA": rows}
    of_chunk = {"session_id": "s", "epoch": 1, "seq": 1, "contract_id": "k"}
    driver: list[Line] = [
        {"t": 0.1 + 0.05 * k, "chunk_id": "c1", **of_chunk, "row": k, "action": rows[k], "state": [0.0, 0.0]} for k in range(4)
    ]
    driver.append({"t": 0.3, "chunk_id": "", "epoch": 0, "seq": 0, "contract_id": "", "row": -1, "action": [0.0, 1.0], "state": [0.0, 0.0]})
    notes: list[Line] = [
        {"kind": "begin", "contract_id": "k", "model_version": "m/1"},
        {
            "kind": "decision",
            "t_s": 0.0,
            "answered_s": 0.1,
            "session_id": "s",
            "epoch": 1,
            "seq": 1,
            "outcome": "installed",
            "chunk": chunk,
        },
        *({"kind": "executed", "chunk_id": line["chunk_id"], "sent_A": list(line["action"]), "row": line["row"]} for line in driver),
    ]
    return Evidence(driver=driver, notes=notes, bounds=BOUNDS, t_hold_s=0.15, lost=[(0.12, 0.6)])


def test_an_honest_run_is_acquitted() -> None:
    assert check(honest()) == []


@pytest.mark.parametrize(
    ("invariant", "change"),
    [
        ("I1", lambda e: e.driver[1].update(chunk_id="c9")),
        ("I1", lambda e: e.driver[1].update(epoch=2)),
        ("I1", lambda e: e.driver[1].update(seq=2)),
        ("I1", lambda e: e.driver[1].update(contract_id="other")),
        ("I1", lambda e: e.notes[1].update(outcome="late")),
        ("I1", lambda e: e.notes[1]["chunk"].update(seq=0)),
        ("I1", lambda e: e.notes[1]["chunk"].update(session_id="t")),
        ("I1", lambda e: e.driver[4].update(action=[0.2, 1.0])),
        ("I1", lambda e: e.driver[4].update(action=[0.0, -1.0])),
        ("I2", lambda e: e.driver[3].update(t=0.41)),
        ("I2", lambda e: e.notes[1]["chunk"].update(expires_ms=200.0)),
        ("I3", lambda e: e.driver[2].update(action=[float("nan"), 1.0])),
        ("I3", lambda e: e.driver[2].update(action=[1.2, 1.0])),
        ("I3", lambda e: e.driver[2].update(action=[0.2])),
        ("I4", lambda e: e.driver[3].update(t=0.28)),
        ("I5", lambda e: e.notes[1]["chunk"].update(model_version="m/2")),
        ("I6", lambda e: e.notes.pop()),
        ("I6", lambda e: e.notes[3].update(sent_A=[0.5, 1.0])),
        ("I6", lambda e: e.driver[1].update(row=2)),
        ("I6", lambda e: e.notes.pop(0)),
    ],
)
def test_every_broken_invariant_is_seen(invariant: str, change) -> None:
    evidence = copy.deepcopy(honest())
    change(evidence)
    assert invariant in broken(evidence)


def test_a_jump_from_the_measured_pose_is_seen() -> None:
    evidence = honest()
    evidence.bounds = Bounds(low=[-1, -1], high=[1, 1], hold=[None, None], mode="absolute", state_of=[0, -1], jump=[0.05, 0.0])
    assert "I3" not in broken(evidence)
    evidence.driver[0]["state"] = [0.2, 0.0]
    assert "I3" in broken(evidence)


def test_the_table_shows_what_failed() -> None:
    rows = [
        {"fault": "F1", "invariant": "I4", "passed": True, "detail": "", "test": "a"},
        {"fault": "F1", "invariant": "I4", "passed": False, "detail": "still moving", "test": "b"},
        {"fault": "F7", "invariant": "I1", "passed": True, "detail": "", "test": "c"},
    ]
    text = table(rows)  # type: ignore[arg-type]
    assert "1/2 !" in text
    assert "FAILED F1 I4: still moving (b)" in text
    assert "2 of 3 claims hold; 2 of" in text


def test_a_chunk_from_the_fault_server_fits_the_body_that_asked() -> None:
    with running_server(Script()) as server:
        peer, ready = shaken(server)
        peer.send(question(ready, 1))
        chunk = decode_message(bytes(peer.recv(timeout=5)))  # type: ignore[arg-type]
        peer.close()
    assert isinstance(chunk, Chunk)
    assert ready.contract.embodiment == make_embodiment()
    assert (chunk.contract_id, chunk.actions_KA.shape) == (ready.contract.contract_id, (8, 4))
