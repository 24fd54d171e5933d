"""Labels of a Ray cluster are those of one machine, whatever is killed meanwhile (in soak; the guards and the rows: tests/unit)."""

import json
import sys

import pytest

from tests.data_faults.clean_sets import clean_set
from tests.data_faults.made_set import write_made_set
from tests.integration.test_annotate import content
from tests.labelling_on_ray import alone, needs_ray, write_set
from tests.namespaces import needs_namespaces
from tests.ray_numbers import labelled_through_kills, reason_of


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


@pytest.mark.soak  # short: test_an_inspection_finds_what_an_engine_measured_and_decodes_nothing_again
def test_an_inspection_by_a_cluster_says_what_one_machine_says(tmp_path):
    needs_ray()
    folder = write_made_set(tmp_path / "set", clean_set("leader_follower", episodes=3))
    said = []
    for name, words in (("one", []), ("many", ["--ray", "local"])):
        command = [sys.executable, "-m", "flows.commands.main", "data", "inspect", str(folder), "--json", *words]
        process = alone(*command, home=tmp_path / name)
        told, _ = process.communicate(timeout=400)
        assert process.returncode == 0, told
        said.append(json.loads(told.strip().splitlines()[-1]))
    assert said[0] == said[1]
    assert "Ray: 1,000 episodes took" in told


@pytest.mark.soak  # short: the rows, stages and guards in tests/unit; 200,000 frames: python -m tests.scale.ray_labelling
def test_every_frame_is_labelled_once_though_a_machine_and_the_driver_are_killed(tmp_path):
    needs_ray()
    needs_namespaces()
    count = 20_000
    found = labelled_through_kills(tmp_path, count, seconds=0.002)
    bad = sum(bool(reason_of(number)) for number in range(count))
    assert (found["labels"], found["reasons"], found["wrong"]) == (count - bad, bad, 0)
    assert found["rows_of_this_run"] <= count // 2  # what was written before the driver died was not done again
    log = (tmp_path / "job" / "driver.log").read_text()
    assert "TaskPoolMapOperator[MapBatches(decode)] -> ActorPoolMapOperator[MapBatches(Model)]" in log  # not joined into one stage
