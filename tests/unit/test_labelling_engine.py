"""Shard in, rows and errors out: every row comes back once, whatever dies on the way, and no finished work is done twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import AnnotateConfig
from components.data.annotators.cache import AnswerCache
from components.data.labelling.batching import Batching, EpisodeImages
from components.data.labelling.engine import LabellingEngine, Shard, ShardAnswer, accounted, joined
from components.data.labelling.in_process import InProcessEngine
from components.data.labelling.labeller import turns_of
from components.data.labelling.process_pool import ProcessPoolEngine
from model_core.spec.errors import CheckpointError, JobError, SpecError
from tests.labelling_jobs import FAILS, HAS_NO_ANSWER, KILLS, KILLS_ONCE, job


def shard(*firsts: int, name: str = "s") -> Shard:
    images = np.zeros((len(firsts), 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = firsts
    return Shard(row_ids=tuple(f"{name}:{place}" for place in range(len(firsts))), columns={"images": images})


def results(engine: LabellingEngine, *shards: Shard) -> tuple[dict[str, float], dict[str, str]]:
    answers = list(accounted(engine, shards))
    engine.close()
    means = {row: float(mean) for a in answers for row, mean in zip(a.row_ids, a.columns.get("mean", ()), strict=True)}
    return means, {row: reason for a in answers for row, reason in a.errors.items()}


def calls(folder: Path) -> list[list[int]]:
    return [[int(first) for first in line.split()[1:]] for line in (folder / "calls").read_text().splitlines()]


def test_an_image_that_fails_or_has_no_answer_costs_its_own_row(tmp_path):
    means, errors = results(InProcessEngine(job(tmp_path)), shard(1, FAILS, 3, HAS_NO_ANSWER), shard(5, name="t"))
    assert means == {"s:0": 1 / 12, "s:2": 3 / 12, "t:0": 5 / 12}
    assert errors == {"s:1": "ValueError: this image is not to be looked at", "s:3": "nothing to see"}


def test_processes_answer_as_one_does_and_what_kills_one_costs_a_row(tmp_path):
    shards = [shard(1, 2, name="a"), shard(3, KILLS, 4, name="b"), shard(KILLS_ONCE, 5, name="c"), shard(FAILS, HAS_NO_ANSWER, name="d")]
    means, errors = results(ProcessPoolEngine(job(tmp_path), workers=2), *shards)
    assert means == {"a:0": 1 / 12, "a:1": 2 / 12, "b:0": 3 / 12, "b:2": 4 / 12, "c:0": KILLS_ONCE / 12, "c:1": 5 / 12}
    assert set(errors) == {"b:1", "d:0", "d:1"}
    assert errors["b:1"] == "2 processes died labelling it (signal 9)"


def test_what_hinders_opening_is_told_as_it_is(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights\. Fix: give some"):
        ProcessPoolEngine(job(tmp_path, weights="missing"), workers=1).description()
    engine = ProcessPoolEngine(job(tmp_path, dies=True), workers=1)
    with pytest.raises(JobError, match=r"3 labelling processes died before they were ready \(signal 9\)\. Fix: free memory"):
        engine.description()
    engine.close()


class Careless:
    """An engine that answers what it was told to."""

    def __init__(self, *answers: ShardAnswer) -> None:
        self.answers = answers

    def description(self):
        return {}

    def label(self, shards) -> Iterator[ShardAnswer]:
        list(shards)
        yield from self.answers

    def close(self) -> None: ...


def answer(*rows: str, count: int | None = None, **errors: str) -> ShardAnswer:
    return ShardAnswer(row_ids=rows, columns={"mean": np.zeros(len(rows) if count is None else count)}, errors=errors)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([answer("s:0")], "lost 1 rows, the first s:1"),
        ([answer("s:0", "s:1"), answer("s:0")], "s:0 twice"),
        ([answer("s:0", "s:1", "x:9")], "x:9 twice, or it was not asked"),
        ([answer("s:0", "s:0", "s:1")], "s:0 twice"),
        ([answer("s:0", "s:1", count=3)], "3 entries of 'mean' for 2 rows"),
    ],
)
def test_rows_out_are_rows_in_or_nothing_is_believed(answers, message):
    with pytest.raises(JobError, match=message):
        list(accounted(Careless(*answers), [shard(1, 2)]))


def test_row_ids_are_unique():
    with pytest.raises(JobError, match="row s:0 is in the shards twice"):
        list(accounted(Careless(), [shard(1), shard(2)]))
    with pytest.raises(SpecError, match="one entry per row"):
        replace(shard(1, 2), row_ids=("a",))
    both = joined([answer("a", bad="x"), answer("b", "c")])
    assert (both.row_ids, len(both.columns["mean"]), dict(both.errors)) == (("a", "b", "c"), 3, {"bad": "x"})


def episodes(count: int, frames: int, first: int = 1) -> list[EpisodeImages]:
    made = []
    for number in range(count):
        images = np.zeros((frames, 2, 2, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(frames) + first + number * frames
        made.append(EpisodeImages(digest=f"{number:032d}", images_THW3=images))
    return made


def batching(folder: Path, engine: LabellingEngine, batch: int = 4) -> Batching:
    return Batching(engine=engine, cache=AnswerCache(folder=folder / "answers"), version="means/1", batch=batch)


def test_batches_are_full_over_episodes_and_only_new_frames_are_asked(tmp_path):
    batching(tmp_path, InProcessEngine(job(tmp_path))).run(episodes(3, 3))
    assert calls(tmp_path) == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]
    cache = AnswerCache(folder=tmp_path / "answers")
    assert cache.kept("means/1", episodes(3, 3)[1].digest)["mean"].tolist() == [4 / 12, 5 / 12, 6 / 12]
    batching(tmp_path, InProcessEngine(job(tmp_path))).run([*episodes(4, 3), episodes(1, 3)[0]])
    assert calls(tmp_path)[3:] == [[10, 11, 12]]
    assert not list((tmp_path / "answers").rglob("parts/*"))


def test_an_episode_with_a_bad_frame_is_not_kept_and_says_which(tmp_path):
    failing = episodes(2, 2)
    failing[1].images_THW3[1, 0, 0, 0] = FAILS
    work = batching(tmp_path, InProcessEngine(job(tmp_path)))
    work.run(failing)
    assert work.errors == {failing[1].digest: {1: "ValueError: this image is not to be looked at"}}
    assert [AnswerCache(folder=tmp_path / "answers").holds("means/1", one.digest) for one in failing] == [True, False]


CALLER = """
import sys, time
from pathlib import Path
from components.artifacts.locks import one_of
with one_of(Path(sys.argv[1]), 2):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_jobs_share_one_limit_of_calls_and_a_killed_one_gives_its_place_back(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", CALLER, str(tmp_path / "calls")]
    callers = [subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [caller.stdout.readline() for caller in callers] == ["in\n", "in\n"]
    cfg = AnnotateConfig(calls_at_once=2, calls_folder=str(tmp_path / "calls"))
    order: list[str] = []

    def third() -> None:
        with turns_of(cfg)():
            order.append("third")

    waiting = threading.Thread(target=third)
    waiting.start()
    time.sleep(0.2)
    order.append("killed")
    callers[0].kill()
    waiting.join(30)
    assert order == ["killed", "third"]
    for caller in callers:
        caller.communicate()
    with pytest.raises(SpecError, match=r"annotate\.calls_at_once needs annotate\.calls_folder"):
        AnnotateConfig(calls_at_once=2)


DRIVER = """
import sys
from pathlib import Path
from components.data.labelling.labeller import turns_of
from components.data.labelling.process_pool import ProcessPoolEngine
from tests.labelling_jobs import job
from tests.unit.test_labelling_engine import batching, episodes
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    engine = ProcessPoolEngine(job(folder, held_from=int(sys.argv[2])), workers=1)
    batching(folder, engine).run(episodes(3, 10))
    engine.close()
"""


def test_a_killed_driver_loses_one_batch_and_a_killed_worker_none_that_was_answered(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}"}

    def killed_after(lines: int, whom: str) -> None:
        process = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(lines)], env=environment)
        log = tmp_path / "calls"
        deadline = time.monotonic() + 300
        while not log.exists() or len(log.read_text().splitlines()) < lines:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        worker = int(log.read_text().splitlines()[-1].split()[0])
        os.kill(worker if whom == "worker" else process.pid, signal.SIGKILL)
        if whom == "worker":
            (tmp_path / "go").touch()
        process.wait(timeout=300)

    killed_after(3, "driver")  # two batches are answered, the third is in work
    before = calls(tmp_path)
    killed_after(len(before) + 2, "worker")  # and this one goes on by itself
    asked = [first for call in calls(tmp_path) for first in call]
    twice = sorted(first for first in set(asked) if asked.count(first) > 1)
    assert set(asked) == set(range(1, 31))
    assert len(twice) <= 2 * 4  # a batch for each kill
    assert not set(twice) & set(asked[:8])
    cache = AnswerCache(folder=tmp_path / "answers")
    found = np.concatenate([cache.kept("means/1", one.digest)["mean"] for one in episodes(3, 10)])
    assert np.array_equal(found, np.arange(1, 31) / 12)
