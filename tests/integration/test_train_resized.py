"""A training that is stopped and taken up by other numbers of processes, and at other ZeRO stages: 2 -> 1 -> 4 -> 2.

The samples are the same by their ids, in order, each once; the losses are those of one process that was never stopped; frozen weights and
buffers, which each attempt builds anew with other numbers, are those of the first attempt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from components.adapters.kubernetes import KubernetesCluster, Patience
from components.config.launch.cluster_job import JobSpec
from components.config.records import Silent
from components.config.train_config import TrainConfig
from components.training.job import JobFiles, TrainingTask
from components.training.on_cluster import train_on_cluster
from model_core.spec.errors import JobError
from tests.fake_kube import IMAGE, FakeKube
from tests.faults.fork_server import ForkServer
from tests.kubelets import Kubelets
from tests.namespaces import needs_namespaces, two_hosts
from tests.tiny_arm_data import make_small_contract, write_small_frozen
from tests.training_rank import train_as_a_rank
from tests.unit.test_published_training import NETWORK, PUBLISHED

pytestmark = pytest.mark.xdist_group("ranks")

Train = Callable[[TrainingTask], dict[str, Any]]

PROCESSES = (2, 1, 4, 2)
CONFIG = TrainConfig(
    steps=12, global_batch=8, micro_batch=2, warmup_steps=2, checkpoint_every=100, log_every=5, precision="fp32", threads=1,
    learning_rate=0.01, weight_decay=0.3, gradient_clip=0.5,
)  # fmt: skip
# of each part its own rate, decay and clipping; the tower's weights are larger, so that one clip for all would show
LORA = replace(
    CONFIG, network=NETWORK, lora_rank=4, published=replace(PUBLISHED, open_loop_samples=0, validation_samples=1), learning_rate=5e-3
)


def train_resized(train: Train, config: TrainConfig, model: str, folder: Path, shapes: Sequence[tuple[int, int]]) -> Path:
    """Train with each (processes, ZeRO stage) for an equal part of the steps; returns the folder of the training."""
    (folder / "ids").mkdir(exist_ok=True)
    each = config.steps // len(shapes)
    for attempt, (world_size, stage) in enumerate(shapes):
        last = attempt == len(shapes) - 1
        (folder / "plan.json").write_text(json.dumps({"attempt": attempt, "stop_at": -1 if last else (attempt + 1) * each - 1}))
        shaped = replace(config, world_size=world_size, zero_stage=stage)
        task = TrainingTask(config=shaped, frozen=folder / "frozen", out=folder / "out", model=f"tests.resized_training:{model}")
        if last:
            assert train(task)["steps"] == config.steps
        else:
            with pytest.raises(JobError, match="asked to stop and saved a checkpoint"):
                train(task)
    return folder


def losses(folder: Path) -> list[float]:
    return [point["loss"] for line in JobFiles(folder / "out").metrics.read_text().splitlines() if "loss" in (point := json.loads(line))]


def check_as_unbroken(resized: Path, unbroken: Path, *, rel: float, steps: int = CONFIG.steps) -> None:
    from tests.resized_training import noted

    assert noted(resized) == noted(unbroken)
    assert len(losses(resized)) == steps
    assert losses(resized) == pytest.approx(losses(unbroken), rel=rel)
    mine, theirs = (load_file(JobFiles(one / "out").checkpoint / "model.safetensors") for one in (resized, unbroken))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert (value - theirs[name]).abs().max() <= 50 * rel * max(1e-3, float(theirs[name].abs().max())), name


@pytest.fixture(scope="module")
def unbroken(ranks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "frozen").mkdir()
    (folder / "frozen" / "toy.json").write_text("{}")
    return train_resized(partial(train_as_a_rank, ranks), CONFIG, "make_joined", folder, [(1, 0)])


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param((3, 0), id="of two processes one"),
        pytest.param((3, 0, 1, 2), id="another stage each time", marks=pytest.mark.soak),
        *(pytest.param((stage,) * 4, id=f"stage {stage}", marks=pytest.mark.soak) for stage in range(4)),
        pytest.param((0, 2, 3, 1), id="other stages", marks=pytest.mark.soak),
    ],
)
def test_a_training_goes_on_with_other_numbers_of_processes(
    ranks: ForkServer, unbroken: Path, tmp_path: Path, stages: tuple[int, ...]
) -> None:
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "toy.json").write_text("{}")
    resized = train_resized(partial(train_as_a_rank, ranks), CONFIG, "make_joined", tmp_path, list(zip(PROCESSES, stages, strict=False)))
    check_as_unbroken(resized, unbroken, rel=2e-5)


@pytest.mark.soak  # short: the numbers of processes above, and two nodes in test_two_nodes.py
@pytest.mark.timeout(900)
def test_a_training_goes_on_with_other_numbers_of_nodes(unbroken: Path, tmp_path: Path) -> None:
    """Two nodes of a cluster, then one of them, then both: a job each, in network namespaces."""
    from kubernetes import client

    needs_namespaces()
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "toy.json").write_text("{}")
    job = JobSpec(name="train-resized", image=IMAGE, job=f"{tmp_path}/set-later", mount=str(tmp_path), python=sys.executable)
    with FakeKube() as kube, two_hosts([f"{job.name}-{node}.{job.name}" for node in range(2)]) as spaces:
        cluster = KubernetesCluster(client.ApiClient(client.Configuration(host=kube.url)), patience=Patience(look=0.5))
        kubelets = Kubelets(kube, spaces, tmp_path)
        kubelets.start()

        def train(task: TrainingTask) -> dict[str, Any]:
            return train_on_cluster(task, None, Silent(), cluster=cluster, spec=replace(job, nodes=task.config.world_size))

        try:
            resized = train_resized(train, CONFIG, "make_joined", tmp_path, [(2, 3), (1, 0), (2, 2)])
        finally:
            kubelets.stop()
    check_as_unbroken(resized, unbroken, rel=2e-5)


@pytest.mark.parametrize(
    ("stages", "steps"),
    [
        pytest.param((3, 0), 4, id="stage 3, then one process"),
        *(
            pytest.param(stages, 12, id=str(stages), marks=pytest.mark.soak)
            for stages in ((0, 0, 0, 0), (2, 2, 2, 2), (3, 3, 3, 3), (1, 3, 2, 0))
        ),
    ],
)
def test_adapters_go_on_with_other_numbers_of_processes(ranks: ForkServer, tmp_path: Path, stages: tuple[int, ...], steps: int) -> None:
    """Of the published layout: three parts with rates and clipping of their own, frozen weights under the adapters."""
    for name, shapes in (("unbroken", [(1, 0)]), ("resized", list(zip(PROCESSES, stages, strict=False)))):
        (tmp_path / name).mkdir()
        write_small_frozen(tmp_path / name / "frozen", make_small_contract(chunk_length=2), train=24, validation=4)
        train_resized(partial(train_as_a_rank, ranks), replace(LORA, steps=steps), "make_published", tmp_path / name, shapes)
    check_as_unbroken(tmp_path / "resized", tmp_path / "unbroken", rel=2e-4, steps=steps)
