"""Labelling on Ray without Ray: each of its traps is refused, rows keep their reasons, and numbers become frames where they are decoded."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import AnnotateConfig
from components.config.launch.ray_config import RayConfig
from components.config.records import Silent
from components.data.inspection.folder.films import FilmDecoder
from components.data.inspection.measurements.by_engine import measure_by, measurer_job
from components.data.inspection.reporting.inspect import inspect_folder
from components.data.inspection.reporting.report import report_document
from components.data.labelling.engine import LabelJob, Shard, accounted
from components.data.labelling.in_process import InProcessEngine
from components.data.labelling.on_ray import guards
from components.data.labelling.on_ray.frame_reader import DIGEST, open_reader, reader_job, references
from components.data.labelling.on_ray.job import Done, RayFolder, RayJob
from components.data.labelling.on_ray.rows import DATA, ERROR, ROW_ID, answers_in, packed, shards_of, unpacked, write_rows
from components.data.labelling.on_ray.stages import answered
from model_core.spec.errors import JobError, SpecError
from tests.data_faults.clean_sets import clean_set
from tests.data_faults.made_set import write_made_set
from tests.labelling_jobs import FAILS, HAS_NO_ANSWER, job
from tests.labelling_on_ray import LENGTHS, write_set

SAFE = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/run/token", "RAY_USAGE_STATS_ENABLED": "0"}


def test_a_ray_that_strangers_may_ask_or_that_tells_its_maker_is_refused():
    guards.check_environment(SAFE, has_token=False)
    guards.check_environment({name: value for name, value in SAFE.items() if "PATH" not in name}, has_token=True)
    for change, reason in (
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE must be 'token': Ray listens on all addresses"),
        ({"RAY_AUTH_TOKEN_PATH": ""}, "Ray has no token. Fix"),
        ({"RAY_USAGE_STATS_ENABLED": "1"}, "RAY_USAGE_STATS_ENABLED must be '0'"),
    ):
        with pytest.raises(SpecError, match=reason):
            guards.check_environment(SAFE | change, has_token=False)


def test_actors_that_leave_no_cpu_for_reading_are_refused():
    guards.check_actors(2, 4.0)
    with pytest.raises(SpecError, match=r"3 actors and 2 CPUs for reading and decoding do not fit .*set it to 2.*got 4 CPUs"):
        guards.check_actors(3, 4.0)


def test_addresses_and_sizes_of_blocks_and_batches_are_checked():
    assert RayConfig(address="ray-head:6379").address == "ray-head:6379"
    for wrong in ("ray://ray-head:10001", "0.0.0.0", "", "http://ray-head:8265"):
        with pytest.raises(SpecError, match=r"expected 'local', 'auto' or HOST:PORT"):
            RayConfig(address=wrong)
    with pytest.raises(SpecError, match=r"block_rows must be above 0"):
        RayConfig(block_rows=0)
    with pytest.raises(SpecError, match=r"annotate\.engine: expected one of local, ray, got 'rays'; did you mean 'ray'"):
        AnnotateConfig(engine="rays")
    small, large = 64 * 64 * 3, 1080 * 1920 * 3
    assert [RayConfig().rows_per_block(size) for size in (small, large, 2**40)] == [256, 10, 1]
    assert [RayConfig().rows_per_batch(size, 64) for size in (small, large, 2**40)] == [64, 43, 1]
    with pytest.raises(JobError, match="a block of 9 rows, expected at most 8"):
        guards.check_block(9, 8)


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_a_data_set_whose_context_loses_rows_or_was_set_too_late_is_refused(tmp_path):
    from ray.data.checkpoint import CheckpointConfig
    from ray.data.context import DataContext

    context = DataContext.get_current().copy()
    with pytest.raises(SpecError, match="the data set was made before the checkpoint was set"):
        guards.check_context(context, tmp_path)
    context.checkpoint_config = CheckpointConfig(ROW_ID, str(tmp_path), delete_checkpoint_on_success=False)
    guards.check_context(context, tmp_path)
    with pytest.raises(SpecError, match="the checkpoint must lie in"):
        guards.check_context(context, tmp_path / "other")
    context.max_errored_blocks = -1
    with pytest.raises(SpecError, match="max_errored_blocks must be 0: a failed block loses rows"):
        guards.check_context(context, tmp_path)
    context.max_errored_blocks = 0
    context.checkpoint_config = CheckpointConfig(ROW_ID, str(tmp_path))
    with pytest.raises(SpecError, match="the checkpoint must be kept"):
        guards.check_context(context, tmp_path)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["a", "b", "b"], "row b was answered twice, of 3 answers to 2 rows"),
        (["a"], r"1 of 2 rows have no answer, the first b\. Fix: run again"),
        (["a", "b", "c"], "row c was answered and not asked"),
    ],
)
def test_rows_out_are_rows_in_or_the_stage_fails(answers, message):
    guards.check_answers(["a", "b"], ["b", "a"])
    with pytest.raises(JobError, match=message):
        guards.check_answers(["a", "b"], answers)


def block_of(*firsts: int, reason_of_last: str = "") -> dict:
    rows = [packed({"images": np.full((2, 2, 3), first, np.uint8), "kept": np.array(first, np.int64)}) for first in firsts]
    reasons = [""] * (len(firsts) - 1) + [reason_of_last]
    return {ROW_ID: [f"r:{first}" for first in firsts], ERROR: reasons, DATA: rows}


def test_an_error_is_a_row_with_its_reason_beside_the_others(tmp_path):
    block = block_of(1, FAILS, 3, HAS_NO_ANSWER, 5, reason_of_last="cannot be read")
    out = answered(InProcessEngine(job(tmp_path)), block, most=2, carried=("kept",))
    assert out[ROW_ID] == block[ROW_ID]
    assert out[ERROR] == ["", "ValueError: this image is not to be looked at", "", "nothing to see", "cannot be read"]
    rows = [unpacked(bytes(data)) for data in out[DATA]]
    assert [float(row["mean"]) for row in (rows[0], rows[2])] == [1.0, 3.0]
    assert [int(row["kept"]) for row in rows] == [1, FAILS, 3, HAS_NO_ANSWER, 5]
    calls = [line.split()[1:] for line in (tmp_path / "calls").read_text().splitlines()]
    assert max(map(len, calls)) == 2
    assert not any("5" in call for call in calls)


def test_rows_come_back_from_files_as_they_were(tmp_path):
    shards = [
        Shard(row_ids=("a", "b"), columns={"x": np.arange(2, dtype=np.int64), "image": np.ones((2, 2, 3), np.uint8)}),
        Shard(row_ids=("c",), columns={"x": np.array([9], np.int64), "image": np.ones((1, 4, 3), np.uint8)}),
    ]
    assert write_rows(shards, tmp_path / "rows") == ["a", "b", "c"]
    back = list(accounted(Filed(tmp_path / "rows"), shards))
    assert [answer.row_ids for answer in back] == [("a", "b"), ("c",)]  # images of another size stand in a shard of their own
    assert back[0].columns["x"].tolist() == [0, 1]
    assert back[1].columns["image"].shape == (1, 4, 3)
    ids, rows = ["a", "b", "c"], [{"x": np.array(place)} for place in range(3)]
    assert [shard.row_ids for shard in shards_of(ids, rows, 2)] == [("a", "b"), ("c",)]


class Filed:
    """An engine whose answers are in files already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def description(self):
        return {}

    def label(self, shards):
        list(shards)
        yield from answers_in(self.folder)

    def close(self) -> None: ...


