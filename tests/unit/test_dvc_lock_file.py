"""dvc.lock while another command writes it, and one that stays damaged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from components.adapters.dvc import DvcStore
from model_core.spec.errors import DatasetError

WHOLE = "schema: '2.0'\nstages:\n  freeze:\n    cmd: x\n    outs:\n    - path: data/freeze\n      md5: abc.dir\n"


@pytest.mark.parametrize("torn", ["", WHOLE[:20], WHOLE[:-30]], ids=["empty", "without its stages", "without an output"])
def test_a_lock_that_another_command_writes_is_waited_for(tmp_path: Path, torn: str) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(torn)
    writer = threading.Timer(0.1, lock.write_text, (WHOLE,))
    writer.start()
    outputs = DvcStore(tmp_path).version(["freeze"]).outputs
    writer.join()
    assert outputs == {"freeze": "abc.dir"}


@pytest.mark.parametrize("text", ["", "- a\n", "stages: [\n"], ids=["empty", "no map", "no YAML"])
def test_a_lock_that_stays_damaged_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(DatasetError, match=r"dvc\.lock: expected a map, as DVC writes it.*Fix: take it from git"):
        DvcStore(tmp_path).tracked()


def test_a_stage_that_was_never_recorded_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(WHOLE)
    with pytest.raises(DatasetError, match=r"no record of annotate in dvc\.lock"):
        DvcStore(tmp_path).version(["annotate"])
