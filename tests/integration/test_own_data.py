"""The road of a team with recordings and no simulator: a folder and a signed file in, a served policy and a cell of that robot out.

Run: .venv/bin/python -m pytest tests/integration/test_own_data.py -m "soak or not soak"
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe
from components.config.source_config import SourceConfig
from components.config.train_config import TrainConfig
from tests.integration.loop_runs import Home
from tests.own_data import CAMERAS, write_embodiment, write_own_set


def recipe_of(root: Path, *, steps: int, episodes: int) -> Path:
    """A recipe file beside a set of so many episodes and its embodiment file."""
    write_own_set(root / "set", episodes)
    source = SourceConfig(name="bench", path=str(root / "set"), embodiment=str(write_embodiment(root / "bench-arm.yaml")), cameras=CAMERAS)
    network = {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "feed_forward": 128, "projector": 64, "stem": [16, 32]}
    made = Recipe(
        name="own",
        data=(source,),
        validate=ValidateConfig(min_frames=4, data_docs=False),
        annotate=AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS),
        freeze=FreezeConfig(name="own", validation_fraction=0.2, chunk_length=4, execute_horizon=2),
        train=TrainConfig(
            network=network, steps=steps, global_batch=32, micro_batch=32, warmup_steps=steps // 10, learning_rate=3e-3, threads=1
        ),
        evaluate=EvalConfig(reasoning="action", image_swap_frames=16, min_image_swap_change=0.0, execute_horizon=2),
        gate=GateConfig(max_open_loop_error=0.5, min_image_swap_change=0.5),
        package=PackageConfig(model_name="bench-arm", reasoning="action", golden_probes=2),
    )
    path = root / "own.json"
    path.write_text(json.dumps(made.to_json()))
    return path


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_folder_becomes_a_served_policy_that_a_cell_acts_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = recipe_of(tmp_path, steps=900, episodes=60)
    done = home.actwright("run", str(path), timeout_s=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["verdict"] == "promote", done.stderr[-3000:]
    summary = home.summary()
    assert summary["evaluation"]["open_loop"]["error_ratio"] <= 0.5
    assert set(summary["stages"]) == {"collect", "validate", "annotate", "freeze", "train", "evaluate", "gate", "package", "report"}
    assert "of the mean action&#39;s error" in (tmp_path / "runs/latest/report.html").read_text()
    bento = next((tmp_path / "home/store/package").glob("*/bento"))
    contract = next(bento.rglob("bundle/contract.json"))
    assert json.loads(contract.read_text())["reasoning"]["levels"] == ["action"]
    service = home.start("serve", str(bento), "--port", "0")
    try:
        assert service.stdout is not None
        told = json.loads(service.stdout.readline())
        cell = home.actwright(
            *("workcell", "run", "--robot", "strict", "--option", f"contract={contract}", "--option", "steps=6"),
            *("--task", "follow the red square", "--url", told["policy"], "--deadline-ms", "30000", "--result", "cell.json"),
        )
        assert cell.returncode == 0, cell.stderr[-3000:]
        assert json.loads(cell.stdout)["episodes"] == 1
    finally:
        service.terminate()
        service.wait(60)


def test_what_a_person_has_not_confirmed_is_not_trained_on(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, steps=10, episodes=3)
    described = tmp_path / "bench-arm.yaml"
    described.write_text(described.read_text().replace("open: 1.0}", 'open: {confirm: "which value opens it?"}}'))
    done = Home(tmp_path).actwright("train", str(path))
    assert done.returncode != 0
    assert "which value opens it?" in done.stderr
    assert not (tmp_path / "home/store/train").exists()
