"""What `actwright data export` and `repair` write, read by LeRobot's own readers: every number, sentence and frame is compared.

LeRobot 0.4.4 reads version 3.0, LeRobot 0.3.3 version 2.1; each runs in an environment of its own as the program
`clients/lerobot_sets.py`, which turns a folder into .npz.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.config.records import Silent
from components.data.editing.repair.rebuild import repair
from components.data.export.export import export_lerobot
from components.data.lerobot.reader import DatasetReader
from tests.conformance.data_sets import RECORDED, check, run_lerobot
from tests.episodes import BODY, episode, write_dataset
from tests.plain_set import plain_episode, write_plain_set

# dB: how far the loss that LeRobot sees may be from the one that the export measured with our reader (colours are converted differently)
SAME_LOSS_DB = 1.0


def checks(python: Path, version: str) -> Iterator[dict[str, Any]]:
    """Every check of one LeRobot. version: "v3.0" or "v2.1", which it reads."""
    with TemporaryDirectory() as folder:
        work = Path(folder)
        ours = DatasetReader(write_dataset(work / "ours", [episode(n, length=8 + n) for n in range(4)], video_frames_per_file=20))
        plain = write_plain_set(work / "plain", RECORDED)
        for codec in ("lossless", "av1", "h264"):
            source = ours if codec == "lossless" else DatasetReader(plain)
            target = work / f"{version}-{codec}"
            told = export_lerobot(source, target, Silent(), format_name=f"lerobot-{version}", codec=codec)
            yield from _read(python, work, source, target, (f"LeRobot reads our {version} export, {codec}", told.psnr_db))
        if version == "v3.0":
            broken = _broken(work / "broken")
            repair(broken, work / "whole", Silent())
            whole = DatasetReader(work / "whole")
            yield from _read(python, work, whole, work / "whole", ("LeRobot reads what we repaired", None))


def _broken(root: Path) -> Path:
    """A set whose recorder was killed before it finalized."""
    write_plain_set(root, [plain_episode(n, length=9 + n) for n in range(3)])
    path, sink = root / "data/chunk-000/file-000.parquet", io.BytesIO()
    table = pq.read_table(path)
    writer = pq.ParquetWriter(sink, table.schema)
    for number in range(3):
        writer.write_table(table.filter(pc.equal(table["episode_index"], number)))
    path.write_bytes(sink.getvalue())
    shutil.rmtree(root / "meta/episodes")
    return root


def _read(python: Path, work: Path, source: DatasetReader, target: Path, told: tuple[str, float | None]) -> Iterator[dict[str, Any]]:
    """told: the beginning of the checks' names, and the loss that the export measured in dB; None: every pixel is equal."""
    name, psnr_db = told
    result = work / f"{target.name}.npz"
    trouble = run_lerobot(python, "read", str(target), str(result), home=work)
    yield check(f"{name}: it is opened and every frame is given", not trouble, trouble)
    if trouble:
        return
    episodes = list(source.episodes())
    with np.load(result) as read:
        found = int(read["episodes"]), int(read["fps"]), str(read["robot_type"])
        yield check(f"{name}: episodes, rate and robot", found == (len(episodes), round(BODY.control_hz), BODY.name), f"{found}")
        rows = [(n, step) for n, one in enumerate(episodes) for step in range(len(one))]
        pairs = list(zip(read["episode_index"].tolist(), read["frame_index"].tolist(), strict=True))
        yield check(f"{name}: frames in order", pairs == rows, f"{len(rows)} frames")
        state, action = (np.concatenate([getattr(one, part) for one in episodes]) for part in ("proprio_TP", "actions_TA"))
        same = np.array_equal(read["observation.state"], state) and np.array_equal(read["action"], action)
        yield check(f"{name}: every state and action, exactly", same)
        sentences = [one.instruction for one in episodes for _ in range(len(one))]
        yield check(f"{name}: every instruction", read["task"].tolist() == sentences)
        frames_NHW3 = np.concatenate([one.images["front"] for one in episodes])
        if psnr_db is None:
            yield check(f"{name}: every pixel, exactly", np.array_equal(read["frames"], frames_NHW3))
        else:
            yield _lossy(name, read["frames"], frames_NHW3, psnr_db)
        mean = np.allclose(np.ravel(read["action_mean"]), action.astype(np.float64).mean(axis=0), rtol=0, atol=1e-6)
        yield check(f"{name}: the mean of the actions in its statistics", mean)


def _lossy(name: str, read_NHW3: np.ndarray, written_NHW3: np.ndarray, told_db: float) -> dict[str, Any]:
    """Every frame is nearer to the one that was written than to any other one, and all lost what the export said."""
    flat_read = read_NHW3.reshape(len(read_NHW3), -1).astype(np.float32)
    flat_written = written_NHW3.reshape(len(written_NHW3), -1).astype(np.float32)
    nearest = [int(np.square(flat_written - one).sum(axis=1).argmin()) for one in flat_read]
    wrong = [row for row, found in enumerate(nearest) if found != row]
    psnr_db = 10 * float(np.log10(255**2 / np.square(flat_read - flat_written, dtype=np.float64).mean()))
    passed = not wrong and abs(psnr_db - told_db) <= SAME_LOSS_DB
    return check(
        f"{name}: every frame within the codec", passed, f"{psnr_db:.2f} dB, the export said {told_db:.2f}; wrong frames {wrong[:5]}"
    )
