"""`actwright fleet up` and the commands of rollouts and kills, against a real controller process on loopback."""

from __future__ import annotations

import json
import time

import httpx
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from components.deployment.fleet.controller import ControllerFiles, OrderRefused, running_controller
from components.deployment.gateway_service import Listening
from flows.commands.main import command_line
from model_core.access import token_digest
from model_core.spec.documents import to_document
from model_core.spec.errors import CheckpointError, NotReady, SpecError
from model_core.spec.fleet.release import Judgement, Release
from model_core.spec.fleet.signatures import make_key, public_path
from tests.simulated_fleet import SimulatedCell

OLD = "b" * 64


def release(folder, **more):
    made = Release(
        model_version="pick/4",
        contract_id="c" * 64,
        checkpoint="d" * 64,
        reasoning="full",
        minimum_agent="0.1.0",
        files={},
        judgement=Judgement(outcome="promote", promote=True, evaluated="d" * 64),
        **more,
    )
    folder.mkdir()
    (folder / "release.json").write_text(json.dumps(to_document(made)))
    return made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    key = make_key(folder / "controller.pem")
    people = {token_digest(name): {"subject": name, "role": role} for name, role in (("ada", "operate"), ("bo", "admin"), ("cy", "admin"))}
    (folder / "tokens.json").write_text(json.dumps(people))
    for name in ("ada", "bo", "cy"):
        (folder / name).write_text(name)
    files = ControllerFiles(database=f"sqlite:///{folder / 'fleet.db'}", key=folder / "controller.pem", log=folder / "log")
    with running_controller(files, Listening(tokens=folder / "tokens.json")) as url:

        def call(*words, by="ada"):
            done = CliRunner().invoke(command_line("fleet"), ["fleet", *map(str, words), "--url", url, "--token-file", str(folder / by)])
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            return json.loads(done.stdout.splitlines()[-1]), done.output

        yield call, url, folder, key


def test_a_release_is_rolled_out_stopped_and_killed_by_commands(fleet):
    call, url, folder, key = fleet
    made = release(folder / "release")
    plan = {
        "name": "careful",
        "release": made.digest,
        "stages": [
            {"name": "one", "cells": 1, "minimum_episodes": 2},
            {"name": "fleet", "share": 1.0, "minimum_episodes": 2, "proof": {}, "approvals": 1},
        ],
    }
    (folder / "careful.yaml").write_text(yaml.safe_dump(plan))
    told, said = call_offline("fleet", "rollout", "plan", folder / "careful.yaml")
    assert told["release"] == made.digest
    assert "shown not to be worse by 0.1" in said
    cells = [SimulatedCell(name=f"cell-{n}", running=OLD, rates={OLD: 1.0, made.digest: 1.0}) for n in range(3)]
    with httpx.Client(base_url=url, trust_env=False) as client:
        for cell in cells:
            private = make_key(folder / f"{cell.name}.pem")
            cell.key = private
            call("enrol", cell.name, "--site", "lab", "--key", public_path(folder / f"{cell.name}.pem"), by="bo")

        def report(episodes=0):
            for cell in cells:
                for _ in range(episodes):
                    cell.episode(time.time(), np.random.default_rng(0), lasts_s=0.0)
                cell.answered(client.post(f"/v1/cells/{cell.name}/report", content=cell.report(time.time())).content, key.public_key())

        report()
        with pytest.raises(OrderRefused, match="was not offered"):
            call("rollout", "start", folder / "careful.yaml")
        call("offer", folder / "release")
        assert call("rollout", "start", folder / "careful.yaml")[0]["rollout"] == 1
        wait_for(lambda: call("rollout", "status")[0]["shown"]["stage"] == "one")
        report()
        report(3)
        status, said = call("rollout", "status", 1)
        assert (status["shown"]["reached"], status["shown"]["proposed"]) == (1, 1)
        assert "reached 1 of 1" in said
        listed, said = call("cells")
        assert len(listed["cells"]) == 3
        assert "cells report what is proposed" in said
        wait_for(lambda: "1 approvals of stage fleet" in call("rollout", "status")[1])
        call("rollout", "approve", 1)
        wait_for(lambda: call("rollout", "status")[0]["shown"]["stage"] == "fleet")
        call("rollout", "pause", 1, "--reason", "lunch")
        with pytest.raises(OrderRefused, match=r"403.*admin"):
            call("kill", "start", "digest", made.digest, "--reason", "drops cups")
        kill = call("kill", "start", "digest", made.digest, "--reason", "drops cups", by="bo")[0]["kill"]
        wait_for(lambda: call("rollout", "status")[0]["shown"]["status"] == "rolled back")
        report()
        assert {cell.running for cell in cells} == {OLD}
        call("kill", "release", kill["id"], by="bo")
        with pytest.raises(OrderRefused, match="second person"):
            call("kill", "release", kill["id"], by="bo")
        assert "released" in call("kill", "release", kill["id"], by="cy")[1]
        assert "released by bo and cy" in call("kill", "list")[1]
    call("freeze", "--reason", "inventory")
    head = call("unfreeze", "--reason", "done", by="bo")[0]["head"]
    verified, _ = call("verify", "--head", head[:12])
    assert verified["head"] == head
    with pytest.raises(CheckpointError, match="missing at the end"):
        call("verify", "--head", "0123")


def call_offline(*words):
    done = CliRunner().invoke(command_line("fleet"), list(map(str, words)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout.splitlines()[-1]), done.output


def wait_for(fact, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_commands_say_what_is_wrong(fleet, tmp_path):
    (tmp_path / "plan.yaml").write_text("name: x\nrelease: y\nstages: []\n")
    with pytest.raises(SpecError, match="whole digest"):
        call_offline("fleet", "rollout", "plan", tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("- 1\n")
    with pytest.raises(SpecError, match="expected a mapping"):
        call_offline("fleet", "rollout", "plan", tmp_path / "plan.yaml")
    with pytest.raises(NotReady, match="no controller answers"):
        call_offline("fleet", "cells", "--url", "http://127.0.0.1:9")
    with pytest.raises(OrderRefused, match="401"):
        call_offline("fleet", "cells", "--url", fleet[1])
