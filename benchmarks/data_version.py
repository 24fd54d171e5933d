"""A version of many frames, and one more episode, against `dvc add` of as many loose frame files.

    ours   episodes in memory -> packs -> DVC's files, written without its program (`components.adapters.dvc_files`); packing is timed
    peer   the same frames as one file each, written before the clock runs -> `dvc add`; then the files of one more episode -> `dvc add`

Both keep the same bytes. DVC must take our version for its own: `dvc status` finds nothing changed, `dvc push` sends it, `dvc pull` brings
it back into another repository with equal bytes. Times are medians; the sides alternate; every repeat begins with an empty repository.
Wall time counts; the ratio of processor time stands beside it, since it hardly feels what else the machine does.

Run: python benchmarks/data_version.py [--full] [--side PIXELS]     writes benchmarks/results/data_version.json
Without --full: 5,000 frames three times; with it 50,000 once (a quarter of an hour on a busy machine).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, medians, ratio, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "data_version.json"
LENGTH = 100
SMALL, FULL = (5_000, 3), (50_000, 1)  # frames, repeats
LIMITS = {"version": (5.0, 20.0), "one_more_episode": (10.0, 50.0)}  # floor, goal
MOST_NEW_BYTES = 1.1


def episode(number: int, side: int):
    from model_core.spec.episode import Episode, Provenance

    rng = np.random.default_rng(number)
    numbers = rng.normal(size=(LENGTH, 7)).astype(np.float32)
    return Episode(
        episode_id=f"e-{number}",
        embodiment="arm",
        task="t",
        instruction="do it",
        success=True,
        provenance=Provenance(producer="teleop:x", cell="c", seed=number),
        images={"front": rng.integers(0, 256, (LENGTH, side, side, 3), np.uint8)},
        depth_m={},
        geometry={},
        proprio_TP=numbers,
        actions_TA=numbers,
        executed_TA=numbers,
        timestamps_T=np.arange(LENGTH) / 20,
    )


def repository(root: Path) -> Path:
    (root / ".dvc").mkdir(parents=True)
    remote = root.parent / f"{root.name}-remote"
    core = "[core]\n    no_scm = True\n    analytics = false\n    remote = r\n"
    (root / ".dvc" / "config").write_text(f"{core}['remote \"r\"']\n    url = {remote}\n")
    return root


def dvc(root: Path, *words: str) -> str:
    program = Path(sys.executable).parent / "dvc"
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    return subprocess.run([str(program), *words], cwd=root, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Clock:
    """Wall and processor time of this process and of those that it started, from now on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), self._processor()

    def read(self, name: str) -> dict[str, float]:
        return {name: time.perf_counter() - self._wall, f"{name}_cpu": self._processor() - self._cpu}

    @staticmethod
    def _processor() -> float:
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)


def ours(root: Path, episodes: int, side: int) -> dict[str, Any]:
    from components.adapters.dvc_files import add_folder
    from components.data.packing.packs import PackWriter

    made = [episode(number, side) for number in range(episodes + 1)]  # not timed: the peer's frames are there too
    clock = Clock()
    writer = PackWriter(folder=root / "packs")
    for one in made[:-1]:
        writer.add(one)
    writer.close()
    add_folder(root, root / "packs")
    first = clock.read("version")
    cached = size(root / ".dvc" / "cache")
    clock = Clock()
    writer = PackWriter(folder=root / "packs")
    writer.add(made[-1])
    writer.close()
    add_folder(root, root / "packs")
    more = clock.read("one_more_episode")
    new = size(root / ".dvc" / "cache") - cached + (root / "packs.dvc").stat().st_size
    content = sum(array.nbytes for one in made[-1:] for array in (*one.images.values(), one.proprio_TP, one.actions_TA, one.executed_TA))
    return {**first, **more, "new_bytes": new, "episode_bytes": content + made[-1].timestamps_T.nbytes}


def peer(root: Path, episodes: int, side: int) -> dict[str, Any]:
    writing = time.perf_counter()
    for number in range(episodes):
        write_loose(root / "loose", number, side)
    writing = time.perf_counter() - writing
    clock = Clock()
    dvc(root, "add", "--quiet", "loose")
    first = clock.read("version")
    cached = size(root / ".dvc" / "cache")
    write_loose(root / "loose", episodes, side)
    clock = Clock()
    dvc(root, "add", "--quiet", "loose")
    more = clock.read("one_more_episode")
    new = size(root / ".dvc" / "cache") - cached
    return {**first, **more, "new_bytes": new, "writing_files": writing}


