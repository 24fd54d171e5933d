"""The kill list that a person signs: numbers grow, kills stay until two persons release them, and services take each list."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from flows.commands.fleet.commands import fleet_app
from model_core.spec.fleet.signatures import make_key, trusted
from serving.gateway.operations.kill_switch import FleetTies, KillSwitch


def test_a_kill_is_signed_obeyed_and_released_by_two(tmp_path: Path) -> None:
    key = make_key(tmp_path / "fleet.pem")
    file, switch = tmp_path / "kills.json", KillSwitch(FleetTies(keys=trusted(key.public_key()), site="lab"))

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(fleet_app, ["kill-list", str(file), "--key", str(tmp_path / "fleet.pem"), *words])
        return done.exit_code, done.output

    assert run()[0] == 0
    assert switch.accept(file.read_bytes()) is not None
    code, told = run("--kill", "site=lab", "--kill", "cell=cell-3", "--reason", "smoke", "--by", "ann")
    assert code == 0, told
    assert switch.accept(file.read_bytes()) is not None
    assert "smoke" in switch.stopped("m/1", "", "cell-1")
    names = [kill.id for kill in switch.in_force]
    assert json.loads([line for line in told.splitlines() if line.startswith("{")][-1]) == {"kills": names, "number": 2}
    for wrong in (f"{names[0]}=ann,ann", f"{names[0]}=ann", "k-none=ann,bob"):
        assert run("--release", wrong)[0] != 0
    assert run("--kill", "robot=3")[0] == 2
    assert run("--release", f"{names[0]}=ann,bob")[0] == 0
    assert switch.accept(file.read_bytes()) is not None
    assert not switch.stopped("m/1", "", "cell-1")
    assert switch.stopped("m/1", "", "cell-3")
    assert switch.fleet_list is not None
    assert switch.fleet_list.number == 3  # what was refused signed nothing
