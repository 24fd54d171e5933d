"""A large set is opened in seconds and in little memory: rows are read once, films only when an episode is asked for.

Run: .venv/bin/python -m pytest tests/integration/test_large_sets.py -m "soak or not soak" -s
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.plain_set import plain_episode, write_film

LENGTH, FILES, DIMS = 200, 20, 14
KEY = "observation.images.front"
OPEN = """
import json, sys, time
from pathlib import Path
began = time.perf_counter()
from components.data.lerobot.reader import DatasetReader
from components.data.sources.location import contents_digest
reader = DatasetReader(Path(sys.argv[1]))
rows = reader.rows
opened = time.perf_counter()
digest = contents_digest(reader.root)
digested = time.perf_counter()
last = reader.episode(len(rows) - 1)
done = time.perf_counter()
# of this program alone: the resource module would tell the largest of the process that forked it, too
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({"episodes": len(rows), "rows": sum(r.length for r in rows), "open_s": opened - began, "digest_s": digested - opened,
                  "episode_s": done - digested, "peak_mib": peak, "frames": list(last.images["front"].shape)}))
"""


def write_large_set(root: Path, episodes: int) -> Path:
    """A LeRobot v3.0 folder of so many episodes of 200 frames; all their films are links to one."""
    per_file, names = episodes // FILES, [f"joint_{n}" for n in range(DIMS)]
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{KEY}/chunk-000"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    film = root / f"videos/{KEY}/chunk-000/file-000.mp4"
    write_film(film, np.tile(plain_episode(0, length=20, size=32).frames_THW3, (LENGTH // 20, 1, 1, 1)), 20)
    for number in range(1, min(episodes, 1000)):
        os.link(film, film.with_name(f"file-{number:03d}.mp4"))
    steps = np.tile(np.arange(LENGTH), per_file)
    for number in range(FILES):
        first = number * per_file
        count = per_file * LENGTH
        values = rng.normal(size=(count, DIMS)).astype(np.float32)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(values.ravel(), DIMS),
            "action": pa.FixedSizeListArray.from_arrays(np.roll(values, 1, axis=0).ravel(), DIMS),
            "timestamp": (steps / 20).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.repeat(np.arange(first, first + per_file), LENGTH),
            "index": np.arange(first * LENGTH, first * LENGTH + count),
            "task_index": np.zeros(count, np.int64),
        }
        pq.write_table(pa.table(columns), root / f"data/chunk-000/file-{number:03d}.parquet")
    rows = [
        {
            "episode_index": n,
            "tasks": ["work"],
            "length": LENGTH,
            "data/chunk_index": 0,
            "data/file_index": n // per_file,
            "dataset_from_index": n * LENGTH,
            "dataset_to_index": (n + 1) * LENGTH,
            f"videos/{KEY}/chunk_index": n // 1000,
            f"videos/{KEY}/file_index": n % 1000,
            f"videos/{KEY}/from_timestamp": 0.0,
            f"videos/{KEY}/to_timestamp": LENGTH / 20,
        }
        for n in range(episodes)
    ]
    for chunk in range(1, (episodes - 1) // 1000 + 1):
        (root / f"videos/{KEY}/chunk-{chunk:03d}").mkdir()
        for n in range(chunk * 1000, min(episodes, (chunk + 1) * 1000)):
            os.link(film, root / f"videos/{KEY}/chunk-{chunk:03d}/file-{n % 1000:03d}.mp4")
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["work"]}), root / "meta/tasks.parquet")
    vector = {"dtype": "float32", "shape": [DIMS], "names": names}
    features = {"observation.state": vector, "action": vector, KEY: {"dtype": "video", "shape": [32, 32, 3], "names": None}}
    info = {
        "codebase_version": "v3.0",
        "fps": 20,
        "total_episodes": episodes,
        "total_frames": episodes * LENGTH,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


@pytest.mark.parametrize("episodes", [100, pytest.param(5000, marks=pytest.mark.soak)])
def test_a_large_set_is_opened_quickly_and_in_little_memory(tmp_path: Path, episodes: int) -> None:
    root = write_large_set(tmp_path / "set", episodes)
    done = subprocess.run([sys.executable, "-c", OPEN, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sys.stderr.write(f"\n{found}\n")
    assert (found["episodes"], found["rows"]) == (episodes, episodes * LENGTH)
    assert found["frames"] == [LENGTH, 32, 32, 3]
    assert found["peak_mib"] < 2048