def write_loose(folder: Path, number: int, side: int) -> None:
    place = folder / f"episode_{number:06d}"
    place.mkdir(parents=True)
    for frame, image_HW3 in enumerate(episode(number, side).images["front"]):
        (place / f"frame_{frame:06d}.raw").write_bytes(image_HW3.tobytes())


def accepted(root: Path) -> dict[str, bool]:
    """What DVC itself says of our version, and whether another machine gets it back."""
    from components.data.packing.packs import pack_files

    found = {"status": dvc(root, "status", "--json") == "{}"}
    dvc(root, "push", "--quiet")
    other = root.parent / f"{root.name}-other"
    (other / ".dvc").mkdir(parents=True)
    shutil.copyfile(root / ".dvc" / "config", other / ".dvc" / "config")
    shutil.copyfile(root / "packs.dvc", other / "packs.dvc")
    dvc(other, "pull", "--quiet")
    ours_packs, theirs = pack_files(root / "packs"), pack_files(other / "packs")
    names = [path.name for path in ours_packs] == [path.name for path in theirs]
    found["pull"] = names and all(a.read_bytes() == b.read_bytes() for a, b in zip(ours_packs, theirs, strict=True))
    return found


def same_frames(root: Path, loose: Path) -> bool:
    from components.data.packing.packs import open_packs

    for number, found in enumerate(open_packs(root / "packs")):
        images_THW3 = found.read().images["front"]
        files = sorted((loose / f"episode_{number:06d}").iterdir())
        if b"".join(path.read_bytes() for path in files) != images_THW3.tobytes():
            return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL[0]} frames in place of {SMALL[0]}")
    parser.add_argument("--frames", type=int, default=0, help="another number of frames")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side: 32 makes files of 3 kB, as a compressed frame has")
    parser.add_argument("--repeats", type=int, default=0)
    options = parser.parse_args()
    started, load = time.perf_counter(), os.getloadavg()
    frames, repeats = FULL if options.full else SMALL
    episodes, repeats = max(1, (options.frames or frames) // LENGTH), options.repeats or repeats
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as work:
            mine, theirs = repository(Path(work) / "ours"), repository(Path(work) / "peer")
            sides = [("ours", ours, mine), ("peer", peer, theirs)]
            for name, measure, root in sides if repeat % 2 == 0 else reversed(sides):
                runs[name].append(measure(root, episodes, options.side))
            if repeat == 0:
                equal, dvc_says = same_frames(mine, theirs / "loose"), accepted(mine)
    ratios = {what: ratio(runs["peer"], runs["ours"], what) for what in LIMITS}
    growth = max(run["new_bytes"] / run["episode_bytes"] for run in runs["ours"])
    result = {
        "what": "seconds for a version of all frames, and for one more episode; ratio is the peer's time to ours",
        "frames": episodes * LENGTH,
        "frame_bytes": options.side * options.side * 3,
        "seconds": medians(runs, [*LIMITS, *(f"{what}_cpu" for what in LIMITS)]),
        "peer_writes_its_files_in_s": round(max(run["writing_files"] for run in runs["peer"]), 1),
        "ratio": ratios,
        "ratio_of_processor_time": {what: ratio(runs["peer"], runs["ours"], f"{what}_cpu")["ratio"] for what in LIMITS},
        "floor_and_goal": LIMITS,
        "is_goal_reached": {what: ratios[what]["ratio"] >= LIMITS[what][1] for what in LIMITS},
        "new_bytes_to_episode": round(growth, 4),
        "most_new_bytes_to_episode": MOST_NEW_BYTES,
        "frames_are_equal": equal,
        "dvc_accepts": dvc_says,
        "conditions": conditions(load, started, dvc=version("dvc")),
    }
    written(result, RESULT)
    above_floor = all(ratios[what]["ratio"] >= LIMITS[what][0] for what in LIMITS)
    raise SystemExit(0 if above_floor and growth <= MOST_NEW_BYTES and equal and all(dvc_says.values()) else 1)


if __name__ == "__main__":
    main()
