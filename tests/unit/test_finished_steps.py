"""A store that only finds: finished steps are found, and a missing one is told before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts.step_store import FinishedSteps, StepNotFinishedError, StepStore, run_step


def made(store: StepStore, *, source: str, worked: list[str]) -> str:
    def work(out: Path) -> dict[str, str]:
        worked.append(source)
        (out / "made.txt").write_text(source)
        return {"made": source}

    return run_step(store, stage="collect", config={}, inputs={"source": source}, work=work, code_version="1").step.digest


def test_a_finished_step_is_found_and_a_missing_one_is_told_before_any_work(tmp_path: Path) -> None:
    worked: list[str] = []
    digest = made(StepStore(tmp_path), source="a", worked=worked)
    finds = FinishedSteps(tmp_path)
    assert made(finds, source="a", worked=worked) == digest
    with pytest.raises(StepNotFinishedError, match="collect"):
        made(finds, source="b", worked=worked)
    assert worked == ["a"]
    assert not list(tmp_path.glob("collect/*.partial"))
    assert made(StepStore(tmp_path), source="b", worked=worked) != digest, "whoever looked holds no lock"
