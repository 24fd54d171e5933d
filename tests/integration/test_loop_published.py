"""The whole loop with a small network of the published layout: it is trained, judged, packed, served and drives the simulated cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.adoption.document import read_adoption
from tests.integration.loop_runs import SMALL, Home

# `loop_published` with as little of everything as `miniature` has, and a gate that lets an untrained policy through
LESS = (
    *SMALL,
    *("collect.horizon_sim_steps=160", "collect.workers=1", "annotate.vqvae.steps=8", "annotate.vqvae.batch=8", "annotate.vqvae.frames=64"),
    *("train.global_batch=4", "train.micro_batch=4", "train.checkpoint_every=3", "train.threads=1", "evaluate.workers=1"),
    *("evaluate.image_swap_frames=4", "evaluate.min_image_swap_change=0.0", "gate.floor=0.0", "gate.margin=1.0"),
    *("gate.max_refusal_rate=1.0", "gate.min_image_swap_change=0.0", "package.golden_probes=2", "workcells.episodes_per_cell=1"),
    "workcells.deadline_ms=60000",
)
STAGES = ["collect", "validate", "annotate", "freeze", "train", "evaluate", "gate", "package", "workcells", "report"]


@pytest.mark.soak  # short: test_published_training answers from the folder that a training wrote, test_published_commands serves one
def test_a_published_network_goes_through_every_stage(tmp_path: Path) -> None:
    home = Home(tmp_path)
    done = home.actwright("run", "loop_published", *(word for change in LESS for word in ("--set", change)), timeout_s=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["verdict"] == "promote"
    summary = home.summary()
    assert list(summary["stages"]) == STAGES
    assert not any(stage["cached"] for stage in summary["stages"].values())
    (trained,) = (tmp_path / "home" / "store").glob("train/*/checkpoint")
    assert read_adoption(trained).language.wording == "released"
    assert json.loads((trained / "contract.json").read_text())["reasoning"]["spelling"] == "published"
    assert [cell["refusals"] for cell in summary["workcells"]] == [0, 0]
    assert all(cell["decisions"] >= 1 and cell["p50_ms"] > 0 for cell in summary["workcells"])
