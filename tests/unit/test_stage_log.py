"""A stage becomes one run: numbers as metrics, the record as text, films as pictures."""

from __future__ import annotations

from components.artifacts.stage_log import StageRun, log_stage, numbers
from components.config.recipe import GateConfig


class Listening:
    def __init__(self) -> None:
        self.heard: list[tuple] = []

    def __getattr__(self, name):
        return lambda *words, **named: self.heard.append((name, words, named))


def test_numbers_are_found_wherever_they_are_and_rows_are_not():
    record = {"successes": 3, "good": True, "per_task": {"a": {"rate": 0.5}}, "episodes": [{"steps": 3}], "name": "x"}
    assert dict(numbers(record)) == {"successes": 3.0, "per_task/a/rate": 0.5}


def test_a_stage_is_one_run_with_its_film(tmp_path):
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "task.png").write_bytes(b"x")
    tracker = Listening()
    log_stage(tracker, StageRun(stage="evaluate", key="k1", recipe="loop", config={"gate": GateConfig()}, record={"n": 1}, out=tmp_path))
    kinds = [name for name, _, _ in tracker.heard]
    assert kinds == ["start_run", "log_metrics", "log_text", "log_image", "finish"]
    assert tracker.heard[0][2] == {"run_id": "k1"}
    assert tracker.heard[0][1][1]["gate"]["floor"] == GateConfig().floor
