"""The platform answers: commands, and one smallest path from demonstrations to a served decision. Under 60 s on an idle machine.

Run: make smoke
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALLEST = (
    *("--set", 'collect.tasks=["drawer-close-v3"]', "--set", "collect.episodes_per_task=4"),
    *("--set", "train.steps=2", "--set", "train.checkpoint_every=2", "--set", "train.warmup_steps=1"),
)


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from flows.commands.main import main; main()", *map(str, words)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def environment(folder) -> dict[str, str]:
    places = {f"ACTWRIGHT_{name.upper()}": str(folder / name) for name in ("home", "runs", "data")}
    return {**os.environ, **places, "ACTWRIGHT_STORAGE": f"folder:{folder / 'storage'}", "PYTHONPATH": str(ROOT)}


def ask(environment: dict[str, str], folder: Path, *words: object) -> dict[str, object]:
    done = subprocess.run(command(*words), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_command_line_answers(environment, folder):
    assert "miniature" in ask(environment, folder, "recipes")["recipes"]


@pytest.mark.soak  # short: the smallest loop and `up` (test_kill_resume, test_up), a served checkpoint (test_serving_commands)
@pytest.mark.xdist_group("smoke")
def test_from_demonstrations_to_a_served_decision(environment, folder):
    trained = ask(environment, folder, "train", "miniature", *SMALLEST)
    checkpoint = Path(str(trained["checkpoint"]))
    assert (checkpoint / "model.safetensors").is_file()
    with subprocess.Popen(
        command("serve", checkpoint, "--port", 0), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        try:
            assert service.stdout is not None
            ready = json.loads(service.stdout.readline())
            probed = ask(environment, folder, "probe", ready["policy"], "--out", folder / "probe.png", "--timeout-s", 60)
        finally:
            service.send_signal(signal.SIGINT)
            _, log = service.communicate(timeout=60)
    assert service.returncode == 0, log[-2000:]
    assert probed["answer"] in ("chunk", "refusal"), "a policy of two training steps may answer or refuse, but it decides"
    assert probed["model_version"] == ready["model_version"]
    assert (folder / "probe.png").is_file()
