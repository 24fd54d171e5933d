"""The step store: done is a manifest that exists; a kill loses nothing that was finished."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.artifacts.step_manifest import step_key
from components.artifacts.step_store import StepStore, run_step
from model_core.spec.documents import NEUTRAL
from model_core.spec.errors import SpecError, StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    size: int = 1
    workers: int = field(default=1, metadata=NEUTRAL)


def write_letters(out: Path) -> dict:
    (out / "letters.txt").write_text("abc")
    (out / "scratch").mkdir(exist_ok=True)
    (out / "scratch" / "half").write_text("x")
    (out / "undigested").mkdir(exist_ok=True)
    (out / "undigested" / "log.txt").write_text(str(time.time_ns()))
    return {"letters": 3, "undigested": {"seconds": time.time()}}


def step(store: StepStore, work=write_letters, config: Config | None = None, **inputs):
    return run_step(store, stage="collect", config=config or Config(), inputs=inputs, work=work, code_version="1")


def test_a_finished_step_is_found_and_not_made_again(tmp_path):
    store = StepStore(tmp_path)
    first = step(store)
    second = step(store, work=lambda out: pytest.fail("made again"))
    assert not first.cached
    assert second.cached
    assert second.step.digest == first.step.digest
    assert second.step.record["letters"] == 3


def test_digest_ignores_scratch_undigested_and_neutral_fields(tmp_path):
    one = step(StepStore(tmp_path / "a"), config=Config(workers=1)).step
    two = step(StepStore(tmp_path / "b"), config=Config(workers=8)).step
    assert one.digest == two.digest
    assert one.manifest.key == two.manifest.key
    assert list(one.manifest.outputs) == ["letters.txt"]
    assert not (one.path / "scratch").exists()
    assert (one.path / "undigested" / "log.txt").exists()


@pytest.mark.parametrize(
    "change", [{"config": Config(size=2)}, {"code": "2"}, {"inputs": {"data": "other"}}, {"stage": "freeze"}], ids=lambda c: next(iter(c))
)
def test_key_changes_with_everything_that_matters(change):
    def key(stage="collect", config=Config(), inputs=None, code="1"):
        return step_key(stage, config, inputs or {"data": "d"}, code)

    assert key() == key()
    assert key(**change) != key()


def test_equal_outputs_of_another_config_keep_later_steps(tmp_path):
    store = StepStore(tmp_path)
    one, two = step(store, config=Config(size=1)), step(store, config=Config(size=2))
    assert one.step.path != two.step.path
    assert one.step.digest == two.step.digest
    assert not step(store, source=one.step).cached
    assert step(store, source=two.step).cached


def test_partial_work_survives_an_error_and_is_given_back(tmp_path):
    store = StepStore(tmp_path)

    def fails(out: Path) -> dict:
        (out / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        step(store, work=fails)
    assert not store.steps("collect")

    def resumes(out: Path) -> dict:
        assert (out / "half.txt").read_text() == "half"
        return {}

    assert not step(store, work=resumes).cached


@pytest.mark.parametrize("harm", ["flip", "lose"])
def test_a_damaged_step_is_set_aside_and_made_again(tmp_path, harm):
    store = StepStore(tmp_path)
    made = step(store).step
    victim = made.path / "letters.txt"
    if harm == "flip":
        victim.write_text("abd")
    else:
        victim.unlink()
    again = step(store)
    assert not again.cached
    assert again.step.digest == made.digest
    assert made.path.with_name(made.path.name + ".damaged").is_dir()


def test_touching_a_file_does_not_make_it_damaged(tmp_path):
    store = StepStore(tmp_path)
    made = step(store).step
    os.utime(made.path / "letters.txt", ns=(1, 1))
    assert step(store).cached


def test_thorough_finding_sees_a_flip_that_kept_size_and_time(tmp_path):
    store = StepStore(tmp_path)
    made = step(store).step
    victim = made.path / "letters.txt"
    before = victim.stat()
    victim.write_text("abX")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find("collect", made.manifest.key) is not None
    assert store.find("collect", made.manifest.key, thorough=True) is None


def test_a_full_disk_is_one_clear_message(tmp_path):
    def fills(out: Path) -> dict:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"disk under .* is full"):
        step(StepStore(tmp_path), work=fills)


def _slow_step(root: str, log: str) -> None:
    def work(out: Path) -> dict:
        with Path(log).open("a") as handle:
            handle.write("made\n")
        time.sleep(0.3)
        (out / "x").write_text("x")
        return {}

    step(StepStore(Path(root)), work=work)


def test_two_processes_make_a_step_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_slow_step, args=(str(tmp_path / "s"), str(tmp_path / "log"))) for _ in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(20)
    assert [w.exitcode for w in workers] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def _killed_at(root: str, phase: str) -> None:
    def fault(stage: str, at: str) -> None:
        if at == phase:
            os._exit(9)

    step(StepStore(Path(root), fault=fault))


@pytest.mark.parametrize(("phase", "done"), [("begin", False), ("written", False), ("committed", True)])
def test_a_kill_at_any_phase_leaves_all_or_nothing(tmp_path, phase, done):
    process = multiprocessing.get_context("fork").Process(target=_killed_at, args=(str(tmp_path), phase))
    process.start()
    process.join(20)
    assert process.exitcode == 9
    store = StepStore(tmp_path)
    assert bool(store.steps("collect")) == done
    assert step(store).cached == done


def test_the_first_digits_of_a_digest_name_one_result_or_none(tmp_path):
    store = StepStore(tmp_path)
    one = step(store).step
    same = step(store, config=Config(size=2)).step  # another key, equal bytes: one result
    assert one.digest == same.digest
    assert store.by_digest("collect", one.digest[:6]).path == same.path
    assert store.by_digest("collect", "nothing") is None

    def write_others(out: Path) -> dict:
        (out / "letters.txt").write_text("xyz")
        return {}

    other = step(store, work=write_others, config=Config(size=3)).step
    with pytest.raises(SpecError, match=f"type more of the digest.*{min(one.digest, other.digest)}"):
        store.by_digest("collect", "")
    assert store.by_digest("collect", other.digest).path == other.path
