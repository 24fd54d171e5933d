"""What a cell records is what was measured: the times of its clock, a copy of every array, and the robot's description of itself.

Run: .venv/bin/python -m pytest tests/unit/test_recorder_times.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import ValidateConfig
from components.data.inspection.rules import inspect_episode
from model_core.spec.episode import Episode
from model_core.spec.protocol.wire import decode_episode, encode_episode
from model_core.spec.types import Observation
from serving.workcell.robot.episode_recorder import Recorder
from tests.episodes import BODY, episode

PERIOD_S = 1 / 20


class OneBufferArm:
    """A robot whose driver fills the same arrays at every step."""

    embodiment, task, instruction = BODY, "drawer-close-v3", "close the green drawer"

    def __init__(self) -> None:
        self.image_HW3 = np.zeros((32, 32, 3), np.uint8)
        self.proprio_P = np.zeros(4, np.float32)
        self.action_A = np.zeros(4, np.float32)

    def fill(self, source: Episode, step: int) -> Observation:
        self.image_HW3[:] = source.images["front"][step]
        self.proprio_P[:] = source.proprio_TP[step]
        self.action_A[:] = source.actions_TA[step]
        return Observation(images={"front": self.image_HW3}, proprio_P=self.proprio_P, instruction=self.instruction)


def recorded(spool: Path, times_s: np.ndarray) -> Episode:
    arm, source = OneBufferArm(), episode(3, length=len(times_s))
    recorder = Recorder(spool, arm, "cell")  # pyright: ignore[reportArgumentType] (it only observes)
    recorder.begin()
    for step, at_s in enumerate(times_s):
        recorder.see(arm.fill(source, step), float(at_s))
        recorder.did(arm.action_A)
    path = recorder.finish(episode_id="one", seed=0, success=True, model_version="m/1")
    assert path is not None
    return decode_episode(path.read_bytes())


def test_times_are_those_of_the_clock_from_the_first_step(tmp_path: Path) -> None:
    times_s = 917.3 + np.cumsum([0, 0.05, 0.052, 0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    assert recorded(tmp_path, times_s).timestamps_T == pytest.approx(times_s - times_s[0])


def test_every_step_keeps_its_own_arrays_and_the_body_is_told(tmp_path: Path) -> None:
    made, source = recorded(tmp_path, np.arange(12) * PERIOD_S), episode(3)
    assert np.array_equal(made.images["front"], source.images["front"])
    assert np.array_equal(made.proprio_TP, source.proprio_TP)
    assert np.array_equal(made.actions_TA, source.actions_TA)
    assert made.body == BODY


def test_what_was_seen_and_never_acted_on_is_no_step(tmp_path: Path) -> None:
    arm, source = OneBufferArm(), episode(3)
    recorder = Recorder(tmp_path, arm, "cell")  # pyright: ignore[reportArgumentType] (it only observes)
    for step in range(3):
        recorder.add(arm.fill(source, step), arm.action_A, step * PERIOD_S)
    recorder.see(arm.fill(source, 3), 3 * PERIOD_S)
    path = recorder.finish(episode_id="cut", seed=0, success=False, model_version="m/1")
    assert path is not None
    made = decode_episode(path.read_bytes())
    assert (len(made), made.images["front"].shape[0], made.proprio_TP.shape[0]) == (3, 3, 3)


@pytest.mark.parametrize("success", [True, False, None])
def test_an_unknown_outcome_stays_unknown_in_the_file(success: bool | None) -> None:
    assert decode_episode(encode_episode(episode(0, success=success))).success is success


@pytest.mark.parametrize(
    ("times_s", "check"),
    [
        (np.arange(40) * 0.1, "timestamps"),  # a loop that runs at half its rate
        (np.arange(40) * PERIOD_S + 0.6 * (np.arange(40) >= 20), "timestamps"),  # one stall
        (np.arange(200) / 20.5, "clock_rate"),  # every step is nearly right, and the whole is not
        (np.where(np.arange(40) == 7, np.nan, np.arange(40) * PERIOD_S), "timestamps"),
        (np.where(np.arange(40) == 39, np.inf, np.arange(40) * PERIOD_S), "timestamps"),
    ],
)
def test_the_clock_is_judged_by_what_was_measured(tmp_path: Path, times_s: np.ndarray, check: str) -> None:
    findings = inspect_episode(recorded(tmp_path, times_s), BODY)
    assert {f.check for f in findings} >= {check}
    assert all("nan" not in f.where for f in findings)


def test_the_jitter_of_a_healthy_loop_is_no_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    times_s = np.arange(60) * PERIOD_S + rng.uniform(0, 0.004, 60)
    assert inspect_episode(recorded(tmp_path, times_s), BODY) == []
    strict = inspect_episode(recorded(tmp_path / "again", times_s), BODY, ValidateConfig(max_period_error=0.0))
    assert [f.check for f in strict] == ["timestamps"]
