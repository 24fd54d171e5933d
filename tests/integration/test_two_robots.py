"""Two robots of different numbers, cameras and image sizes train one network; each is released from it, and served to its own cells only.

Run: .venv/bin/python -m pytest tests/integration/test_two_robots.py -m "soak or not soak" -n 0
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.config.data_config import NO_LABELS, AnnotateConfig, FreezeConfig, ValidateConfig
from components.config.recipe import EvalConfig, GateConfig, PackageConfig, Recipe
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.data.annotate import annotate
from components.data.freeze import freeze
from components.data.sources.open import open_raw
from components.evaluation.suites.held_out import evaluate_open_loop
from components.release.package import write_bundle
from components.training.tiny_model import make_tiny_arm
from model_core.spec.protocol.wire import Hello, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.sessions.handshake import Accepted, greet
from tests.fakes import make_observation
from tests.integration.loop_runs import Home
from tests.own_data import SENTENCES
from tests.two_robots import GANTRY_SENTENCE, indexed, two_sources

SMALL = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 1, "feed_forward": 64, "projector": 32, "stem": (8, 16)}
NOTHING = AnnotateConfig(depth_annotator=NO_LABELS, point_annotator=NO_LABELS)
VALIDATE = ValidateConfig(min_frames=4, data_docs=False)
FREEZE = FreezeConfig(name="two", validation_fraction=0.2, chunk_length=4, execute_horizon=2)
SENTENCE = {"bench-arm": SENTENCES[0], "gantry": GANTRY_SENTENCE}


def trained(root: Path, *, episodes: int, steps: int) -> tuple[Path, Path]:
    """(frozen set, checkpoint) of both robots after so many steps."""
    raw = indexed(two_sources(root / "robots", episodes), root / "raw")
    (root / "valid.json").write_text(json.dumps({row.episode_id: True for row in open_raw(raw).rows}))
    annotate(NOTHING, raw, root / "valid.json", root / "labels", Silent())
    freeze(FREEZE, raw, root / "labels", root / "frozen", Silent())
    torch.set_num_threads(1)
    arm = make_tiny_arm(TrainConfig(network=SMALL, steps=steps, warmup_steps=1, global_batch=24, micro_batch=24), root / "frozen")
    optimizer = torch.optim.AdamW(arm.module.parameters(), lr=3e-3, betas=(0.9, 0.95))
    rng = np.random.default_rng(0)
    for step in range(steps):
        loss, _ = arm.loss(arm.module, arm.batch(rng.integers(0, arm.num_samples, 24), seed=0, step=step, micro=0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        told = arm.validate(arm.module, samples=16)
    assert {"validation_loss", "validation_loss/bench-arm", "validation_loss/gantry"} <= set(told)
    arm.export(arm.module.state_dict(), root / "checkpoint")
    return root / "frozen", root / "checkpoint"


# short: too few steps to learn anything
@pytest.mark.parametrize(("steps", "error_ratio"), [(12, np.inf), pytest.param(150, 0.8, marks=pytest.mark.soak)])
def test_one_network_acts_for_two_robots_and_each_release_for_one(tmp_path: Path, steps: int, error_ratio: float) -> None:
    frozen, checkpoint = trained(tmp_path, episodes=12, steps=steps)
    cfg = EvalConfig(reasoning="action", image_swap_frames=8, min_image_swap_change=0.0, execute_horizon=2)
    record = evaluate_open_loop(cfg, checkpoint, frozen, tmp_path / "evaluated", Silent())
    for name, report in record["embodiments"].items():
        assert 0 < report["open_loop"]["error_ratio"] < error_ratio, name
        assert json.loads((tmp_path / "evaluated/embodiments" / name / "report.json").read_text()) == report
    models = {}
    for name in ("bench-arm", "gantry"):
        package = PackageConfig(reasoning="action", golden_probes=2, embodiment=name)
        write_bundle(package, checkpoint, f"{name}/1", tmp_path / name, frozen)
        models[name] = open_bundle(tmp_path / name)
    for name, other in (("bench-arm", "gantry"), ("gantry", "bench-arm")):
        model = models[name]
        ready = Ready(session_id="s", epoch=1, contract=model.contract, model_version=model.model_version)
        body, foreign = model.contract.embodiment, models[other].contract.embodiment
        assert isinstance(greet(Hello(cell="own", epoch=1, embodiment=body), ready), Accepted)
        refused = greet(Hello(cell="other", epoch=1, embodiment=foreign), ready)
        assert isinstance(refused, Reject)
        assert refused.code is RefusalCode.CONTRACT
        seen = make_observation(body)
        chunk = model.policy.decide(replace(seen, instruction=SENTENCE[name])).chunk
        assert chunk is not None
        assert chunk.actions_KA.shape == (4, len(body.action))
        refusal = model.policy.decide(replace(seen, instruction=SENTENCE[other])).refusal
        assert refusal is not None, "a word of the other robot was never taught to this one"
        assert "does not know the word" in refusal.reason


def recipe_of(root: Path, *, steps: int, episodes: int) -> Path:
    """A recipe file of both robots, which names no release."""
    made = Recipe(
        name="two",
        data=tuple(two_sources(root / "robots", episodes)),
        validate=VALIDATE,
        annotate=NOTHING,
        freeze=FREEZE,
        train=TrainConfig(
            network={**SMALL, "stem": list(SMALL["stem"])},
            steps=steps,
            global_batch=24,
            micro_batch=12,
            warmup_steps=max(1, steps // 10),
            learning_rate=3e-3,
            threads=1,
        ),
        evaluate=EvalConfig(reasoning="action", image_swap_frames=16, min_image_swap_change=0.0, execute_horizon=2),
        gate=GateConfig(max_open_loop_error=0.6, min_image_swap_change=0.4),
        package=PackageConfig(model_name="two", reasoning="action", golden_probes=2),
    )
    path = root / "two.json"
    path.write_text(json.dumps(made.to_json()))
    return path


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_whole_road_of_two_robots_by_commands(tmp_path: Path) -> None:
    home = Home(tmp_path)
    path = recipe_of(tmp_path, steps=400, episodes=20)
    refused = home.actwright("run", str(path), timeout_s=900)
    assert refused.returncode != 0
    assert "the data hold 2 embodiments (bench-arm, gantry)" in refused.stderr
    assert not (tmp_path / "home/store/train").exists()
    bentos = {}
    for name in ("bench-arm", "gantry"):
        change = ("--set", f"package.embodiment={name}", "--set", f"package.model_name={name}")
        done = home.actwright("run", str(path), *change, timeout_s=1500)
        assert done.returncode == 0, done.stderr[-4000:]
        assert json.loads(done.stdout)["verdict"] == "promote", done.stderr[-3000:]
        bentos[name] = sorted((tmp_path / "home/store/package").glob("*/bento"), key=lambda bento: bento.stat().st_mtime)[-1]
    assert len(list((tmp_path / "home/store/train").glob("*/step.json"))) == 1
    curve = [json.loads(line) for line in next((tmp_path / "home/store/train").glob("*/metrics.jsonl")).read_text().splitlines()]
    assert any({"loss/bench-arm", "loss/gantry"} <= set(point) for point in curve)
    contracts = {name: next(bento.rglob("bundle/contract.json")) for name, bento in bentos.items()}
    service = home.start("serve", str(bentos["gantry"]), "--port", "0")
    try:
        assert service.stdout is not None
        told = json.loads(service.stdout.readline())

        def cell(name: str) -> tuple[int, str]:
            done = home.actwright(
                *("workcell", "run", "--robot", "strict", "--option", f"contract={contracts[name]}", "--option", "steps=6"),
                *("--task", SENTENCE[name], "--url", told["policy"], "--deadline-ms", "30000", "--result", str(tmp_path / f"{name}.json")),
            )
            return done.returncode, done.stdout + done.stderr

        code, said = cell("gantry")
        assert code == 0, said[-3000:]
        assert json.loads((tmp_path / "gantry.json").read_text())["refusals"] == 0
        code, said = cell("bench-arm")
        assert code != 0
        assert "does not fit contract" in said
    finally:
        service.terminate()
        service.wait(60)
    checkpoint = next((tmp_path / "home/store/train").glob("*/checkpoint"))
    unnamed = home.actwright("serve", str(checkpoint), "--port", "0")
    assert unnamed.returncode != 0
    assert "acts for 2 embodiments (bench-arm, gantry)" in unnamed.stderr
