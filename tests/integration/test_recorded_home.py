"""What commit aa4ee54 left behind still opens, with the values that its own readers gave (tests/golden/home_aa4ee54/README.md).

A value that changes here is a home that users cannot open any more: say in the message what to do, or keep the reader.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from components.artifacts.files import sha256_file
from components.artifacts.step_store import StepStore
from components.config.records import Silent
from components.config.stages import STAGE_NAMES
from flows.pipeline import stage_records as records
from model_core.spec.documents import to_document

GIVEN = Path(__file__).parents[1] / "golden" / "home_aa4ee54"
EXPECTED = json.loads((GIVEN / "EXPECTED.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A copy: readers move damaged steps aside, and MLflow may migrate its database."""
    folder = tmp_path_factory.mktemp("recorded") / "root"
    shutil.copytree(GIVEN, folder)
    return folder


@pytest.fixture(scope="module")
def store(root) -> StepStore:
    return StepStore(root / "home" / "store")


@pytest.fixture(scope="module")
def steps(store) -> dict[str, Any]:
    return {stage: store.steps(stage)[-1] for stage in STAGE_NAMES}


@pytest.fixture
def actwright(root, monkeypatch):
    """Run a command on the recorded home; returns (exit code, the JSON line or {}, everything printed)."""
    from flows.commands.main import command_line

    for name, folder in (("HOME", "home"), ("RUNS", "run_folders"), ("DATA", "data")):
        monkeypatch.setenv(f"ACTWRIGHT_{name}", str(root / folder))
    monkeypatch.setenv("ACTWRIGHT_STORAGE", f"folder:{root / 'objects'}")

    def call(*words: object) -> tuple[int, dict[str, Any], str]:
        done = CliRunner().invoke(command_line(), [str(word) for word in words])
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return done.exit_code, json.loads(lines[-1]) if lines else {}, done.output

    return call


