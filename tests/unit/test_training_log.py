"""Rank 0's log: numbers without times in the curve, and nothing left of steps that are trained again."""

from __future__ import annotations

import json

import pytest

from components.training.job import JobFiles
from components.training.training_log import TrainingLog


@pytest.fixture
def files(tmp_path):
    found = JobFiles(tmp_path)
    found.scratch.mkdir()
    return found


def test_a_point_is_a_line_of_nine_digits_and_a_sign_of_life(files):
    log = TrainingLog(files, writes=True, first_step=0, clock=lambda: 7.5)
    log.point(1, {"loss": 1 / 3, "lr": 1e-3})
    log.event("step", 1, samples_per_s=12.5)
    assert files.metrics.read_text() == '{"step": 1, "loss": 0.333333333, "lr": 0.001}\n'
    assert json.loads(files.progress.read_text()) == {"event": "step", "step": 1, "at": 7.5, "samples_per_s": 12.5}
    assert files.heartbeat.exists()


def test_a_resumed_curve_drops_what_came_after_the_checkpoint_and_a_truncated_line(files):
    files.metrics.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    TrainingLog(files, writes=True, first_step=2).point(3, {"loss": 1.5})
    assert [json.loads(line) for line in files.metrics.read_text().splitlines()] == [
        {"step": 1, "loss": 3},
        {"step": 2, "loss": 2},
        {"step": 3, "loss": 1.5},
    ]


def test_other_ranks_write_nothing(files):
    log = TrainingLog(files, writes=False, first_step=0)
    log.point(1, {"loss": 1.0})
    log.event("step", 1)
    assert list(files.out.iterdir()) == [files.scratch]
    assert list(files.scratch.iterdir()) == []
