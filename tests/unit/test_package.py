"""What goes into a package, without building one: probes, lock, cells' command lines."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.config.recipe import WorkcellsConfig
from components.data.frozen_dataset import load_split
from components.deployment.cell_process import cell_command
from components.deployment.simulated_cells import cell_options, tasks_of_cells
from components.release import package
from components.release.package import locked, probe_observations, record_probes
from model_core.bundle import checked_manifest
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, DatasetError, SpecError
from model_core.spec.execution.cell_options import CellOptions
from model_core.spec.types import Decision, Refusal, RefusalCode
from serving.gateway.inference.golden_probes import failed_golden_probes, load_golden_probes
from serving.gateway.sessions.observation_checks import complaint
from tests.fakes import EchoPolicy, make_contract, with_actions
from tests.tiny_arm_data import make_small_contract, write_small_frozen


def test_recorded_probes_are_answered_alike_by_the_same_model_and_not_by_another(tmp_path: Path) -> None:
    policy = EchoPolicy()
    asked = probe_observations(policy.contract, 3, None)
    golden = record_probes(policy, policy.contract, "echo/1", asked, tmp_path / "probes")
    assert [g.name for g in golden] == ["00", "01", "02"]
    probes = load_golden_probes(tmp_path / "probes")
    assert [p.name for p in probes] == ["00", "01", "02"]
    assert failed_golden_probes(policy, policy.contract, probes) == []
    other = EchoPolicy(change=lambda d: with_actions(d, -d.chunk.actions_KA) if d.chunk else d)
    assert len(failed_golden_probes(other, policy.contract, probes)) == 3
    assert "recorded under contract" in failed_golden_probes(policy, make_contract(execute_horizon=8), probes)[0]
    packed = replace(policy.contract, golden_probes=golden)
    assert packed.policy_id == policy.contract.contract_id != packed.contract_id
    assert PolicyContract.from_json(json.loads(json.dumps(packed.to_json()))) == packed
    assert failed_golden_probes(policy, packed, probes) == []
    assert "the bundle lacks it" in failed_golden_probes(policy, packed, probes[:2])[0]
    swapped = [replace(probes[0], observation=probes[1].observation), *probes[1:]]
    assert "does not ask" in failed_golden_probes(policy, packed, swapped)[0]
    moved = replace(golden[0], action_low_A=(0.5,) * 4, action_high_A=(0.6,) * 4)
    assert "box" in failed_golden_probes(policy, replace(packed, golden_probes=(moved,)), probes)[0]
    (tmp_path / "probes" / "01.chunk").unlink()
    with pytest.raises(CheckpointError, match=r"01\.observe"):
        load_golden_probes(tmp_path / "probes")


def test_a_model_that_refuses_every_probe_is_not_packed(tmp_path: Path) -> None:
    refusal = Refusal(code=RefusalCode.PARSE, reason="no")
    policy = EchoPolicy(change=lambda d: Decision(contract_id=d.contract_id, refusal=refusal))
    with pytest.raises(CheckpointError, match="refused all 2"):
        record_probes(policy, policy.contract, "echo/1", probe_observations(policy.contract, 2, None), tmp_path / "p")


def test_synthetic_probes_fit_the_contract_and_repeat() -> None:
    contract = make_contract()
    first, again = probe_observations(contract, 2, None), probe_observations(contract, 2, None)
    assert [complaint(o, contract) for o in first] == [None, None]
    assert all(np.array_equal(a.images["front"], b.images["front"]) for a, b in zip(first, again, strict=True))


def test_probes_come_from_the_validation_split(tmp_path: Path) -> None:
    contract = make_small_contract()
    frozen = write_small_frozen(tmp_path / "frozen", contract)
    validation = load_split(frozen, "validation")
    seen = probe_observations(contract, 3, frozen)
    assert len(seen) == 3
    for observation in seen:
        assert any(np.array_equal(observation.images["front"], images[0]) for images in validation.images_NVHW3)
    assert {o.instruction for o in seen} <= set(validation.instructions)


def test_probes_are_not_taken_from_a_damaged_shard(tmp_path: Path) -> None:
    contract = make_small_contract()
    frozen = write_small_frozen(tmp_path / "frozen", contract)
    shard = frozen / "shards" / "validation-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # one bit of one number: the file still opens
    shard.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"validation-00000\.safetensors is damaged: expected sha256"):
        probe_observations(contract, 3, frozen)


def test_lock_names_everything_that_is_needed_once() -> None:
    lines = locked(["starlette", "Starlette"])
    names = [line.split("==")[0] for line in lines]
    assert {"starlette", "anyio", "idna"} <= set(names)
    assert len(names) == len(set(names))
    assert not any("+" in line for line in lines)


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_bundle_is_checked_before_it_is_loaded(tmp_path: Path, change: str) -> None:
    weights = tmp_path / "checkpoint" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "bundle.json").write_text(
        json.dumps({"model_version": "a/1", "contract_id": "c0ffee", "files": {"checkpoint/model.safetensors": digest}})
    )
    assert checked_manifest(tmp_path).files
    weights.unlink() if change == "missing" else weights.write_bytes(b"wEights")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checked_manifest(tmp_path)
    with pytest.raises(CheckpointError, match=r"bundle\.json"):
        checked_manifest(tmp_path / "checkpoint")


def test_cells_share_the_tasks_out_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    cfg = WorkcellsConfig(cells=3, episodes_per_cell=2)
    assert tasks_of_cells(cfg, ("a", "b")) == [("cell-01", "a"), ("cell-02", "b"), ("cell-03", "a")]
    assert tasks_of_cells(replace(cfg, tasks=("c",)), ("a", "b"))[0] == ("cell-01", "c")
    with pytest.raises(SpecError, match=r"workcells\.tasks"):
        tasks_of_cells(cfg, ())
    where, jobs = "ws://127.0.0.1:3000/v1/session", [("cell-01", "a"), ("cell-02", "b")]
    _, told = cell_options(cfg, jobs, where, tmp_path, {"horizon_sim_steps": 80})
    command = cell_command(told)
    line = " ".join(command)
    assert "--url ws://127.0.0.1:3000/v1/session" in line
    assert "--first-seed 951000 --execute-horizon 4" in line
    assert "--robot-option horizon_sim_steps=80" in line
    assert "--realtime" not in line
    assert "--spool" in line
    assert f"--audit {tmp_path}/undigested/audit/cell-02" in line
    read = CellOptions.read(command[command.index("serving.workcell") + 1 :], prog="", description="", epilog="")
    assert read == replace(told, parent=os.getpid())  # every option arrives as it was given
    quiet = cell_command(cell_options(replace(cfg, record=False, audit=False), jobs, where, tmp_path, {})[0])
    assert not {"--spool", "--audit"} & set(quiet)


def test_the_image_of_a_package_has_the_python_whose_libraries_were_listed(tmp_path: Path) -> None:
    package._write_bentofile(tmp_path, "arm", "arm/1", "c" * 64)
    document = json.loads((tmp_path / "bentofile.yaml").read_text())
    assert document["docker"]["python_version"] == ".".join(platform.python_version_tuple()[:2])
    assert document["python"]["packages"] == locked(package.LIBRARIES)