def test_a_job_is_a_document_and_its_cost_is_of_the_whole_cluster(tmp_path):
    folder = RayFolder(tmp_path)
    assert folder.load() is None
    stated = RayJob(model=LabelJob(maker="m:f", settings={"a": 1}), count=3, batch=2, block_rows=8, ray=RayConfig(actors=2))
    folder.save(stated)
    assert folder.load() == stated
    done = Done(rows=2000, errors=3, wall_s=3600.0, cpus=8.0, gpus=1.0)
    folder.save_done(done)
    assert folder.load_done() == done
    assert done.cost(RayConfig()) == "1,000 frames took 4.0000 CPU hours and 0.5000 GPU hours of the cluster"
    assert done.cost(RayConfig(cpu_hour_cost=0.05, gpu_hour_cost=2.0)).endswith("at a cost of 1.2000")
    assert replace(done, rows=0).cost(RayConfig()) == "no frames were left"


def test_numbers_of_frames_become_images_with_the_digest_of_their_episode(tmp_path):
    dataset, _ = write_set(tmp_path)
    reader = open_reader(reader_job(dataset, "").settings)
    shards = list(references((index, f"e-{index}", length) for index, length in enumerate(LENGTHS)))
    first, second = (reader.label(shard) for shard in shards[:2])
    assert first.row_ids == tuple(f"0:{frame}" for frame in range(LENGTHS[0]))
    assert first.columns["images"].shape[0] == LENGTHS[0]
    assert len(np.unique(first.columns[DIGEST], axis=0)) == 1
    assert not np.array_equal(first.columns[DIGEST][0], second.columns[DIGEST][0])
    lost = Shard(row_ids=("0:99", "0:1"), columns={"episode": np.zeros(2, np.int64), "frame": np.array([99, 1])})
    answer = reader.label(lost)
    assert answer.row_ids == ("0:1",)
    assert "has 5 images, expected one for frame 99" in answer.errors["0:99"]
    assert json.loads(json.dumps(reader.description()))["camera"] == ""


def test_an_inspection_finds_what_an_engine_measured_and_decodes_nothing_again(tmp_path, monkeypatch):
    folder = write_made_set(tmp_path / "set", clean_set("leader_follower", episodes=3))
    engine = InProcessEngine(measurer_job(folder, tmp_path / "store", None))
    assert measure_by(engine, folder, batch=2) == {}
    alone = report_document(inspect_folder(folder, None, Silent()))

    def refused(*_: object) -> None:
        raise AssertionError("a film is opened again")

    monkeypatch.setattr(FilmDecoder, "__init__", refused)
    assert report_document(inspect_folder(folder, tmp_path / "store", Silent())) == alone
    labeller = engine._open()
    answer = labeller.label(Shard(row_ids=("99",), columns={"number": np.array([99])}))
    assert answer.errors == {"99": "KeyError: 99"}
