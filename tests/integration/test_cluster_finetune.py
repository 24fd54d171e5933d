"""The fine-tune of MolmoAct on a cluster by its command: planned, rendered, trained by two nodes in two network namespaces, served (soak).

Names, addresses and interfaces exist only inside the namespaces that the test makes. Skips where they cannot be made.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.config.data_config import VqvaeConfig
from components.config.recipe import Recipe
from components.config.source_config import SourceConfig
from components.deployment.probe import probe
from components.deployment.service_address import ServiceCredentials
from components.training.job import JobFiles
from flows.pipeline.recipes import get_recipe
from model_core.adoption.document import read_adoption
from model_core.spec.protocol.wire import Chunk
from tests.fake_kube import IMAGE, FakeKube
from tests.integration.loop_runs import Home, serving
from tests.integration.test_own_data import by_models
from tests.kubelets import Kubelets, kubeconfig
from tests.namespaces import needs_namespaces, two_hosts
from tests.road import SETS, command, described, write_recipe
from tests.unit.test_published_training import NETWORK

pytestmark = pytest.mark.xdist_group("ranks")
JOB = "train-molmoact-finetune"


def small_finetune(root: Path, embodiment: Path) -> Recipe:
    """`molmoact_finetune` on three episodes of a set with two cameras, labelled by models; two processes, adapters of a small network."""
    recipe = get_recipe("molmoact_finetune")
    published = replace(recipe.train.published, validation_samples=1, open_loop_samples=1, loss_rows=64)
    few = {"steps": 4, "warmup_steps": 1, "global_batch": 4, "micro_batch": 2, "checkpoint_every": 2, "log_every": 1, "world_size": 2}
    return replace(
        recipe,
        data=(SourceConfig(name="own", path=str(SETS / "v21"), embodiment=str(embodiment), include=("0:3",)),),
        annotate=replace(by_models(root), vqvae=VqvaeConfig(steps=20, frames=40)),
        freeze=replace(recipe.freeze, validation_fraction=0.4),
        train=replace(recipe.train, network=NETWORK, lora_rank=4, precision="fp32", threads=1, published=published, **few),
    )


@pytest.mark.soak  # short: test_cluster_commands renders the job from the plan, test_two_nodes runs two ranks, test_train_published trains
@pytest.mark.timeout(900)
def test_two_nodes_tune_a_small_published_network_that_is_then_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_namespaces()
    home = Home(tmp_path)
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the manifest's command is `python`
    for name, value in {**home.environment, "PATH": places}.items():
        monkeypatch.setenv(name, value)
    path = write_recipe(small_finetune(tmp_path, described("v21", tmp_path)), tmp_path)
    with FakeKube() as kube, two_hosts([f"{JOB}-0.{JOB}", f"{JOB}-1.{JOB}"]) as spaces:
        kube.furnish()
        kubelets = Kubelets(kube, spaces, tmp_path)
        kubelets.start()
        try:
            told = command("cluster", "train", path, "--kubeconfig", kubeconfig(tmp_path, kube.url), "--image", IMAGE)
        finally:
            kubelets.stop()
    assert told["job"] == JOB
    assert kube.pods() == []
    out = Path(told["path"])
    points = [json.loads(line) for line in JobFiles(out).metrics.read_text().splitlines()]
    assert [point["step"] for point in points if "loss" in point] == [1, 2, 3, 4]
    assert all("validation_action_error/gripper" in point for point in points if "validation_loss" in point)
    assert json.loads((out / "step.json").read_text())["record"]["parameters"]["all"] > 0
    checkpoint = out / "checkpoint"
    assert {"tokenizer.json", "processor_config.json"} <= set(read_adoption(checkpoint).files)
    with serving(tmp_path, home.environment, str(checkpoint), "--port", "0") as (_, served):
        answer = probe(served["policy"], ServiceCredentials(timeout_s=60)).answer
    assert isinstance(answer, Chunk)
    assert answer.actions_KA.shape == (8, 7)
