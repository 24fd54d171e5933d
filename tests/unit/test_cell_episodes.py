"""A cell from its options to its exit code, in a simulated world: what stopped one episode is gone with its world, or ends the run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from flows.commands.serving.workcell import WorkcellOptions
from model_core.spec.errors import SpecError
from model_core.spec.execution.cell_options import STRATEGIES, CellExit, CellOptions
from model_core.spec.protocol.wire import Control, Observe, encode_message
from serving.workcell.launch import work
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import ObserveRequest
from serving.workcell.link.waiting_link import SimulatedClock, WaitingLink
from serving.workcell.robot.strict_driver import StrictDriver
from tests.fakes import make_embodiment, make_observation
from tests.loopback import wait_until
from tests.unit.test_workcell import FakeRobot, chunk_for, good, link_to, run, scripted


def options(url: str, tmp_path: Path, **changes: object) -> CellOptions:
    told = CellOptions(robot="m:f", task="button", url=url, cell="c", result=tmp_path / "r.json", episodes=4)
    return replace(told, **changes)  # type: ignore[arg-type]


def ended(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int]]:
    """How each episode ended, and after how many steps."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [(line["stop_reason"], line["steps"]) for line in lines]


def test_what_stopped_a_simulated_episode_does_not_stop_the_next_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot, asked = StrictDriver(make_embodiment(), steps=8), []

    def bad_at_first(observe: Observe, socket: ServerConnection) -> None:
        asked.append(observe)
        bad = {"actions_KA": np.full((8, 4), np.nan, np.float32)}
        socket.send(chunk_for(observe, value=0.01, **(bad if len(asked) <= 3 else {})))

    with scripted(bad_at_first) as url:
        code = work(options(url, tmp_path), robot)
    assert ended(capsys) == [("guard_stopped", 2), *[("max_steps", 8)] * 3]
    assert code == CellExit.DONE
    assert robot.breaches == []


def test_a_kill_that_arrives_with_another_stop_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot, asked = StrictDriver(make_embodiment(), steps=8), []

    def bad_then_kill(observe: Observe, socket: ServerConnection) -> None:
        asked.append(observe)
        socket.send(chunk_for(observe, value=0.01, actions_KA=np.full((8, 4), np.nan, np.float32)))
        if len(asked) >= 3:  # what the first says may come after the session is renewed; a service says it again in the next one
            kill = Control(session_id=observe.session_id, epoch=observe.epoch, kind="KILL", text="a person said so")
            socket.send(encode_message(kill))

    with scripted(bad_then_kill) as url:
        code = work(options(url, tmp_path), robot)
    assert code == CellExit.STOPPED
    assert len(ended(capsys)) <= 2  # the next one may begin before the KILL is read, and does not go on


def test_a_stop_of_the_simulated_robot_itself_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot = StrictDriver(make_embodiment(), steps=8, protective_at=10)
    with scripted(good) as url:
        code = work(options(url, tmp_path), robot)
    assert code == CellExit.STOPPED
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "SAFE_STOP after 2 episodes: driver: protective stop is active; a person has to look" in captured.err


def test_a_hold_of_a_session_that_is_gone_costs_no_waiting() -> None:
    def hold_and_hang_up(observe: Observe, socket: ServerConnection) -> None:
        socket.send(encode_message(Control(kind="HOLD", session_id=observe.session_id, epoch=observe.epoch)))
        time.sleep(0.3)  # the word arrives before the end
        socket.close()

    with scripted(hold_and_hang_up) as url:
        link, world = link_to(url, make_embodiment(), deadline_s=3.0), SimulatedClock()
        waiting = WaitingLink(link, world)
        wait_until_up(waiting, 10.0)
        waiting.poll()
        waiting.ask(ObserveRequest(episode_id="e", step=0, observation=make_observation(), taken_at_s=world()))
        assert [heard.code for heard in waiting.poll() if heard.kind == "told"] == ["HOLD"]
        waiting.end_episode("e", "max_steps", success=False)
        wait_until(lambda: not link.is_up)
        wait_until_up(link, 10.0)  # between episodes, on whichever of the two
        began = time.monotonic()
        assert "up" in [heard.kind for heard in waiting.poll()]
        waiting.poll()
        assert time.monotonic() - began < 1.5
        link.close()


def test_a_pause_that_the_service_wants_costs_a_simulated_world_no_step() -> None:
    robot = FakeRobot()
    with scripted(good, min_interval_ms=400.0) as url:  # the world executes a chunk in 200 ms
        began = time.monotonic()
        result, _ = run(url, robot)
    assert time.monotonic() - began >= 2 * 0.4  # three questions
    assert (result.success, result.decisions, result.holds) == (True, 3, 0)


# --- options ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"operator_file": Path("who")}, "--operator-file needs --realtime.*add --realtime"),
        ({"operator_wait_s": 60.0}, "--operator-wait-s needs --realtime.*add --realtime"),
        ({"watchdog": Path("beat")}, "--watchdog needs --realtime"),
        ({"episodes": 0}, "--episodes 0: there is nothing to run"),
    ],
)
def test_options_that_mean_nothing_are_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=said):
        options("ws://h:1/v1/session", tmp_path, **change)


def test_every_value_arrives_as_it_was_given(tmp_path: Path) -> None:
    told = options(
        "ws://h:1/v1/session", tmp_path, task="-x", level="--full", robot_options=("-a=-1", "b=2"), realtime=True, strategy="ensemble"
    )
    assert CellOptions.read(told.arguments(), prog="", description="", epilog="") == told


@pytest.mark.parametrize(("text", "value"), [("0.00", 0.0), ("0", 0.0), ("0e3", 0.0), ("2.5", 2.5)])
def test_zero_is_zero_however_it_is_written(text: str, value: float, tmp_path: Path) -> None:
    words = [*options("ws://h:1/v1/session", tmp_path).arguments(), "--reserve-hz", text]
    assert CellOptions.read(words, prog="", description="", epilog="").reserve_hz == value


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "x"])
def test_a_number_that_is_none_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CellOptions.read(
            [*options("ws://h:1/v1/session", tmp_path).arguments(), f"--reserve-hz={text}"], prog="", description="", epilog=""
        )
    assert "0 or above" in capsys.readouterr().err


def test_help_names_every_strategy_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    (option,) = get_type_hints(WorkcellOptions, include_extras=True)["strategy"].__metadata__
    assert all(strategy in option.help for strategy in STRATEGIES)
    with pytest.raises(SystemExit):
        CellOptions.read(["--help"], prog="cell", description="", epilog="")
    assert f"{{{','.join(STRATEGIES)}}}" in capsys.readouterr().out
