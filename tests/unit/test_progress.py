"""The plain lines of a run: where nobody watches a terminal, a finished stage is told once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from flows.terminal.stage_progress import StagePanel


def test_a_stage_that_also_sends_its_work_somewhere_is_told_once(capsys):
    panel = StagePanel(live=False)
    result = cast(Any, SimpleNamespace(cached=False, seconds=5.1))
    for stage in ("freeze", "freeze", "train"):
        panel.finish(stage, result)
    assert capsys.readouterr().err.splitlines() == ["freeze the data set: 5.1 s", "train the policy: 5.1 s"]
