"""The clock is set by hours while something is held: locks and places have no time of expiry, leases count on a clock that nobody sets."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import pytest

from components.artifacts.locks import try_locked
from flows.platform.flow_runs import FlowRuns
from flows.platform.prefect_server import start_prefect_server
from flows.platform.settings import Settings
from model_core.spec.errors import NotReady

HOUR_S = 3600
BEGIN = """
import sys, time
from pathlib import Path
from tests.faults.shifted_process import shift
folder = Path(sys.argv[1])
shift(folder / "clock")
def turn():  # let the test set the clock, and see it
    print("begun", flush=True)
    sys.stdin.readline()
    time.sleep(0.3)
"""
MAKES_A_STEP = """
from components.artifacts.locks import one_of
from components.artifacts.step_store import StepStore, run_step
def work(out):
    (out / "made").write_text("by the first")
    turn()
    return {}
print("ready", flush=True)
with one_of(folder / "places", 1):
    done = run_step(StepStore(folder / "store"), stage="annotate", config={}, inputs={}, work=work, code_version="1")
print("cached" if done.cached else "made", round(time.time()), flush=True)
"""
LEASES = """
import contextlib
from model_core.spec.protocol.wire import Reject
from tests.faults.peer import Peer, is_own_answer, stub_service
from serving.gateway.operations.limits import GatewayLimits
with stub_service(limits=GatewayLimits(warm_up_s=0.0, lease_s=3.0)) as (address, gateway), Peer(address) as peer:
    peer.greet()
    for seq in (1, 2, 3):
        began = time.time()
        turn() if seq > 1 else time.sleep(0.3)
        print("answered" if is_own_answer(peer.ask(seq, value=4), 4, seq) else "refused", round((time.time() - began) / 3600), flush=True)
    while not isinstance(said := peer.receive(), Reject):
        pass
    print(said.code.value, flush=True)
"""


T = TypeVar("T")


def taken(ask: Callable[[], T]) -> T:
    """What Prefect answers, asked again while its database is busy (503)."""
    give_up_at = time.monotonic() + 120.0
    while True:
        try:
            return ask()
        except NotReady as error:
            if "503" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(1.0)


class UnderAClock:
    """A program whose clock the test sets; each `turn` of it waits for `go_on`."""

    def __init__(self, folder: Path, program: str) -> None:
        self._clock = folder / "clock"
        self.set(0)
        command = [sys.executable, "-c", BEGIN + program, str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def set(self, hours: float) -> None:
        """Set its clock so far off."""
        self._clock.write_text(str(hours * HOUR_S))

    def says(self) -> str:
        """Its next line."""
        return _pipe(self.process.stdout).readline().strip()

    def go_on(self) -> None:
        """End its turn."""
        _pipe(self.process.stdin).write("\n")
        _pipe(self.process.stdin).flush()


def _pipe(of: IO[str] | None) -> IO[str]:
    assert of is not None
    return of


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[UnderAClock]]:
    """Programs that end with the test."""
    programs: list[UnderAClock] = []
    yield programs
    for one in programs:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("jumps", [(1, -1), (-1, 48)], ids=["forward and back", "back and far forward"])
def test_a_step_and_a_place_stay_held_whatever_the_clock_shows(
    tmp_path: Path, started: list[UnderAClock], jumps: tuple[float, ...]
) -> None:
    holder = UnderAClock(tmp_path, MAKES_A_STEP)
    started.append(holder)
    assert (holder.says(), holder.says()) == ("ready", "begun")
    other = UnderAClock(tmp_path, MAKES_A_STEP)
    started.append(other)
    assert other.says() == "ready"
    for hours in jumps:
        holder.set(hours)
        time.sleep(0.6)
        (lock,) = (tmp_path / "store" / ".locks").iterdir()
        with try_locked(lock) as is_free:
            assert not is_free, f"with a clock {hours} h off"
    holder.go_on()
    told, at_s = holder.says().split()
    assert told == "made"
    assert abs(int(at_s) - time.time() - jumps[-1] * HOUR_S) < 60, "its clock was set, or this shows nothing"
    assert other.says().split()[0] == "cached", "it waited, and made nothing"
    (made,) = (tmp_path / "store" / "annotate").glob("*/made")
    assert made.read_text() == "by the first"


def test_the_lease_of_a_session_is_as_long_as_promised_whatever_the_clock_shows(tmp_path: Path, started: list[UnderAClock]) -> None:
    service = UnderAClock(tmp_path, LEASES)
    started.append(service)
    assert service.says() == "answered 0"
    for hours, passed in ((1, 1), (-1, -2)):
        assert service.says() == "begun"
        service.set(hours)
        service.go_on()
        assert service.says() == f"answered {passed}"
    assert service.says() == "LEASE"


@pytest.mark.slow
def test_a_flow_run_that_was_put_back_does_not_wait_for_a_clock_that_was_set_back(tmp_path: Path) -> None:
    server = start_prefect_server(Settings(home=tmp_path))  # pyright: ignore[reportCallIssue]
    try:
        server.wait_ready(300)
        runs = FlowRuns(api=server.ready_url.removesuffix("/health"), deployment="retrain/retrain")
        flow = taken(lambda: runs._ask("POST", "/flows/", {"name": "retrain"}))["id"]
        taken(lambda: runs._ask("POST", "/deployments/", {"name": "retrain", "flow_id": flow}))
        for name, ahead_s in (("set back", HOUR_S), ("soon", 200)):
            taken(partial(runs.make, name, {}, key=name))
            (run,) = [one for one in runs.all() if one["name"] == name]
            taken(partial(runs._put_back, run, ahead_s))  # as it reads after the clock went back by an hour
        planned = {one["name"]: one["next_scheduled_start_time"] for one in runs.all()}
        assert taken(lambda: runs.put_back_lost(runs.all(), none_runs=False)) == [
            "set back: the clock was set back while it waited, it is run again"
        ]
        found = {one["name"]: one for one in runs.all()}
        wait = datetime.datetime.fromisoformat(found["set back"]["next_scheduled_start_time"]) - datetime.datetime.now(datetime.UTC)
        assert wait.total_seconds() < 10
        assert found["soon"]["next_scheduled_start_time"] == planned["soon"]
        assert runs.put_back_lost(runs.all(), none_runs=False) == []
    finally:
        server.stop()
