"""F30: a shadow that is good, hangs, answers garbage or NaN, or dies: the live answers are the same, and nothing reaches a robot."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from components.deployment.fleet.shadow import comparison_lines, fetch_comparison
from components.deployment.service_address import ServiceCredentials
from model_core.spec.errors import NotReady
from model_core.spec.files import atomic_write
from model_core.spec.fleet.candidate import Candidate, written_candidate
from model_core.spec.protocol.wire import Chunk
from model_core.statistics.intervals import mean_interval, student_quantile
from serving.gateway.app import create_app
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.gateway.shadow.candidate_process import CandidateProcess, ShadowSettings
from serving.gateway.shadow.distances import along, distances
from serving.gateway.shadow.named_candidate import WAITING, NamedCandidate
from serving.gateway.shadow.shadow import Shadow
from serving.gateway.shadow.tally import ShadowTally
from tests.faults.peer import CONTRACT, greeted, is_own_answer, observation
from tests.faults.verdicts import covers
from tests.loopback import serve_app, wait_until

GOOD = [sys.executable, "-m", "serving.gateway.shadow.candidate", "--stub", "0"]
# A candidate that loads as the good one does, and then does what its last lines say with each observation.
BAD = textwrap.dedent("""
    import json, socket, sys, time, os
    from serving.gateway.inference.stub_policy import stub_contract
    from serving.gateway.shadow.frames import receive_frame, send_frame
    sock = socket.socket(fileno=int(sys.argv[-1]))
    about = {"contract": stub_contract().to_json(), "model_version": "bad/1", "bundle_digest": ""}
    send_frame(sock, json.dumps(about).encode())
    while True:
        receive_frame(sock), receive_frame(sock)
