"""`dvc repro` and the flow are two drivers of the same functions: the same digests, the same hashes in dvc.lock.

Run: .venv/bin/python -m pytest tests/integration/test_dvc_repro.py
"""

import json
from dataclasses import replace

import pytest

from components.adapters.dvc import DvcStore
from components.artifacts.step_manifest import MANIFEST
from components.artifacts.step_store import StepStore
from components.config.records import Silent
from components.config.stages import DATA_STAGES
from flows.pipeline.dvc_data import carry_out
from flows.pipeline.recipes import get_recipe
from flows.pipeline.stages import data as stages
from flows.platform.settings import Settings
from flows.platform.wiring import Platform

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("s3")]


def test_dvc_repro_gives_the_digests_of_the_flow(tmp_path, monkeypatch):
    recipe = get_recipe("miniature")
    recipe = replace(
        recipe,
        collect=replace(recipe.collect, tasks=("drawer-close-v3",), episodes_per_task=3, image_size=48),
        validate=replace(recipe.validate, min_frames=4),
    )
    document = json.dumps(recipe.to_json(), indent=1, sort_keys=True) + "\n"

    flow_root = tmp_path / "flow"
    settings = Settings(home=flow_root / "home", runs=flow_root / "runs", data=flow_root / "data")
    platform = Platform(settings=settings, store=StepStore(settings.store_root))
    raw = stages.collect_step(platform, recipe, Silent()).step
    valid = stages.validate_step(platform, recipe, raw, Silent()).step
    labels = stages.annotate_step(platform, recipe, raw, valid, Silent()).step
    frozen = stages.freeze_step(platform, recipe, raw, labels, Silent()).step
    made = dict(zip(DATA_STAGES, (raw, valid, labels, frozen), strict=True))
    settings.data.mkdir(parents=True)
    (settings.data / "recipe.json").write_text(document)
    for step in made.values():
        carry_out(step, settings.data)
    kept = DvcStore(flow_root)
    kept.prepare()
    recorded = kept.record()

    dvc_root = tmp_path / "dvc"
    (dvc_root / "data").mkdir(parents=True)
    (dvc_root / "data" / "recipe.json").write_text(document)
    for name in ("home", "runs", "data"):
        monkeypatch.setenv(f"ACTWRIGHT_{name.upper()}", str(dvc_root / name))
    dvc = DvcStore(dvc_root)
    dvc.prepare()
    dvc.repro()

    for stage, step in made.items():
        manifest = json.loads((dvc_root / "data" / stage / MANIFEST).read_text())
        assert manifest["digest"] == step.digest, stage
        assert manifest["outputs"] == dict(step.manifest.outputs), stage
    assert dvc.version() == recorded
    assert "up to date" in dvc.repro()
