"""`dvc repro` and the flow are two drivers of the same functions: the same digests, the same hashes in dvc.lock.

Run: .venv/bin/python -m pytest tests/integration/test_dvc_repro.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.adapters.dvc import DvcStore
from components.artifacts.step_manifest import MANIFEST
from components.config.stages import DATA_STAGES
from tests.integration.loop_runs import Home

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("loop")]


@pytest.mark.soak  # short: test_kill_resume makes the data by commands, test_dvc_files holds versions against DVC's program
def test_dvc_repro_gives_the_digests_of_the_flow(undisturbed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flow_root = undisturbed.root / "work"
    recorded = DvcStore(flow_root).version()

    (tmp_path / "data").mkdir()
    shutil.copy(flow_root / "data" / "recipe.json", tmp_path / "data")
    for name in ("home", "runs", "data"):
        monkeypatch.setenv(f"ACTWRIGHT_{name.upper()}", str(tmp_path / name))
    dvc = DvcStore(tmp_path)
    dvc.prepare()
    dvc.repro()

    digests = undisturbed.digests()
    for stage in DATA_STAGES:
        manifest = json.loads((tmp_path / "data" / stage / MANIFEST).read_text())
        assert manifest["digest"] == digests[stage], stage
    assert dvc.version() == recorded
    assert "up to date" in dvc.repro()
