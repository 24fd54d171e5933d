"""A workcell in trouble, on a virtual clock: network, service and model faults. The judge reads driver log and audit only."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.spec.errors import NotReady
from model_core.spec.protocol.wire import Chunk, Control
from model_core.spec.types import StopReason
from serving.fault_injection.script import Latency, Rule, Script, rule_of
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from tests.faults.verdicts import covers
from tests.faults.world import HEARTBEAT_S, VirtualLink, World, absolute_body


def scripted(*rules: str, seed: int = 0, **latency: object) -> Script:
    return Script(seed=seed, latency=Latency(**latency), faults=tuple(map(rule_of, rules)))  # type: ignore[arg-type]


def epochs(world: World) -> list[int]:
    return sorted({line["epoch"] for line in world.driver_lines() if line["chunk_id"]})


def test_a_quiet_world_has_no_breaches_and_hardly_a_hold(tmp_path: Path) -> None:
    world = World(tmp_path)
    result = world.run(20)
    assert world.breaches() == []
    assert 398 <= result.steps <= 402
    assert result.holds <= 2
    assert epochs(world) == [1]


@covers(
    "F1",
    I1="no reply of the dead process is used afterwards",
    I4="held within T_hold of the kill",
    I6="every command before and after it can be rebuilt",
    I8="the episode goes on with a new epoch when the service is back",
)
@pytest.mark.parametrize("strategy", ["async", "prefix", "blend", "sync"])
def test_the_service_is_killed_in_mid_request(tmp_path: Path, strategy: str) -> None:
    world = World(tmp_path, strategy=strategy)
    world.at(2.03, world.kill_service)
    world.at(2.03, lambda: world.lose(4.0))
    world.at(4.0, world.revive_service)
    world.run(12)
    assert world.breaches() == []
    assert world.moving(2.03 + world.t_hold_s, 4.0) == 0
    assert world.moving(10.0) > 20
    assert len(epochs(world)) == 2


@covers("F2", I2="what comes after SIGCONT is dropped and counted", I4="held while it is frozen", I8="goes on by itself")
@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_the_service_is_frozen(tmp_path: Path, seconds: float) -> None:
    world = World(tmp_path)
    world.at(2.0, lambda: world.freeze_service(seconds))
    world.at(2.0, lambda: world.lose(2.0 + seconds))
    world.run(seconds + 18)
    assert world.breaches() == []
    assert world.moving(seconds + 12) > 50
    if seconds > 1:
        assert world.link.tally.late >= 1
        assert world.link.tally.cuts
        assert world.held(2.0 + world.t_hold_s, 2.0 + seconds) > 0


@covers(
    "F2",
    I4="60 s without an answer: held at once, a safe stop after ten, never a wait of 50 s",
    I8="and a person lets it go on, no restart",
)
def test_the_service_is_frozen_for_a_minute(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(2.0, lambda: world.freeze_service(60.0))
    world.at(2.0, lambda: world.lose(62.0))
    result = world.run(80)
    assert world.breaches() == []
    assert result.stop_reason is StopReason.SERVICE_LOST
    assert world.now < 2.0 + 10.0 + 2.0
    assert world.moving(2.0 + world.t_hold_s) == 0
    assert world.connect(patience_s=80)
    assert world.cell is not None
    world.driver.release()
    world.cell.resume("anna")
    world.run(0.1, seed=2)  # takes her word, and shakes hands anew before anything may move
    assert world.connect(patience_s=10)
    world.audit.notes.clear()
    before = len(world.driver_lines())
    world.run(4, seed=2)
    assert sum(bool(line["chunk_id"]) for line in world.driver_lines()[before:]) > 40


@covers("F3", I4="the motors are never enabled", I8="the handshake ends with a typed reason within its deadline, and is tried again")
@pytest.mark.parametrize("fault", ["mute", "handshake-only", "hang-up", "not-ready", "wrong-ready-epoch"])
def test_a_service_that_never_says_ready(tmp_path: Path, fault: str) -> None:
    world = World(tmp_path, Script(faults=(Rule(fault=fault, at=(1, 2)),)))
    assert not world.connect(patience_s=4.9 if fault in {"mute", "handshake-only"} else 0.1)
    with pytest.raises(NotReady):
        RealtimeCell(world.driver, world.link, RealtimeSettings(cell="c"), world.limits or world.driver.limits)
    assert world.driver_lines() == []
    assert world.connect(patience_s=30)  # the third connection is a good one: nobody had to restart anything
    world.run(3)
    assert world.breaches() == []
    assert world.moving() > 20


@covers("F3", I1="a refused handshake moves nothing", I8="the reason names the code")
def test_a_service_that_refuses(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("refuse@1-"))
    assert not world.connect(patience_s=3)
    denied = [heard for heard in world.link.poll() if heard.kind == "denied"]
    assert denied
    assert denied[0].code == "CONTRACT"
    assert world.driver_lines() == []


@covers("F16", I1="a contract that does not fit this body is refused by the cell itself, by field")
def test_a_service_that_offers_a_contract_for_another_rate(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("other-contract@1-"))
    assert not world.connect(patience_s=3)
    denied = [heard for heard in world.link.poll() if heard.kind == "denied"]
    assert any("control_hz" in detail for detail in denied[0].details)


@covers(
    "F4",
    I4="a half-open link is held within T_hold",
    I8="the dead peer is noticed within two heartbeats and the cell comes back by itself",
)
# short: on real sockets each direction alone too, in test_real_runs
@pytest.mark.parametrize("direction", ["both", *(pytest.param(one, marks=pytest.mark.soak) for one in ("up", "down"))])
def test_half_open(tmp_path: Path, direction: str) -> None:
    world = World(tmp_path)
    world.at(3.0, lambda: world.half_open(direction))
    world.at(3.0, lambda: world.lose(6.0))
    world.at(6.0, world.heal)
    world.run(25)
    assert world.breaches() == []
    assert world.moving(3.0 + world.t_hold_s, 6.0) == 0
    lost = [note for note in world.audit.events("lost") if note["t_s"] - 1000 > 3.0]
    assert lost
    noticed_s = lost[0]["t_s"] - world.lost[0][0]
    # Asked and never answered, or silent: whichever comes first, and never the 50 s of a TCP timeout.
    assert noticed_s < 2 * HEARTBEAT_S + 3 * 0.5 + 0.2
    assert world.moving(20.0) > 50


LATENCIES = [
    {"kind": "ramp", "ms": 50, "to_ms": 800, "over": 30},
    {"kind": "bimodal", "ms": 40, "to_ms": 300, "share": 0.3, "jitter_ms": 40},
    {"kind": "spike", "ms": 40, "to_ms": 3000, "at": 12},
]


@covers(
    "F5", I1="no answer is mistaken for another", I2="nothing late is executed", I3="no jump where latency changes", I4="starved is held"
)
@pytest.mark.parametrize(
    ("strategy", "latency"),
    [
        *(pytest.param("async", latency, id=f"async-{latency['kind']}") for latency in LATENCIES),
        pytest.param("blend", LATENCIES[0], id="blend-ramp"),
        # short: the same latencies with the other strategy
        *(pytest.param("blend", latency, id=f"blend-{latency['kind']}", marks=pytest.mark.soak) for latency in LATENCIES[1:]),
    ],
)
def test_latency_that_changes(tmp_path: Path, latency: dict[str, object], strategy: str) -> None:
    world = World(tmp_path, scripted(seed=3, **latency), strategy=strategy)
    result = world.run(40 if latency["kind"] == "ramp" else 30)
    assert world.breaches() == []
    if latency["kind"] == "ramp":  # in the end every answer is later than its deadline: nothing is left but to hold
        assert result.holds > 100
        assert world.link.tally.late > 0
    if latency["kind"] == "spike":
        assert world.cell is not None
        assert world.cell.scheduler.predicted <= 2  # the estimate came back
        assert world.held(25) <= 2


@covers("F5", I8="after a slow hour the estimate recovers: the same pace as before")
def test_the_delay_estimate_recovers(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(5.0, lambda: setattr(world.link, "down_ms", 250.0))
    world.at(15.0, lambda: setattr(world.link, "down_ms", 10.0))
    world.run(40)
    assert world.breaches() == []
    assert world.held(30) == 0
    assert world.cell is not None
    assert world.cell.scheduler.predicted <= 2


@covers("F6", I1="a first answer that took twenty times as long skips no row from standstill", I3="and begins where the body stands")
@pytest.mark.parametrize("strategy", ["async", "prefix", "blend"])
def test_a_slow_first_inference_skips_nothing(tmp_path: Path, strategy: str) -> None:
    world = World(tmp_path, scripted(kind="spike", ms=20, to_ms=390, at=1), strategy=strategy)
    world.run(10)
    assert world.breaches() == []
    rows = [line["row"] for line in world.driver_lines() if line["chunk_id"]]
    assert rows[0] == 0
    assert world.held(2.0) == 0
    assert world.cell is not None
    assert world.cell.scheduler.predicted <= 2


OUT_OF_ORDER = [
    *("delay~0.3:ms=700", "next-seq~0.3", "duplicate~0.5:count=3", "reorder~0.3", "replay~0.5"),
    *("wrong-seq~0.3", "wrong-epoch~0.3", "wrong-session~0.3"),
]


@covers("F7", I1="late, repeated, reordered and replayed answers are never paired with another question", I2="and never executed")
@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        *(("async", rule) for rule in OUT_OF_ORDER),
        *(("sync", rule) for rule in OUT_OF_ORDER[:2]),
        *(pytest.param("sync", rule, marks=pytest.mark.soak) for rule in OUT_OF_ORDER[2:]),  # short: asynchronous
    ],
)
def test_answers_out_of_order(tmp_path: Path, rule: str, strategy: str) -> None:
    world = World(tmp_path, scripted(rule, seed=5, ms=20), strategy=strategy)
    world.run(10)
    assert world.breaches() == []
    assert world.moving() > 50
    assert sum(world.link.tally.dropped.values()) + world.link.tally.late > 0


@covers("F8", I1="a duplicated answer is executed once", I6="and audited once")
def test_an_answer_that_comes_twice_is_one_decision(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("duplicate@1-:count=2"))
    world.run(10)
    assert world.breaches() == []
    installed = [note for note in world.audit.notes if note["kind"] == "decision" and note["outcome"] == "installed"]
    assert len({note["chunk"]["chunk_id"] for note in installed}) == len(installed)
    assert world.link.tally.dropped.get("duplicate", 0) > 10


@covers("F9", I4="a link too narrow for its pictures is held", I7="no more than one picture waits to be written, ever")
def test_a_narrow_link(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(3.0, lambda: setattr(world.link, "mtu_ms", 1500.0))
    deepest = 0
    plain = world.link.core.ask

    def counting(*args: object) -> int:
        nonlocal deepest
        deepest = max(deepest, len(world.link.core._controls))
        return plain(*args)  # type: ignore[arg-type]

    world.link.core.ask = counting  # type: ignore[method-assign]
    world.run(20)
    assert world.breaches() == []
    assert world.held(5.0, 20.0) > 100
    assert deepest <= 32


@covers("F13", I2="no question is asked with an old picture or state", I4="the cell holds when it may not ask")
@pytest.mark.parametrize("sensor", [{"front": 600.0}, {"proprio": 300.0}], ids=["camera", "state"])
def test_old_senses(tmp_path: Path, sensor: dict[str, float]) -> None:
    world = World(tmp_path)
    world.at(3.0, lambda: world.driver.ages.update(sensor))
    world.at(6.0, world.driver.ages.clear)
    world.run(10)
    assert world.breaches() == []
    assert world.audit.events("stale")
    assert world.moving(3.0 + world.t_hold_s, 6.0) == 0
    assert world.moving(6.5) > 40


NONSENSE = ["nan", "inf", "1e9", "outside", "empty", "short", "long", "narrow", "wide", "jump", "denormal", "expired", "other-rate"]


@covers("F14", I3="nothing that is not finite, in shape and in range reaches the driver", I6="refused chunks are audited with their reason")
@pytest.mark.parametrize("fault", NONSENSE)
def test_one_nonsensical_answer_is_refused_and_the_cell_goes_on(tmp_path: Path, fault: str) -> None:
    world = World(tmp_path, scripted(f"{fault}@8"))
    world.run(5)
    assert world.breaches() == []
    assert world.moving(3.0) > 32  # of 40
    if fault not in {"denormal", "jump"}:  # in range: a jump to the limit is what this body's limits allow
        bad = [note for note in world.audit.notes if note["kind"] == "decision" and note["outcome"] in {"refused", "dropped", "late"}]
        refused = [note["reason"] for note in world.audit.notes if note["kind"] == "event" for note in [note["detail"]] if "reason" in note]
        assert bad or refused


@covers("F14", I3="a model that answers nothing but nonsense moves nothing", I4="and ends in a stop, not in a loop")
@pytest.mark.parametrize("fault", ["nan", "1e9", "short", "wide"])
def test_nothing_but_nonsense_stops_the_cell(tmp_path: Path, fault: str) -> None:
    world = World(tmp_path, scripted(f"{fault}@5-"))
    result = world.run(30)
    assert world.breaches() == []
    assert result.stop_reason in {StopReason.GUARD_STOPPED, StopReason.REFUSED}
    assert world.moving(5.0) == 0


@covers("F14", I3="a first step far from the measured pose is refused before it is sent")
def test_a_jump_from_the_measured_pose_is_refused(tmp_path: Path) -> None:
    from serving.workcell.motion.limits import widest_limits

    body = absolute_body()
    wide = widest_limits(body)
    limits = replace(wide, dims=tuple(replace(dim, max_jump=0.2) if dim.name != "gripper" else dim for dim in wide.dims))
    world = World(tmp_path, scripted("jump@6"), body=body, limits=limits)
    world.run(12)
    assert world.breaches() == []
    xs = [line["action"][0] for line in world.driver_lines()]
    assert max(np.abs(np.diff(xs))) < 0.2
    assert world.moving(8) > 40


@covers("F15", I1="a refusal to parse is a hold, not a guess", I8="and the next answer is taken")
def test_a_model_that_cannot_be_parsed_is_held(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("reject@6-9:text=PARSE"))
    world.run(12)
    assert world.breaches() == []
    assert world.moving(8) > 60


@covers(
    "F17",
    I5="a chunk of another version or contract inside the episode is dropped",
    I1="its number and session do not help it",
    I4="and the cell holds",
)
@pytest.mark.parametrize("fault", ["version", "contract"])
def test_the_version_changes_between_two_chunks(tmp_path: Path, fault: str) -> None:
    world = World(tmp_path, scripted(f"{fault}@8-"))
    result = world.run(20)
    assert world.breaches() == []
    assert world.moving(6.0) == 0
    assert result.stop_reason is not StopReason.SUCCESS


@covers(
    "F17",
    I5="a service that comes back as another version gets no say in this episode",
    I4="held",
    I8="the next episode runs on the new one",
)
def test_the_service_restarts_as_another_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(3.0, world.kill_service)
    world.at(3.0, lambda: world.lose(9.0))
    world.at(4.0, lambda: world.revive_service(model_version="virtual/2"))
    world.run(9)
    assert world.breaches() == []
    assert world.moving(3.0 + world.t_hold_s) == 0
    assert world.connect(patience_s=20)
    before = len(world.driver_lines())
    first_notes, world.audit.notes = world.audit.notes, []
    world.run(4.0, seed=2)
    lines = world.driver_lines()[before:]
    assert sum(bool(line["chunk_id"]) for line in lines) > 40
    assert {line["model_version"] for line in lines if line["chunk_id"]} == {"virtual/2"}
    assert [note["model_version"] for note in first_notes if note["kind"] == "begin"] == ["virtual/1"]


@covers(
    "F22", I1="a wall clock that jumps by an hour changes nothing", I2="expiry is counted in monotonic time", I8="two runs are the same"
)
@pytest.mark.parametrize("jump_s", [3600.0, pytest.param(-3600.0, marks=pytest.mark.soak)])  # short: an hour ahead
def test_the_wall_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float) -> None:
    def driven(folder: Path, *, jumps: bool) -> list[list[float]]:
        folder.mkdir()
        world = World(folder, scripted(kind="bimodal", ms=30, to_ms=120, jitter_ms=20, seed=2))
        if jumps:
            wall, wall_ns = time.time, time.time_ns

            def jump() -> None:
                monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
                monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + int(1e9 * jump_s))

            world.at(2.0, jump)
        world.run(8)
        assert world.breaches() == []
        return [line["action"] for line in world.driver_lines()]

    assert driven(tmp_path / "a", jumps=False) == driven(tmp_path / "b", jumps=True)


@covers("F22", I2="after a suspend of an hour nothing of before is executed", I8="and the cell connects anew by itself")
def test_suspend_and_resume(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(3.0, lambda: world.clock.sleep(3600.0))
    world.run(3625)
    assert world.breaches() == []
    after = [line for line in world.driver_lines() if line["t"] - 1000 > 3600]
    assert not after[0]["chunk_id"]
    assert sum(bool(line["chunk_id"]) for line in after) > 50


@covers("F23", I4="a lease that is not renewed ends in a hold, whatever else is well", I8="and in a new handshake")
def test_a_lease_that_runs_out(tmp_path: Path) -> None:
    world = World(tmp_path, lease_s=2.0)
    deaf = world.link._arrived

    def without_leases(data: bytes) -> None:
        if len(data) > 400 or b"LEASE" not in data or world.now < 3.0:
            deaf(data)

    world.link._arrived = without_leases  # type: ignore[method-assign]
    world.run(12)
    assert world.breaches() == []
    assert world.audit.events("lease")
    assert world.link.tally.connections >= 2


@covers(
    "F27",
    I4="a service whose engine hangs says HOLD, and the body is held",
    I8="it takes that back when another engine answers, and the episode goes on",
)
def test_a_hung_engine_holds_the_cell_and_lets_it_go_on(tmp_path: Path) -> None:
    world = World(tmp_path)

    def say(kind: str) -> None:
        ready = world.link.ready
        assert ready is not None
        world.link.core.heard(Control(kind=kind, session_id=ready.session_id, epoch=ready.epoch, text="drill"), world.clock())

    world.at(3.0, lambda: say("HOLD"))
    world.at(5.0, lambda: say("RESET"))
    world.run(10)
    assert world.breaches() == []
    assert world.moving(3.1, 5.0) == 0
    assert world.moving(5.5) > 60


@covers("F17", I3="another release between two episodes brings its own, tighter limits")
def test_the_limits_of_the_next_release_count_from_its_first_episode_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(3)
    body = world.service.contract.embodiment
    x = replace(body.action.dims[0], soft_low=-0.05, soft_high=0.05)
    tighter = replace(body, action=replace(body.action, dims=(x, *body.action.dims[1:])))
    world.kill_service()
    world.revive_service(model_version="virtual/2", contract=replace(world.service.contract, embodiment=tighter))
    assert world.connect()
    before = len(world.driver_lines())
    world.run(4, seed=2)
    assert max(abs(line["action"][0]) for line in world.driver_lines()[before:]) <= 0.05 + 1e-6


# --- mutants: each breaks one rule, and the judge has to see it ---------------------------------------------------------


class PairsLateAnswers(VirtualLink):
    """Takes whatever chunk comes as the answer to what was asked last (vla-eval 0.8, openpi brokers)."""

    def _delivered(self, frame: bytes | str) -> None:
        core = self.core
        plain = core._take_chunk

        def take(chunk: Chunk, now_s: float) -> None:
            waiting = core._open
            if waiting is not None:
                now = core.ready
                assert now is not None
                plain(replace(chunk, seq=waiting.seq, epoch=core.epoch, session_id=now.session_id), now_s)
                heard = core._heard[-1]
                core._heard[-1] = replace(heard, chunk=chunk) if heard.kind == "chunk" else heard

        core._take_chunk = take  # type: ignore[method-assign]
        super()._delivered(frame)
        core._take_chunk = plain  # type: ignore[method-assign]


class TakesAnyModel(VirtualLink):
    """Does not ask which model answered."""

    def pump(self) -> None:
        self.core._wrong_model = lambda chunk: ""  # type: ignore[method-assign]
        super().pump()


class RepeatsWhenLost(RealtimeCell):
    """Goes on with the last command when there is nothing to execute."""

    def begin(self, seed):
        hold = self._control._hold_A
        self._control._hold_A = lambda: hold() if self._body.last_A is None else self._body.last_A  # type: ignore[method-assign]
        return super().begin(seed)


class Forgets(RealtimeCell):
    """Does not tell the audit about every fourth command."""

    def begin(self, seed):
        tell = self._tell.executed

        def executed(action):
            is_forgotten = action.step % 4 == 0 and action.chunk_id
            tell(replace(action, sent_A=action.sent_A * 0) if is_forgotten else action)

        self._tell.executed = executed
        return super().begin(seed)


class TrustsAnyRow(RealtimeCell):
    """Sends what the scheduler gives."""

    def begin(self, seed):
        self._control._judged = lambda command, now: (None, {}) if command is None else (command.action_A, {})  # type: ignore[method-assign]
        return super().begin(seed)


class Unguarded(RealtimeCell):
    """Trusts the service's numbers."""

    def begin(self, seed):
        def judged(command, now):
            return (None, {}) if command is None else (command.action_A * np.float32(5), {})

        self._control._judged = judged  # type: ignore[method-assign]
        return super().begin(seed)


