"""LeRobot records a data set that we read, and reads a data set that we wrote: every number and every frame is compared.

LeRobot runs in an environment of its own, as a program (`clients/lerobot_sets.py`) that turns .npz into a folder and a folder into .npz.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics
from model_core.spec.episode import Episode
from tests.episodes import BODY, episode, write_dataset
from tests.plain_set import OPEN, PlainEpisode, plain_episode

SCRIPT = Path(__file__).parent / "clients" / "lerobot_sets.py"
RESUMED = 2  # the last ones, after the set was opened a second time: they lie in further files
FPS = 20


def _recorded(number: int, **changes: Any) -> PlainEpisode:
    """Episode `number` with a block that moves 10 pixels a step: a lossy codec cannot make one frame look like another."""
    one = plain_episode(number, **changes)
    frames = np.full_like(one.frames_THW3, 90)
    for step in range(len(one)):
        top, left = (10 * part for part in divmod(step, 8))
        frames[step, top : top + 10, left : left + 10] = (250, 40 + 60 * number, 20)
    return replace(one, frames_THW3=frames)


RECORDED = (_recorded(0), _recorded(1, length=31, task=OPEN), _recorded(2, length=7), _recorded(3, length=24, task=OPEN))


def run_lerobot(python: Path, *words: str, home: Path) -> str:
    """Run the program; gives the last lines of a program that failed, "" for one that did not."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ACTWRIGHT"))}
    settings |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_LEROBOT_HOME": str(home / "lerobot"), "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), str(SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=settings)
    return "" if done.returncode == 0 else done.stderr[-2000:]


def checks(python: Path) -> Iterator[dict[str, Any]]:
    """Every check in both directions."""
    with TemporaryDirectory() as folder:
        yield from lerobot_writes(python, Path(folder))
        yield from lerobot_reads(python, Path(folder))


def lerobot_writes(python: Path, work: Path) -> Iterator[dict[str, Any]]:
    """LeRobot is the writer, ours the reader."""
    arrays: dict[str, Any] = {"fps": FPS, "robot_type": "metaworld-sawyer"}
    for number, one in enumerate(RECORDED):
        arrays |= {f"state_{number}": one.state_TP, f"action_{number}": one.actions_TA}
        arrays |= {f"frames_{number}": one.frames_THW3, f"task_{number}": one.tasks[0]}
    np.savez(work / "episodes.npz", **arrays)
    root = work / "theirs"
    trouble = run_lerobot(python, "write", str(work / "episodes.npz"), str(root), "--resumed", str(RESUMED), home=work)
    yield check("LeRobot writes: it records and is opened a second time to record more", not trouble, trouble)
    if trouble:
        return
    reader = DatasetReader(root)
    lengths = [len(one) for one in RECORDED]
    yield check("LeRobot writes: the episodes and their lengths", [row.length for row in reader.rows] == lengths, str(lengths))
    read = list(reader.episodes())
    files = len(list(root.glob("data/**/*.parquet"))), len(list(root.glob("videos/**/*.mp4")))
    yield check("LeRobot writes: several data files and films", min(files) > 1, f"{files[0]} data files, {files[1]} films")
    yield check("LeRobot writes: every instruction", [one.instruction for one in read] == [one.tasks[0] for one in RECORDED])
    same = all(map(_same_numbers, read, RECORDED))
    yield check("LeRobot writes: every state, action and timestamp, exactly", same, f"{sum(lengths)} frames")
    wrong = _strange_frames(read)
    detail = f"frames that look more like another step's: {wrong[:5]}" if wrong else f"{sum(lengths)} frames"
    yield check("LeRobot writes: every frame is its own step's, in LeRobot's default codec", not wrong, detail)
    stale = stale_statistics(reader)
    yield check("LeRobot writes: its statistics are found to be those of the data", stale == [], "; ".join(map(str, stale)))


