"""Demonstrations with real workers: the same bytes for any number of them, and nothing done twice after a kill.

Run: .venv/bin/python -m pytest tests/integration/test_collect.py
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from components.artifacts.files import dataset_digest
from components.config.data_config import CollectConfig
from components.config.records import Silent
from components.data.attempts import Attempt, Perturbation
from components.data.collect import collect
from components.data.inspection.rules import inspect_episode
from components.data.lerobot.reader import DatasetReader
from components.simulation.open import open_simulator
from model_core.spec.errors import DatasetError, SimulatorError, SpecError
from tests.episodes import Tally

pytestmark = pytest.mark.xdist_group("collect")  # one worker makes what all of them look at
CFG = CollectConfig(episodes_per_task=4, image_size=48, horizon_sim_steps=120, first_seed=20_000, workers=2)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("collect")
    progress = Tally()
    return out, collect(replace(CFG, workers=1), out, progress), progress


def test_only_successes_are_kept_and_all_are_counted(collected):
    out, record, progress = collected
    reader = DatasetReader(out / "dataset")
    assert record["attempts"] == 8
    assert record["episodes"] + record["failed"] == 8
    assert len(reader) == record["episodes"] >= 4
    assert sum(t["kept"] for t in record["per_task"].values()) == record["episodes"]
    assert all(row.success for row in reader.rows)
    assert progress.calls[-1] == (8, 8)
    assert sorted(record["instructions"]) == ["close the green drawer", "push the button of the coffee machine"]


def test_episodes_are_whole(collected):
    reader = DatasetReader(collected[0] / "dataset")
    sim = open_simulator(CFG)
    for episode in reader.episodes():
        assert inspect_episode(episode, sim.embodiment) == []
        assert episode.provenance.producer == "expert:metaworld"
        assert episode.provenance.seed >= 20_000
        assert set(episode.provenance.versions) >= {"mujoco", "metaworld"}
        assert episode.provenance.render["shadow"] == "off"
        assert episode.depth_m["front"].shape == (len(episode), 48, 48)
        pixels = episode.geometry["front"].project(episode.tcp_T3)
        assert (np.abs(pixels[:, :2] - 24) < 40).all()


def test_labels_are_the_experts_and_what_was_done_differs(collected):
    """At least one episode was pushed around; the last steps, after the success, never are."""
    reader = DatasetReader(collected[0] / "dataset")
    differences = []
    for episode in reader.episodes(images=False, depth=False):
        difference = np.abs(episode.actions_TA - episode.executed_TA).max(axis=1)
        differences.append(difference.max())
        assert np.abs(episode.actions_TA).max() <= 1.0, "the package's experts ask for more than its limits"
        assert difference[-CFG.settle_steps :].max() == 0.0
    assert max(differences) > 0.2


def test_a_killed_run_goes_on_with_another_number_of_workers_and_ends_with_the_same_bytes(collected, tmp_path):
    """Two workers record until the kill, one the rest, and one recorded what it is compared with."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom components.data.collect import collect\nfrom components.config.records import Silent\n"
        "from tests.integration.test_collect import CFG\n"
        "if __name__ == '__main__':\n    collect(CFG, Path(sys.argv[1]), Silent())\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, "-W", "ignore", str(script), str(out)], env=environment)
    scratch = out / "scratch" / "episodes"
    deadline = time.monotonic() + 60
    while not list(scratch.glob("*.episode")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in workers)
    finished = {p.name: p.stat().st_mtime_ns for p in scratch.glob("*.episode")}
    assert 0 < len(finished) < 8
    assert not (out / "dataset").exists()
    one_worker = replace(CFG, workers=1)
    assert collect(one_worker, out, Silent()) == collected[1]
    assert all((scratch / name).stat().st_mtime_ns == stamp for name, stamp in finished.items())
    assert dataset_digest(out / "dataset") == dataset_digest(collected[0] / "dataset")
    assert collect(one_worker, out, Silent()) == collected[1]


def children_of(pid):
    return [int(c) for c in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().split()[2] != "Z"
    except OSError:
        return False


def test_no_success_at_all_is_explained(tmp_path):
    with pytest.raises(DatasetError, match=r"2 attempts were made; is the horizon too short"):
        collect(replace(CFG, tasks=("drawer-close-v3",), episodes_per_task=2, horizon_sim_steps=8), tmp_path, Silent())
    assert not (tmp_path / "dataset").exists()


def test_an_unknown_simulator_is_refused():
    with pytest.raises(SpecError, match=r"unknown simulator 'isaac'; there is 'metaworld', 'libero', 'libero-published'; name a class"):
        replace(CFG, simulator="isaac")
    with pytest.raises(SpecError, match=r"did you mean 'metaworld'"):
        replace(CFG, simulator="meta-world")
    with pytest.raises(SimulatorError, match=r"no simulator 'tests\.planar_arm:Arm'"):
        open_simulator(replace(CFG, simulator="tests.planar_arm:Arm"))


GRIPPER = np.array([False, False, False, True])


def test_perturbation_has_the_strength_that_was_asked_for():
    cfg = replace(CFG, noise_levels=(0.3,), burst_probability=0.0)
    perturbation = Perturbation(cfg, Attempt(task="a", seed=1), GRIPPER)
    executed = np.stack([perturbation.apply(np.zeros(4, np.float32)) for _ in range(4000)])
    assert 0.27 < executed[:, :3].std() < 0.33
    assert np.corrcoef(executed[1:, 0], executed[:-1, 0])[0, 1] == pytest.approx(cfg.noise_correlation, abs=0.05)
    assert (executed[:, 3] == 0).mean() > 0.85
    quiet = Perturbation(replace(cfg, noise_levels=(0.0,)), Attempt(task="a", seed=1), GRIPPER)
    assert np.array_equal(quiet.apply(np.full(4, 0.5, np.float32)), np.full(4, 0.5, np.float32))