@covers("F7", I1="the judge finds a client that pairs late answers with newer questions")
def test_mutant_that_pairs_late_answers_is_caught(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("delay~0.4:ms=530", seed=5), make_link=PairsLateAnswers, link_options={"max_dead": 50})
    world.run(20)
    assert {breach.invariant for breach in world.breaches() if not breach.text.startswith("I")} & {"I1", "I2"}


@covers("F17", I5="the judge finds a client that takes chunks of any version")
def test_mutant_that_takes_any_model_is_caught(tmp_path: Path) -> None:
    world = World(tmp_path, scripted("version@8-"), make_link=TakesAnyModel, make_cell=TrustsAnyRow)
    world.run(10)
    assert "I5" in {breach.invariant for breach in world.breaches() if not breach.text.startswith("I5")}


@covers("F4", I1="the judge finds a client that goes on when the link is lost")
def test_mutant_that_repeats_when_lost_is_caught(tmp_path: Path) -> None:
    world = World(tmp_path, make_cell=RepeatsWhenLost)
    world.at(3.0, world.half_open)
    world.run(6)
    assert "I1" in {breach.invariant for breach in world.breaches() if not breach.text.startswith("I1")}


@covers("F14", I3="the judge finds a client without limits")
def test_mutant_without_limits_is_caught(tmp_path: Path) -> None:
    world = World(tmp_path, make_cell=Unguarded)
    world.run(4)
    assert "I3" in {breach.invariant for breach in world.breaches() if not breach.text.startswith("I3")}


@covers("F29", I6="the judge finds an audit that does not say what was sent")
def test_mutant_that_forgets_is_caught(tmp_path: Path) -> None:
    world = World(tmp_path, make_cell=Forgets)
    world.run(4)
    assert "I6" in {breach.invariant for breach in world.breaches()}