def lerobot_reads(python: Path, work: Path) -> Iterator[dict[str, Any]]:
    """Ours is the writer, with several files of each kind; LeRobot the reader."""
    episodes = [episode(n, length=8 + n) for n in range(7)]
    root = write_dataset(work / "ours", episodes, video_frames_per_file=25, file_bytes=3_000)
    trouble = run_lerobot(python, "read", str(root), str(work / "read.npz"), home=work)
    yield check("LeRobot reads: the set is opened and every frame is given", not trouble, trouble)
    if trouble:
        return
    with np.load(work / "read.npz") as read:
        found = int(read["episodes"]), int(read["fps"]), str(read["robot_type"])
        wanted = len(episodes), round(BODY.control_hz), BODY.name
        yield check("LeRobot reads: number of episodes, frame rate, robot type", found == wanted, f"{found}")
        rows = [(n, step) for n, one in enumerate(episodes) for step in range(len(one))]
        yield check(
            "LeRobot reads: frames in order", _pairs(read) == rows and read["index"].tolist() == list(range(len(rows))), f"{len(rows)}"
        )
        state = np.array_equal(read["observation.state"], np.concatenate([one.proprio_TP for one in episodes]))
        action = np.concatenate([one.actions_TA for one in episodes])
        yield check("LeRobot reads: every state and action, exactly", state and np.array_equal(read["action"], action))
        tasks = [one.instruction for one in episodes for _ in range(len(one))]
        yield check("LeRobot reads: every instruction", read["task"].tolist() == tasks)
        same = np.array_equal(read["frames"], np.concatenate([one.images["front"] for one in episodes]))
        yield check("LeRobot reads: every pixel, exactly", same)
        chunk, pad = _chunks(episodes, 3)
        yield check(
            "LeRobot reads: action chunks end with their episode", np.array_equal(read["chunk_is_pad"], pad), f"{int(pad.sum())} padded"
        )
        yield check("LeRobot reads: action chunks, exactly", np.array_equal(read["chunk"], chunk))
        mean = np.allclose(read["action_mean"], action.astype(np.float64).mean(axis=0), rtol=0, atol=1e-6)
        yield check("LeRobot reads: the mean of the actions in our statistics", mean)


def check(name: str, passed: bool, detail: str = "") -> dict[str, Any]:
    """One line of the report."""
    return {"check": name, "passed": bool(passed), "detail": detail}


def _same_numbers(read: Episode, recorded: PlainEpisode) -> bool:
    times = np.abs(read.timestamps_T - np.arange(len(recorded)) / FPS).max() < 1e-5
    return bool(times) and np.array_equal(read.proprio_TP, recorded.state_TP) and np.array_equal(read.actions_TA, recorded.actions_TA)


def _strange_frames(read: list[Episode]) -> list[int]:
    """Rows of the whole set whose frame is not nearest to the one that was recorded there."""
    recorded_NX = np.concatenate([one.frames_THW3 for one in RECORDED]).reshape(sum(map(len, RECORDED)), -1).astype(np.float32)
    read_NX = np.concatenate([one.images["front"] for one in read]).reshape(len(recorded_NX), -1).astype(np.float32)
    nearest_N = [int(((recorded_NX - frame_X) ** 2).sum(axis=1).argmin()) for frame_X in read_NX]
    return [row for row, found in enumerate(nearest_N) if found != row]


def _pairs(read: Any) -> list[tuple[int, int]]:
    return list(zip(read["episode_index"].tolist(), read["frame_index"].tolist(), strict=True))


def _chunks(episodes: list[Episode], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The actions of each step and the following ones; past the end of an episode its last one, marked as padding."""
    chunks, pads = [], []
    for one in episodes:
        ahead = np.arange(len(one))[:, None] + np.arange(steps)
        chunks.append(one.actions_TA[np.minimum(ahead, len(one) - 1)])
        pads.append(ahead >= len(one))
    return np.concatenate(chunks), np.concatenate(pads)
