"""Labels of a Ray cluster are those of one machine, whatever is killed meanwhile (in soak; the guards and the rows: tests/unit)."""

import json
import sys

import pytest

from tests.integration.test_annotate import content
from tests.labelling_on_ray import alone, needs_ray, write_set


@pytest.mark.soak  # short: test_an_error_is_a_row_with_its_reason_beside_the_others, and the guards
def test_both_engines_give_equal_labels_and_equal_reasons(tmp_path):
    needs_ray()
    write_set(tmp_path)
    for engine in ("local", "ray"):
        done = alone(sys.executable, "-m", "tests.labelling_on_ray", str(tmp_path), engine)
        told, _ = done.communicate(timeout=400)
        assert done.returncode == 0, told
    assert content(tmp_path / "local") == content(tmp_path / "ray")
    [reason] = json.loads((tmp_path / "ray" / "rejected.json").read_text()).items()
    assert reason == ("square-0002", "frame 1: nothing to point at")
    assert "1,000 frames took" in told
    [known] = (tmp_path / "ray" / "scratch" / "answers" / "on_ray").rglob("known.json")
    assert len(json.loads(known.read_text())) == 3  # and the fourth is asked again by the next run
    assert not list(known.parent.rglob("*.parquet"))