def digest_of_array(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def holds(found: Any, expected: Any, where: str = "") -> None:
    """`found` has everything of `expected`, with equal values; it may have new fields."""
    if isinstance(expected, Mapping):
        for name, value in expected.items():
            assert name in found, f"{where}.{name} is gone"
            holds(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, (one, value) in enumerate(zip(found, expected, strict=True)):
            holds(one, value, f"{where}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6), where
    else:
        assert found == expected, where


def test_every_step_is_found_with_its_digest_inputs_and_files(store):
    for stage, expected in EXPECTED["store"].items():
        [step] = store.steps(stage)
        manifest = step.manifest
        assert (manifest.key, manifest.digest, dict(manifest.inputs)) == (expected["key"], expected["digest"], expected["inputs"])
        assert len(manifest.outputs) == expected["outputs"]
        if expected["whole"]:  # the package was recorded without the copy of the source that a Bento holds
            assert store.find(stage, manifest.key, thorough=True) is not None


def test_the_raw_data_set_reads_as_recorded(steps):
    from components.artifacts.files import dataset_digest
    from components.data.lerobot.reader import DatasetReader

    expected, folder = EXPECTED["dataset"], steps["collect"].path / "dataset"
    reader = DatasetReader(folder)
    assert (len(reader), reader.frames, reader.fps) == (expected["episodes"], expected["frames"], expected["fps"])
    assert list(reader.cameras) == expected["cameras"]
    assert list(reader.instructions) == expected["instructions"]
    assert dataset_digest(folder) == expected["digest"]
    for index, row in enumerate(expected["rows"]):
        same_episode(reader.episode(index), row)


def same_episode(episode: Any, expected: Mapping[str, Any]) -> None:
    assert (episode.episode_id, episode.task, episode.instruction) == (expected["episode_id"], expected["task"], expected["instruction"])
    assert (episode.success, episode.embodiment) == (expected["success"], expected["embodiment"])
    assert (episode.provenance.producer, episode.provenance.seed) == (expected["producer"], expected["seed"])
    arrays = {name: getattr(episode, name) for name in ("actions_TA", "executed_TA", "proprio_TP")}
    arrays |= {f"images.{name}": frames for name, frames in episode.images.items()}
    arrays |= {f"depth_m.{name}": frames for name, frames in episode.depth_m.items()}
    assert {name: digest_of_array(array) for name, array in arrays.items()} == expected["sha256"]


def test_labels_read_as_recorded(steps):
    from components.data.labels import read_labels

    found = read_labels(steps["annotate"].path / "labels")
    assert found.keys() == EXPECTED["labels"].keys()
    for episode, expected in EXPECTED["labels"].items():
        assert digest_of_array(found[episode].codes_TG) == expected["codes"]
        assert digest_of_array(found[episode].trace_T52) == expected["trace"]


def test_the_frozen_data_set_reads_as_recorded(steps):
    from components.data.frozen_dataset import load_split, read_frozen

    expected, folder = EXPECTED["frozen"], steps["freeze"].path
    _, contract = read_frozen(folder)
    assert (contract.contract_id, contract.policy_id) == (expected["contract_id"], expected["policy_id"])
    holds(to_document(records.read_dataset(steps["freeze"])), expected["record"], "dataset")
    for split, parts in expected["splits"].items():
        rows = load_split(folder, split)
        arrays = {"images": rows.images_NVHW3, "actions": rows.actions_NKA, "depth_codes": rows.depth_codes_NG, "trace": rows.trace_N52}
        assert {name: digest_of_array(array) for name, array in arrays.items()} == {name: parts[name] for name in arrays}


def test_the_checkpoint_loads_as_recorded(steps):
    from components.artifacts.step_manifest import checkpoint_digest
    from model_core.checkpoint import load_checkpoint

    expected, folder = EXPECTED["checkpoint"], steps["train"].path / "checkpoint"
    checkpoint = load_checkpoint(folder)
    assert checkpoint_digest(folder) == expected["digest"]
    assert sha256_file(folder / "model.safetensors") == expected["weights_sha256"]
    assert sum(p.numel() for p in checkpoint.model.parameters()) == expected["parameters"]
    assert (checkpoint.contract.contract_id, checkpoint.contract.policy_id) == (expected["contract_id"], expected["policy_id"])
    assert records.read_contract(steps["train"]).contract_id == expected["contract_of_step"]
    record = {name: value for name, value in expected["record"].items() if name != "ended_because"}  # printed and never set
    holds(to_document(records.read_train_run(steps["train"])), record, "train")


def test_the_records_of_evaluation_gate_and_workcells_read_as_recorded(steps):
    report = to_document(records.read_report(steps["evaluate"]))
    expected = EXPECTED["evaluation"]
    assert [report["successes"], report["trials"], report["per_task"]] == [expected[n] for n in ("successes", "trials", "per_task")]
    holds(report["episodes"][0], expected["episodes"][0], "episode")
    assert expected["blindness"] in report.values(), "the image-swap measures are kept under some name"
    holds(to_document(records.read_verdict(steps["gate"])), EXPECTED["verdict"], "verdict")
    holds(to_document(records.read_model_version(steps["gate"])), EXPECTED["model_version"], "model version")
    for row, recorded in zip(records.read_workcells(steps["workcells"]), EXPECTED["workcells"], strict=True):
        holds(to_document(row), recorded, "workcell")


def test_the_bundle_opens_and_its_golden_probes_pass(steps):
    from components.release.bundle import find_packed
    from serving.gateway.inference.bundle import open_bundle
    from serving.gateway.inference.golden_probes import failed_golden_probes

    expected = EXPECTED["bundle"]
    packed = find_packed(steps["package"].path / "bento")
    assert (packed.model_version, packed.digest, packed.reasoning) == (expected["model_version"], expected["digest"], expected["reasoning"])
    assert packed.bundle is not None
    loaded = open_bundle(packed.bundle)
    assert (loaded.contract.contract_id, loaded.contract.policy_id) == (expected["contract_id"], expected["policy_id"])
    assert loaded.bundle_digest == expected["bundle_digest_of_service"]
    assert failed_golden_probes(loaded.policy, loaded.contract, loaded.probes) == []


def test_the_contract_and_the_commissioning_of_a_cell_read_as_recorded(root):
    from model_core.spec.contract import PolicyContract
    from serving.workcell.motion.commissioning import read

    contract = PolicyContract.from_json(json.loads((root / "contract.json").read_text(encoding="utf-8")))
    assert {"contract_id": contract.contract_id, "policy_id": contract.policy_id} == EXPECTED["contract_document"]
    commissioned = read(root / "commissioning.json")
    assert {name: getattr(commissioned, name) for name in EXPECTED["commissioning"]} == EXPECTED["commissioning"]


def test_recordings_decode_and_are_taken_in(root, tmp_path):
    from components.data.frozen_dataset import read_frozen
    from components.data.ingest import IngestOptions, ingest
    from model_core.spec.protocol.episode_file import decode_episode

    for expected in EXPECTED["recordings"]:
        same_episode(decode_episode((root / expected["file"]).read_bytes()), expected)
    [folder] = (root / "home" / "store" / "freeze").glob("*")
    _, contract = read_frozen(folder)
    options = IngestOptions(embodiment=contract.embodiment, keep_failures=True)
    taken = ingest([root / EXPECTED["ingest"]["source"]], tmp_path / "out", Silent(), options)
    counted = {name: value for name, value in EXPECTED["ingest"]["record"].items() if name != "version"}  # a digest of files written today
    holds(to_document(taken), counted, "ingest")


FIRST, *OTHERS = EXPECTED["audits"]


@pytest.mark.parametrize(
    "expected",
    [FIRST, *(pytest.param(audit, marks=pytest.mark.soak) for audit in OTHERS)],  # short: the first of them
    ids=lambda audit: Path(audit["file"]).parent.name,
)
def test_an_audit_is_proven_and_the_policy_gives_the_same_answers(root, steps, expected):
    from components.artifacts.audit_files import read_audit
    from components.deployment.audit_replay import ask_all, open_packed
    from components.release.bundle import find_packed

    found = read_audit(root / expected["file"])
    assert (found.is_proven, found.problem, found.tip) == (expected["proven"], expected["problem"], expected["tip"])
    assert (len(found.records), len(found.frames)) == (expected["records"], expected["frames"])
    kinds = [record.kind.value for record in found.records]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected["kinds"]
    again = ask_all(found, open_packed(find_packed(steps["package"].path / "bento"), found))
    assert again == expected["asked_again"]


def test_the_registry_knows_its_champion(root):
    from components.adapters.mlflow.registry import MlflowRegistry
    from components.adapters.mlflow.server import TrackingAddress

    registry = MlflowRegistry(TrackingAddress(home=root / "home"))
    holds(to_document(registry.champion(EXPECTED["registry"]["name"])), EXPECTED["registry"]["champion"], "champion")
    assert len(registry.versions(EXPECTED["registry"]["name"])) == len(EXPECTED["registry"]["versions"])


def test_recorded_observations_load(root):
    from components.evaluation.observation_recording import load_recording

    expected = EXPECTED["observations"]
    seen = load_recording(root / expected["file"])
    assert (len(seen), len(seen.sessions()), list(seen.instructions)) == (
        expected["decisions"],
        expected["sessions"],
        expected["instructions"],
    )
    assert digest_of_array(seen.proprio_TP) == expected["proprio"]
    assert {name: digest_of_array(frames) for name, frames in seen.images.items()} == expected["images"]


def test_the_recipe_is_read_or_a_message_says_what_to_do(root):
    from flows.pipeline.recipes import read_recipe

    recipe = read_recipe(root / "recipe.json")
    assert recipe.name == EXPECTED["recipe"]["name"]
    assert recipe.collect.tasks == ("drawer-close-v3",)
    assert recipe.train.network["width"] == 16


def test_commands_work_on_the_recorded_home(actwright, root):
    code, told, _ = actwright("show", "train")
    assert (code, told["digest"]) == (0, EXPECTED["store"]["train"]["digest"])
    code, told, printed = actwright("audit", "verify", root / "audit")
    assert (code, told["proven"], len(told["files"])) == (0, True, 2), printed
    code, told, _ = actwright("audit", "list", root / "audit")
    listed = [{name: row[name] for name in ("cell", "episode_id", "decisions", "sealed")} for row in told["episodes"]]
    recorded = [audit["listed"] for audit in EXPECTED["audits"] if audit["file"].startswith("audit/")]
    assert listed == [{name: row[name] for name in ("cell", "episode_id", "decisions", "sealed")} for row in recorded]
    code, told, _ = actwright("recipe", root / "recipe.json")
    assert (code, told["recipe"]) == (0, EXPECTED["recipe"]["name"])


def test_the_summary_of_the_run_is_found(actwright, root):
    expected = EXPECTED["summary"]
    (root / "run_folders" / "latest").symlink_to(Path(expected["file"]).parent.name)
    code, told, _ = actwright("report")
    assert (code, told["run"], told["verdict"]) == (0, expected["name"], expected["promote"])


@pytest.mark.slow
def test_a_registered_version_whose_bundle_is_gone_is_packed_from_its_checkpoint(root, tmp_path, monkeypatch):
    from components.artifacts.step_manifest import checkpoint_digest
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.settings import load_settings
    from flows.platform.wiring import open_platform

    shutil.copytree(root / "home", tmp_path / "home", ignore=shutil.ignore_patterns("package"))
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    found = packed_model(open_platform(load_settings()), f"{EXPECTED['registry']['name']}/1")
    assert found.bundle is not None
    assert checkpoint_digest(found.checkpoint) == EXPECTED["registry"]["champion"]["checkpoint_digest"]
