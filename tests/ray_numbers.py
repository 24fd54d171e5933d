"""Frames that are drawn from their numbers, labelled on a Ray cluster of two machines of which one is killed, and so is the driver.

Run: python -m tests.ray_numbers FOLDER COUNT ADDRESS SECONDS     labels COUNT frames; SECONDS: that the model takes for one
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.config.launch.ray_config import RayConfig
from components.data.annotators.interface import ImageAnswers
from components.data.labelling.engine import LabelJob, Shard, ShardAnswer, accounted
from components.data.labelling.labeller import ImageLabeller
from components.data.labelling.on_ray.engine import DRIVER, RayEngine
from components.data.labelling.on_ray.job import RayFolder
from components.data.labelling.on_ray.rows import rows_written
from tests.namespaces import two_hosts

ROOT = Path(__file__).parents[1]
NAME = "tests.ray_numbers"  # as another process imports this module
HEAD = "10.99.0.1:6399"
TORN, DARK = 97, 101  # every so many frames one cannot be read, or shows nothing
SHARD, BLOCK, BATCH, ACTORS = 1000, 256, 64, 2


def reason_of(number: int) -> str:
    """Why a frame has no label; "" where it has one."""
    if number % TORN == 0:
        return f"frame {number} is torn"
    return "nothing to see" if number % DARK == 0 else ""


class Drawer:
    """Draws frames from their numbers."""

    def description(self) -> Mapping[str, Any]:
        return {}

    def label(self, shard: Shard) -> ShardAnswer:
        numbers = shard.columns["number"]
        good = [place for place, number in enumerate(numbers) if number % TORN]
        images = np.zeros((len(good), 8, 8, 3), np.uint8)
        for image, place in zip(images, good, strict=True):
            image[...] = np.frombuffer(int(numbers[place]).to_bytes(3, "big"), np.uint8)
        errors = {shard.row_ids[place]: reason_of(int(number)) for place, number in enumerate(numbers) if number % TORN == 0}
        return ShardAnswer(row_ids=tuple(shard.row_ids[place] for place in good), columns={"images": images} if good else {}, errors=errors)


@dataclass(frozen=True)
class Reader:
    """Reads the number back from an image."""

    seconds: float
    version: str = "reader/1"

    def answer_images(self, images_NHW3: np.ndarray) -> ImageAnswers:
        time.sleep(self.seconds * len(images_NHW3))
        numbers = [int.from_bytes(image[3, 3].tobytes(), "big") for image in images_NHW3]
        errors = {place: reason_of(number) for place, number in enumerate(numbers) if reason_of(number)}
        return ImageAnswers(columns={"number": np.array(numbers, np.int64)}, errors=errors)


def open_drawer(settings: Mapping[str, Any]) -> Drawer:
    del settings
    return Drawer()


def open_reader(settings: Mapping[str, Any]) -> ImageLabeller:
    return ImageLabeller(annotator=Reader(float(settings["seconds"])))


def engine(folder: Path, address: str, seconds: float) -> RayEngine:
    return RayEngine(
        job=LabelJob(maker=f"{NAME}:open_reader", settings={"seconds": seconds}),
        decoder=LabelJob(maker=f"{NAME}:open_drawer", settings={}),
        ray=RayConfig(address=address, actors=ACTORS, block_rows=BLOCK),
        folder=folder,
        batch=BATCH,
    )


def shards(count: int) -> Iterator[Shard]:
    for first in range(0, count, SHARD):
        numbers = np.arange(first, min(first + SHARD, count), dtype=np.int64)
        yield Shard(row_ids=tuple(f"frame:{number}" for number in numbers), columns={"number": numbers})


def main() -> None:
    folder, count, address, seconds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    work = engine(folder, address, seconds)
    wrong, labels, reasons = 0, 0, 0
    for answer in accounted(work, shards(count)):
        labels, reasons = labels + len(answer.row_ids), reasons + len(answer.errors)
        numbers = answer.columns.get("number", ())
        wrong += sum(row_id != f"frame:{number}" for row_id, number in zip(answer.row_ids, numbers, strict=True))
        wrong += sum(reason != reason_of(int(row_id.partition(":")[2])) for row_id, reason in answer.errors.items())
    assert work.done is not None
    sys.stdout.write(json.dumps({"labels": labels, "reasons": reasons, "wrong": wrong, "rows_of_this_run": work.done.rows}) + "\n")


# --- two machines, and what is killed ------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_ray_nodes(folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """(namespaces, environment) of a cluster with a head of four CPUs and one more machine of two."""
    token = folder / "cluster-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--object-store-memory=200000000", "--block"]
    started: list[subprocess.Popen[bytes]] = []
    with two_hosts(["ray-head", "ray-worker"]) as spaces:
        try:
            for space, words in (
                (spaces[0], ["--head", "--node-ip-address=10.99.0.1", "--port=6399", "--num-cpus=4", "--include-dashboard=false"]),
                (spaces[1], [f"--address={HEAD}", "--node-ip-address=10.99.0.2", "--num-cpus=2"]),
            ):
                log = folder / f"node-{len(started)}.log"
                with log.open("wb") as sink:
                    command = ["ip", "netns", "exec", space, "nice", "-n", "10", ray, "start", *words, *common]
                    started.append(subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, cwd=ROOT, start_new_session=True))
                wait_for(lambda log=log: "Ray runtime started" in log.read_text(errors="replace"), f"{log} says that Ray started")
            yield spaces, environment
        finally:
            for space in spaces:
                kill_node(space)
            for process in started:
                process.wait(30)


def wait_for(condition: Any, what: str, timeout_s: float = 400.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"expected within {timeout_s:.0f} s: {what}"
        time.sleep(0.2)


def pids_of(space: str) -> list[int]:
    told = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in told.split()]


def kill_node(space: str) -> None:
    """SIGKILL of every process of a machine, as when its power is cut."""
    for pid in pids_of(space):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_driver(space: str) -> None:
    """SIGKILL of the driver alone."""
    for pid in pids_of(space):
        with contextlib.suppress(OSError):
            if f"-m\0{DRIVER}" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


def resident_mib(spaces: list[str]) -> int:
    """Memory of all processes of the machines."""
    total = 0
    for pid in (pid for space in spaces for pid in pids_of(space)):
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) - int(Path(f"/proc/{pid}/statm").read_text().split()[2])
            total += pages * os.sysconf("SC_PAGE_SIZE")
    return total // 2**20


def labelled_through_kills(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Label `count` frames; the second machine is killed at a quarter of them, the driver at a half, and then it is run again."""
    place, known = RayFolder(folder / "job"), dict[str, int]()
    memory: list[tuple[int, int]] = []

    def written() -> int:
        return rows_written(place.answers, known)

    with two_ray_nodes(folder) as (spaces, environment):
        words = [sys.executable, "-m", "tests.ray_numbers", str(place.root), str(count), HEAD, str(seconds)]
        command = ["ip", "netns", "exec", spaces[0], *words]
        began = time.monotonic()
        first = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for share, kill, whom in ((4, kill_node, spaces[1]), (2, kill_driver, spaces[0])):
            wait_for(lambda share=share: written() >= count // share or first.poll() is not None, f"1/{share} of {count} frames")
            assert first.poll() is None, first.communicate()[0] + place.log.read_text()[-4000:]
            memory.append((written(), resident_mib(spaces[:1])))
            kill(whom)
        told, _ = first.communicate(timeout=100)
        assert first.returncode == 1, told
        assert "the Ray driver ended with signal 9" in told
        time.sleep(2)  # what was in the hands of the head's workers is written, or never will be
        known.clear()
        second = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for(lambda: written() >= 9 * count // 10 or second.poll() is not None, "nine tenths of the frames")
        memory.append((written(), resident_mib(spaces[:1])))
        told, _ = second.communicate(timeout=400)
        assert second.returncode == 0, told + place.log.read_text()[-4000:]
    found = json.loads(told.strip().splitlines()[-1])
    return {**found, "frames": count, "wall_s": round(time.monotonic() - began), "memory_mib_at_rows": memory}


if __name__ == "__main__":
    main()
