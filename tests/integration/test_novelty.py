"""A robot that sees another scene than its policy was trained on: measured by the policy service, reported, and a rollout ends by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from components.config.recipe import PackageConfig
from components.data.frozen_dataset import load_split
from components.release.package import write_bundle
from model_core.bundle import NOVELTY, read_manifest
from model_core.spec.errors import CheckpointError
from model_core.spec.fleet.documents import EpisodeRecord
from model_core.spec.fleet.release import OfflineRule
from model_core.spec.types import Observation
from serving.cell_files.boot_clock import moment
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import Contact, Permit, write_contact, write_permit
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.workcell.updates import AgentFiles
from tests.fakes import make_embodiment
from tests.faults.real_cell import real_cell
from tests.integration.test_fleet_controller import NEW, PLAN, started, world
from tests.loopback import serve
from tests.tiny_arm_data import INSTRUCTIONS, make_small_contract, write_small_frozen
from tests.tiny_checkpoint import write_tiny_checkpoint

__all__ = ["world"]  # a fixture


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(bundle, frozen set) of an untrained tiny policy."""
    root = tmp_path_factory.mktemp("novelty")
    frozen = write_small_frozen(root / "frozen", make_small_contract(), train=400, validation=200)
    write_tiny_checkpoint(root / "checkpoint", embodiment=make_embodiment(size=32), instructions=INSTRUCTIONS)
    write_bundle(PackageConfig(golden_probes=1), root / "checkpoint", "tiny/1", root / "bundle", frozen)
    return root / "bundle", frozen


@contextlib.contextmanager
def served(model: LoadedModel) -> Iterator[tuple[str, Gateway]]:
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=0.5))
    with serve(gateway) as address:
        yield address, gateway


def episode(folder: Path, address: str, model: LoadedModel, frozen: Path, *, strange: bool = False) -> EpisodeRecord:
    """One episode of a real cell that sees recorded frames; strange: as its camera shows them upside down, in other colours."""
    split = load_split(frozen, "validation")
    folder.mkdir()
    rule = OfflineRule(then="finish")
    permit = Permit(
        url=f"ws://{address}/v1/session",
        slot="a",
        release=NEW,
        number=1,
        bundle_digest=model.bundle_digest,
        contract_id=model.contract.contract_id,
        offline=rule,
    )
    write_permit(folder / "files", permit)
    write_contact(folder / "files", Contact(at=moment()))
    files = AgentFiles(folder=folder / "files", cell="cell-r", task="pick", patience_s=20.0)
    told = {"instruction": INSTRUCTIONS[0]}
    with real_cell(
        folder, files.first_url(), steps=80, body=model.contract.embodiment, driver=told, deadline_s=5.0, heartbeat_s=5.0
    ) as cell:
        numbers = iter(range(10**6))

        def observe() -> Observation:
            frame = next(numbers) % len(split)
            image = split.images_NVHW3[frame, 0]
            shown = np.ascontiguousarray(255 - image[::-1]) if strange else image
            return Observation(images={"front": shown}, proprio_P=split.proprio_NP[frame], instruction=INSTRUCTIONS[0])

        cell.driver.observe = observe  # type: ignore[method-assign]
        made_cell = cell.connect(60.0)
        with files.episode(made_cell, cell.link) as note:
            cell.begin()
            note(cell.finish(120.0))
        chunks = [one["chunk"] for one in cell.notes() if one["kind"] == "decision" and one["chunk"]]
        assert {"novelty"} <= chunks[0].keys()  # the audit holds it too
    (record,) = FinishedEpisodes(files.folder).oldest(9)
    return record


def test_what_a_robot_sees_is_measured_reported_and_ends_a_rollout(made, world, tmp_path: Path) -> None:
    bundle, frozen = made
    model = open_bundle(bundle)
    assert NOVELTY in read_manifest(bundle).files  # so the digest of the bundle, and of a release, is of it too
    with served(model) as (address, gateway):
        calm = episode(tmp_path / "calm", address, model, frozen)
        strange = episode(tmp_path / "strange", address, model, frozen, strange=True)
        counted = [line for line in gateway.metrics.text().splitlines() if line.startswith("actwright_novelty_count")]
    assert float(counted[0].split()[1]) > 0
    assert calm.novelty is not None
    assert strange.novelty is not None
    assert 0.1 < calm.novelty < 0.9
    assert strange.novelty > 0.99
    for record, expected in ((calm, "running"), (strange, "rolled back")):
        assert_rollout(world, record, expected)


def assert_rollout(world, record: EpisodeRecord, expected: str) -> None:
    """A release whose episodes are like the record, under a guard of novelty alone, by the controller's real rules."""
    if not world.cells:
        started(world, {**PLAN, "guards": {"novelty": 0.3}, "stages": [{"name": "one", "cells": 1, "minimum_episodes": 500}]})
    for _ in range(30):
        world.now[0] += 30.0
        for cell in world.cells:
            own = cell.episode(world.now[0], world.rng)
            if own.release == NEW:
                cell.waiting[-1] = type(own)(**{**{f: getattr(own, f) for f in own.__struct_fields__}, "novelty": record.novelty})
            world.send(cell)
        world.look()
        if world.rollout()["status"] != "running":
            break
    status = world.rollout()
    assert status["status"] == expected, status
    assert "novelty" in status["guards"]
    if expected == "rolled back":
        assert "novelty" in status["reason"]
    else:
        assert status["guards"]["novelty"].startswith("0 of ")


def test_a_bundle_without_a_reference_measures_nothing_and_serves(made, tmp_path: Path) -> None:
    bundle, frozen = made
    model = open_bundle(bundle)
    older = LoadedModel(policy=model.policy, contract=model.contract, model_version="tiny/1", probes=model.probes, bundle_digest="")
    with served(older) as (address, _):
        record = episode(tmp_path / "older", address, older, frozen)
    assert record.novelty is None
    assert record.steps > 0


def test_a_bundle_with_a_broken_reference_is_never_served(made, tmp_path: Path) -> None:
    import json
    import shutil

    from model_core.bundle import MANIFEST, file_digests

    bundle = tmp_path / "bundle"
    shutil.copytree(made[0], bundle)
    (bundle / NOVELTY).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="is not what was packed"):
        open_bundle(bundle)
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "files": file_digests(bundle)}))
    with pytest.raises(CheckpointError, match="is no reference for novelty"):
        open_bundle(bundle)
