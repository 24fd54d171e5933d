"""What workcells recorded becomes part of the next data set: stored, checked, taken in, joined, validated, frozen.

Run: .venv/bin/python -m pytest tests/integration/test_recordings.py -m soak
"""

from dataclasses import replace

import numpy as np
import pytest

from components.artifacts.empty_databases import copy_database
from components.artifacts.step_store import StepStore
from components.config.records import Silent
from components.data.lerobot.reader import DatasetReader
from components.data.recordings import pending_recordings, upload_recordings
from components.simulation.robot import make_robot, robot_options
from flows.commands.data.ingest import set_aside
from flows.pipeline.recipes import get_recipe
from flows.pipeline.run_context import RunContext, make_until
from flows.pipeline.stage_records import producers_of
from flows.pipeline.stages import data as stages
from flows.pipeline.stages.training import simulation_of
from flows.pipeline.storage import storage, take_in_recordings
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.terminal.stage_progress import StagePanel
from model_core.spec.errors import NotReady
from serving.workcell.robot.episode_recorder import Recorder
from tests.episodes import Tally

# short: recordings through storage in test_data_faults, by commands in test_included_recordings, producers in test_accounting
pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("gx")]
POLICY = "policy:actwright-miniature/1"


def record(spool, recipe, task, seed, *, idle=False):
    """One episode as a workcell records it; the expert stands in for a policy that can do it. idle: it does nothing and fails."""
    robot = make_robot(task, seed, **robot_options(simulation_of(recipe.collect)))
    recorder, success = Recorder(spool, robot, "cell-01"), False
    recorder.begin()
    for step in range(12 if idle else 60):
        action_A = np.zeros(4, np.float32) if idle else robot._sim.expert_action_A()
        recorder.add(robot.observe(), action_A, step / robot.embodiment.control_hz)
        success = robot.act(action_A).success
        if success:
            break
    path = recorder.finish(episode_id=f"{task}-{seed}-cell-01", seed=seed, success=success, model_version="actwright-miniature/1")
    robot.close()
    assert success != idle
    return path


def test_recordings_join_the_next_data_set(tmp_path):
    recipe = get_recipe("miniature")
    recipe = replace(recipe, collect=replace(recipe.collect, episodes_per_task=3, image_size=48))
    copy_database("mlflow", tmp_path / "home" / "mlflow.db")
    settings = Settings(home=tmp_path / "home", runs=tmp_path / "runs", data=tmp_path / "data", storage=f"folder:{tmp_path / 'storage'}")
    platform = Platform(settings=settings, store=StepStore(settings.store_root))
    before = RunContext(platform=platform, recipe=recipe, panel=StagePanel(live=False))
    first = make_until(before, "freeze")
    assert take_in_recordings(platform, recipe, None, Silent()) is None, "nothing waits yet"

    spool = tmp_path / "spool"
    whole = [record(spool, recipe, task, seed) for task, seed in zip(recipe.collect.tasks, (950_000, 951_000), strict=True)]
    record(spool, recipe, recipe.collect.tasks[0], 950_001, idle=True)
    (spool / "torn.episode").write_bytes(whole[0].read_bytes()[:-300])
    with storage(settings) as (store, _):
        upload_recordings(store, spool, Silent())
        assert len(pending_recordings(store)) == 1

    taken = take_in_recordings(platform, recipe, None, Silent())
    assert taken is not None
    assert taken.step.record["producers"] == {POLICY: 2}
    assert taken.step.record["not_successful"] == 1
    ((name, reason),) = set_aside(taken.step.path)
    assert name == "torn.episode"
    assert "damaged" in reason
    again = take_in_recordings(platform, recipe, None, Silent())
    assert again is not None
    assert again.cached

    wider = replace(recipe, include=(taken.step.digest[:12],))
    after = RunContext(platform=platform, recipe=wider, panel=StagePanel(live=False))
    second = make_until(after, "freeze")
    assert second.record["version"] != first.record["version"]
    assert second.record["dataset_version"] != first.record["dataset_version"]
    assert second.record["episodes"] == first.record["episodes"] + 2
    assert after.step("validate").record["valid"] == before.step("validate").record["valid"] + 2
    assert producers_of(after.step("collect"), wider) == {"expert:metaworld": first.record["episodes"], POLICY: 2}
    assert producers_of(before.step("collect"), recipe) == {"expert:metaworld": first.record["episodes"]}
    rows = {row.episode_id: row for row in DatasetReader(after.step("collect").path / "dataset").rows}
    assert rows[whole[0].stem].provenance.producer == POLICY

    told = Tally()
    assert stages.collect_step(platform, wider, told).cached, "the same recordings are joined once"
    assert told.calls == [], "nothing is read of recordings that were joined before"
    assert stages.collect_step(platform, recipe, Silent()).step.digest == before.step("collect").digest, "unasked, nothing joins"
    twice = stages.joined_step(platform, recipe, before.step("collect"), [taken.step, taken.step], Silent()).step
    assert twice.record["copies"] == 2
    assert twice.record["quarantined"] == {}
    with pytest.raises(NotReady, match=r"no ingested recordings 'ffff'.*actwright ingest"):
        stages.collect_step(platform, replace(recipe, include=("ffff",)), Silent())
