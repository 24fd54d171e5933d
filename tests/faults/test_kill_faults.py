"""F24: the kill switch by every scope, lists that are forged, old or lost, and a fleet that is not heard any more."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from flows.commands.fleet.commands import fleet_app
from model_core.spec.errors import SpecError, WireError
from model_core.spec.fleet.kill_list import Kill, KillList, ReleasedKill, Scope
from model_core.spec.fleet.release import OfflineRule, offline_rule
from model_core.spec.fleet.signatures import sealed, trusted, written_public
from model_core.spec.protocol.wire import Reject
from model_core.spec.types import RefusalCode
from serving.gateway.app import create_app
from serving.gateway.http.uvicorn_options import SOCKET_OPTIONS
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.fleet_file import read_fleet_file
from serving.gateway.operations.kill_switch import FleetTies, KillSwitch
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.faults.peer import CONTRACT, greeted
from tests.faults.real_cell import SLACK_S, real_cell
from tests.faults.verdicts import covers
from tests.gateway_parts import Rooms, observe
from tests.loopback import serve_app, wait_until

KEY = Ed25519PrivateKey.generate()
LEASE_S = 5.0
TIES = FleetTies(keys=trusted(KEY.public_key()), site="lab", release="f" * 64)
PATIENT = {"heartbeat_s": 5.0, "connect_timeout_s": 5.0}  # a machine that is busy cuts no link: the kill has to come through it
LIST = "list.json"  # where the service polls
MODEL, BUNDLE = "actwright/3", "b" * 64


def kill(scope: Scope = "fleet", value: str = "", name: str = "k-1") -> Kill:
    return Kill(id=name, scope=scope, value=value, reason="smoke", by="ann", at_s=1.0)


def signed(
    number: int, *kills: Kill, key: Ed25519PrivateKey = KEY, released: tuple[ReleasedKill, ...] = (), lease_s: float = LEASE_S
) -> bytes:
    return sealed(KillList(number=number, sent_at_s=1.0, lease_s=lease_s, kills=kills, released=released), key)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


def refusal(answer: object) -> RefusalCode | None:
    return answer.code if isinstance(answer, Reject) else None


@covers("F24", I8="a kill stops what it names, by digest, release, model, version, cell, site or fleet, and nothing else")
@pytest.mark.parametrize(
    ("scope", "value", "hits"),
    [
        ("digest", BUNDLE, True),
        ("digest", "f" * 64, True),
        ("digest", "c" * 64, False),
        ("model", "actwright", True),
        ("model", "actwright/3", True),
        ("model", "actwright/4", False),
        ("cell", "cell-a", True),
        ("cell", "cell-b", False),
        ("site", "lab", True),
        ("site", "plant", False),
        ("fleet", "", True),
    ],
)
def test_every_scope(scope: Scope, value: str, hits: bool) -> None:
    switch = KillSwitch(TIES)
    switch.accept(signed(1, kill(scope, value)))
    assert bool(switch.stopped(MODEL, BUNDLE, "cell-a")) is hits
    here = KillSwitch()
    here.order(scope, value, "smoke", "ann")
    assert bool(here.stopped(MODEL, BUNDLE, "cell-a")) is (hits and (scope, value) not in {("site", "lab"), ("digest", "f" * 64)})


@covers("F24", I8="a list that is forged, old, or lets a kill go that nobody released, changes nothing")
def test_lists_that_may_not_follow() -> None:
    switch = KillSwitch(TIES)
    switch.accept(signed(7, kill()))
    refused = {
        "key": signed(8, key=Ed25519PrivateKey.generate()),
        "not newer": signed(7),
        "leaves out": signed(8),
        "no signed document": b"{}",
        "does not hold": signed(8, kill()).replace(b"smoke", b"fumes"),
    }
    for why, message in refused.items():
        with pytest.raises(WireError, match=why):
            switch.accept(message)
        assert switch.stopped(MODEL, BUNDLE, "cell-a")
    assert switch.accept(signed(7, kill())) is None  # the same again
    with pytest.raises(WireError, match="was released by"):
        ReleasedKill(id="k-1", by=("ann", "ann"))
    switch.accept(signed(8, released=(ReleasedKill(id="k-1", by=("ann", "bob")),)))
    assert not switch.stopped(MODEL, BUNDLE, "cell-a")
    with pytest.raises(WireError, match="belongs to no fleet"):
        KillSwitch().accept(signed(1))


@covers("F24", I8="what was stopped stays stopped over a restart, and an unreadable record prevents the start")
def test_kills_survive_a_restart(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(written_public(KEY.public_key()))
    file = tmp_path / "fleet.json"
    file.write_text(json.dumps({"kill_key": "key.pem", "state": "kills.json", "site": "lab", "offline": "episodes:2"}))
    ties = read_fleet_file(file).ties
    assert ties.offline == OfflineRule(then="episodes", after_s=1.0, episodes=2)
    first = KillSwitch(ties)
    first.order("cell", "cell-a", "smoke", "ann")
    first.accept(signed(4, kill("site", "lab")))
    again = KillSwitch(ties)
    assert [one.scope for one in again.in_force] == ["site", "cell"]
    with pytest.raises(WireError, match="not newer"):
        again.accept(signed(3, lease_s=6.0))
    (tmp_path / "kills.json").write_text("{")
    with pytest.raises(SpecError, match="cannot be read"):
        KillSwitch(ties)


@covers("F24", I8="a disk that takes nothing delays no stop")
def test_a_kill_that_cannot_be_written_is_in_force(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    switch = KillSwitch(FleetTies(keys=TIES.keys, site="lab", state=tmp_path / "state" / "kills.json"))
    switch.order("cell", "cell-a", "smoke", "ann")
    switch.accept(signed(4, kill("site", "lab")))
    assert [one.scope for one in switch.in_force] == ["site", "cell"]


@covers("F24", I5="a fleet that is lost cuts no episode, unless the rule is to stop", I8="and what may begin follows the signed rule")
def test_the_offline_rules() -> None:
    async def scene() -> None:
        for rule in ("finish", "episodes:2", "stop"):
            rooms = Rooms(limits=GatewayLimits(warm_up_s=0.0, lease_s=1000.0))
            ties = FleetTies(keys=TIES.keys, offline=offline_rule(rule, 1.0))
            rooms.state.kills = KillSwitch(ties, clock=rooms.clock)
            session, switch = rooms.opened(), rooms.state.kills
            switch.accept(signed(1, lease_s=5.0))
            session.episode_id = "running"

            def asked(episode: str, rooms: Rooms = rooms, session: object = session) -> RefusalCode | None:
                return refusal(rooms.access.refusal(session, observe(session.ready, episode=episode)))  # type: ignore[arg-type, attr-defined]

            rooms.clock.now += 4.9
            assert asked("next") is None
            rooms.clock.now += 0.2  # the lease has run out
            assert asked("running") is (RefusalCode.LEASE if rule == "stop" else None)
            begun = [asked(name) for name in ("one", "two", "two", "three")]
            denied = RefusalCode.LEASE if rule == "stop" else RefusalCode.DRAINING
            assert begun == ([None, None, None, denied] if rule == "episodes:2" else [denied] * 4)
            switch.accept(signed(2, lease_s=5.0))
            assert asked("three") is None

    run(scene)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, Gateway]]:
    policy = StubPolicy(contract=CONTRACT)
    model = LoadedModel(policy=policy, contract=CONTRACT, model_version=policy.model_version)
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=0.0, lease_s=LEASE_S), ties=TIES)
    app = create_app(gateway, kill_list=str(tmp_path / LIST))
    with serve_app(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", **SOCKET_OPTIONS)) as address:
        wait_until(lambda: gateway.is_ready)
        yield address, gateway


@covers(
    "F24",
    I1="after a kill nothing moves without a chunk of its session",
    I4="a moving cell holds within the lease of the kill, and says so",
    I6="the audit has all of it",
    I8="a source that is lost changes nothing on a running robot",
)
def test_a_moving_cell_is_stopped_by_a_polled_list(
    tmp_path: Path, service: tuple[str, Gateway], record_property: pytest.RecordProperty
) -> None:
    address, gateway = service
    listed = tmp_path / LIST
    listed.write_bytes(signed(1))
    with real_cell(tmp_path / "cell", f"ws://{address}/v1/session", steps=10**6, **PATIENT) as cell:
        cell.begin()
        cell.after(10)
        listed.unlink()  # the source is lost: nothing changes
        at = time.monotonic()
        cell.moved_after(at, 10)
        listed.with_suffix(".new").write_bytes(signed(2, kill()))
        listed.with_suffix(".new").rename(listed)
        killed_at = time.monotonic()
        result = cell.finish()
        wait_until(lambda: gateway.supervisor.stops() and gateway.supervisor.stops()[0]["held_after_s"] is not None)
    assert "KILLED" in result.detail
    moved = [line["t"] for line in cell.lines() if line["chunk_id"]]
    held_after_s = float(str(gateway.supervisor.stops()[0]["held_after_s"]))
    record_property("time_to_hold_ms", round(1e3 * held_after_s))
    assert moved[-1] - killed_at < LEASE_S + SLACK_S
    assert held_after_s < gateway.limits.lease_s
    assert cell.breaches() == []


@covers("F24", I8="the offline rule stop holds every cell as long as the fleet is not heard, and lets them go on when it is")
def test_the_rule_stop_is_told_to_the_cells(tmp_path: Path, service: tuple[str, Gateway]) -> None:
    address, gateway = service
    gateway.service_state.kills.ties = FleetTies(keys=TIES.keys, offline=OfflineRule(then="stop", after_s=0.1))
    (tmp_path / LIST).write_bytes(signed(1, lease_s=0.3))
    wait_until(lambda: gateway.service_state.kills.fleet_list)
    with greeted(address) as peer:
        peer.observe(1)
        wait_until(lambda: gateway.service_state.kills.is_offline)
        while getattr(peer.receive(), "kind", "") != "HOLD":
            pass
        (tmp_path / LIST).write_bytes(signed(2, lease_s=60.0))
        assert getattr(peer.receive(), "kind", "") == "RESET"
        assert refusal(peer.ask(2)) is None


@covers(
    "F24",
    I4="a drill measures time to hold per cell against the lease",
    I8="two principals release; a cell that is idle or absent is named",
)
def test_a_drill_by_command(tmp_path: Path, service: tuple[str, Gateway], record_property: pytest.RecordProperty) -> None:
    address, gateway = service
    run_command = CliRunner().invoke
    assert run_command(fleet_app, ["drill", f"http://{address}", "--cell", "nobody"]).exit_code == 3  # and all is imported before it moves
    with real_cell(tmp_path / "cell", f"ws://{address}/v1/session", steps=10**6, **PATIENT) as cell, greeted(address, "cell-idle"):
        cell.begin()
        cell.after(5)
        asked = run_command(fleet_app, ["drill", f"http://{address}", "--cell", "cell-r", "--cell", "cell-idle"])
        assert asked.exit_code == 0, asked.output
        found = json.loads(asked.stdout.splitlines()[-1])
        assert (found["cells"], found["idle"], found["absent"], found["silent"]) == (1, ["cell-idle"], [], [])
        assert 0 < found["p50_s"] <= found["max_s"] < found["lease_s"] == 5.0
        record_property("drill_ms", round(1e3 * found["max_s"]))
        cell.finish()
    assert run_command(fleet_app, ["resume", f"http://{address}"]).exit_code == 0  # no tokens: one is enough
    assert not gateway.service_state.kills.in_force