""")
DOES = {
    "hangs": "time.sleep(600)",
    "answers random bytes": "send_frame(sock, os.urandom(400)); send_frame(sock, b'{}')",
    "announces 4 GiB": "sock.sendall(b'\\xff\\xff\\xff\\xff' + bytes(100)); time.sleep(600)",
    "dies": "os._exit(9)",
}
QUICK = ShadowSettings(deadline_s=0.2, hung_s=0.4, load_s=60.0, max_restarts=0)


@contextlib.contextmanager
def shadowed(command: list[str], settings: ShadowSettings) -> Iterator[tuple[str, Shadow]]:
    with served(lambda of: of(command, settings)) as (address, shadow):
        wait_until(lambda: shadow.document()["state"] == "comparing", 60.0)
        yield address, shadow


def watched(file: Path, command: list[str]) -> contextlib.AbstractContextManager[tuple[str, NamedCandidate]]:
    """The service, with the candidate that `file` names, whichever that is: `command`."""
    return served(lambda of: NamedCandidate(file, lambda _: of(command, ShadowSettings())))


@contextlib.contextmanager
def served(make: Callable[[Callable[[list[str], ShadowSettings], Shadow]], Any]) -> Iterator[tuple[str, Any]]:
    policy = StubPolicy(contract=CONTRACT)
    model = LoadedModel(policy=policy, contract=CONTRACT, model_version=policy.model_version)
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=0.0))

    def of(command: list[str], settings: ShadowSettings) -> Shadow:
        candidate = CandidateProcess(command, settings)
        return Shadow(candidate, lambda: gateway.model if gateway.is_ready else None, gateway.metrics, settings)

    shadow = make(of)
    app = create_app(gateway, shadow=shadow)
    with serve_app(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", **SOCKET_OPTIONS)) as address:
        wait_until(lambda: gateway.is_ready)
        yield address, shadow


@covers("F30", I1="a good shadow sees what the live policy sees, and no robot gets its answer", I7="its queue and counts are bounded")
def test_a_good_shadow_is_compared() -> None:
    with shadowed(GOOD, ShadowSettings()) as (address, shadow), greeted(address) as peer:
        for seq in range(1, 7):
            episode = f"e{(seq + 1) // 2}"
            assert is_own_answer(peer.ask(seq, value=seq, episode_id=episode), seq, seq)
            wait_until(lambda seq=seq: sum(task["compared"] for task in shadow.document()["tasks"].values()) == seq)
        with urllib.request.urlopen(f"http://{address}/v1/shadow", timeout=5) as answer:
            found = json.load(answer)
        assert found["model_version"] == "stub/1-candidate"
        (task,) = found["tasks"].values()
        assert task["refused"]["count"] == 0
        assert task["refused"]["high"] < 0.5
        for name in ("action", "trace", "depth.equal"):  # the stub answers an observation always alike
            measure = task["measures"][name]
            assert (measure["mean"], measure["low"], measure["high"]) == ((1.0,) * 3 if name == "depth.equal" else (0.0,) * 3), name
            assert measure["episodes"] == 3


@covers("F30", I1="the live answers are those without a shadow", I8="the shadow is ended with its reason, the live session goes on")
@pytest.mark.parametrize("what", DOES)
def test_a_bad_shadow_changes_no_answer(what: str) -> None:
    command = [sys.executable, "-c", BAD + textwrap.indent(DOES[what], "    ")]
    with shadowed(command, QUICK) as (address, shadow), greeted(address) as peer:
        seq = 0
        while not str(shadow.document()["state"]).startswith("failed") and seq < 500:
            seq += 1
            assert is_own_answer(peer.ask(seq, value=seq % 200), seq % 200, seq)
        wait_until(lambda: str(shadow.document()["state"]).startswith("failed"))
        found = shadow.document()
        assert found["late" if what == "hangs" else "garbage"] >= 1
        assert is_own_answer(peer.ask(seq + 1, value=3), 3, seq + 1)


@covers("F30", I8="a candidate for another robot, or one that does not load, is refused by name and never asked")
def test_a_candidate_that_does_not_fit() -> None:
    other = BAD.replace("stub_contract().to_json()", "stub_contract(cameras=2).to_json()")
    for command, why in (([sys.executable, "-c", other], "for another robot"), ([*GOOD[:3], "--bundle", "/nowhere"], "bundle")):
        candidate = CandidateProcess(command, QUICK)
        with pytest.raises(Exception, match=why):
            candidate.start(CONTRACT)


def chunk(actions_KA: np.ndarray, **changes: object) -> Chunk:
    fields: dict[str, object] = {
        "session_id": "s", "epoch": 1, "seq": 1, "chunk_id": "c", "contract_id": "", "model_version": "", "control_hz": 20.0,
        "expires_ms": 1.0, "actions_KA": actions_KA.astype(np.float32),
    }  # fmt: skip
    return Chunk(**{**fields, **changes})  # type: ignore[arg-type]


def test_distances_are_in_the_contracts_units() -> None:
    one_KA = expected_actions(observation(), CONTRACT)
    span_A = CONTRACT.embodiment.action.high - CONTRACT.embodiment.action.low
    other_KA = one_KA.copy()
    other_KA[: CONTRACT.execute_horizon, 0] += 0.1 * span_A[0]
    other_KA[CONTRACT.execute_horizon :] += 100.0  # never executed: another request comes first
    codes_G = np.zeros(100, np.int64)
    half_G = np.where(np.arange(100) < 50, 1, 0)
    live = chunk(one_KA, depth_codes_G=codes_G, trace_N2=np.array([[0, 0], [255, 0]]))
    found = distances(live, chunk(other_KA, depth_codes_G=half_G, trace_N2=np.array([[0, 255], [255, 255]])), CONTRACT)
    name = CONTRACT.embodiment.action.dims[0].name
    assert found[f"action.{name}"] == pytest.approx(0.1 * span_A[0], rel=1e-4)
    assert found["action"] == pytest.approx(0.1 / len(span_A), rel=1e-3)
    assert found["depth.equal"] == 0.5
    assert found["trace"] == pytest.approx(15.0)  # 255 of 0..255 are 15 pixels of a side of 16
    assert np.allclose(along(np.array([[1.0, 2.0]])), [[1.0, 2.0]] * 5)


def test_intervals_are_over_episodes() -> None:
    tally, live = ShadowTally(), chunk(np.zeros((8, 4)))
    for episode, values in enumerate(([0.1] * 50, [0.3], [0.2] * 9)):
        for value in values:
            tally.add("push", f"s/{episode}", live, live, {"action": value}, 1.0)
    measure = tally.document({})["push"]["measures"]["action"]
    assert measure["mean"] == pytest.approx(0.2)
    half = student_quantile(0.975, 2) * 0.1 / 3**0.5
    assert (measure["low"], measure["high"]) == pytest.approx((0.2 - half, 0.2 + half))
    assert mean_interval(1, 0.5, 0.0) == (None, None)
    assert [round(student_quantile(0.975, n), 3) for n in (1, 2, 3, 10, 30)] == [12.706, 4.303, 3.182, 2.228, 2.042]
    for n in range(300):
        tally.add(f"task {n}", "s", live, live, {"action": 1.0}, 1.0)
    assert len(tally.document({})) <= 65


@covers("F30", I1="whoever a file names is compared, exchanged and ended while the live session goes on", I8="what names nobody is told")
def test_a_candidate_that_a_file_names_is_exchanged_while_the_service_runs(tmp_path) -> None:
    file = tmp_path / "candidate.json"

    def named(release: str) -> None:
        atomic_write(file, written_candidate(Candidate(release=release, bundle="/somewhere", cell="cell-a")))

    with watched(file, GOOD) as (address, shadow), greeted(address) as peer, greeted(address, "cell-b") as other:

        def compares(release: str) -> bool:
            return shadow.document()["release"] == release and shadow.document()["state"] == "comparing"

        assert shadow.document() == {"state": WAITING, "release": ""}
        with pytest.raises(NotReady, match=f"compares nothing: {WAITING}"):
            fetch_comparison(f"http://{address}", ServiceCredentials())
        for seq, release in enumerate(("a" * 64, "b" * 64), start=1):
            named(release)
            wait_until(lambda release=release: compares(release), 60.0)
            assert is_own_answer(other.ask(seq, value=7), 7, seq)
            assert shadow.document()["seen"] == 0  # the candidate is named for cell-a alone
            assert is_own_answer(peer.ask(seq, value=seq), seq, seq)
            wait_until(lambda: sum(task["compared"] for task in shadow.document()["tasks"].values()) == 1)
            lines = comparison_lines(fetch_comparison(f"http://{address}", ServiceCredentials()))
            assert "push the button: 1 decisions compared" in lines
        file.write_text("{")
        wait_until(lambda: "names no candidate" in shadow.document()["state"])
        file.unlink()
        wait_until(lambda: shadow.document()["state"] == WAITING)
        assert is_own_answer(peer.ask(9, value=9), 9, 9)
