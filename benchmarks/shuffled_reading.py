"""Shuffled samples a second, against LeRobot 0.4.4 and webdataset 1.0.2 on the same frames: from this disk, and over a network.

A sample is one frame: two cameras, state, a chunk of eight actions. Every side reads every frame once for the comparison of images, then is
timed on `--samples` of them, sides alternating. Wall time counts; processor seconds of the reading process stand beside it.

    ours         packs (`components.data.packing`): mapped files on the disk; a pushed version by range requests over the network
    lerobot      a v3.0 set of the same frames (lossless H.264), torchcodec, DataLoader with 0 and 2 processes, the faster one counts
    webdataset   tar files of the raw arrays, so that it decodes nothing; its shuffle buffer of 1,000
    streaming    LeRobot's streaming reader by its HTTP way, its shuffle buffer of 1,000; 20 ms are added to each request of both sides

How well an order is mixed is told for every side: the share of pairs of samples of a batch of 64 that are of one episode. Over the network
ours reads blocks of 16 frames and mixes 64 of them, as the peers mix what their buffers hold.

Ours is also timed making what LeRobot makes of an image (float32 tensor, channels first): the ratio to LeRobot is of that time. Sizes on
the disk are told, since raw frames need more. The oracle decodes every film from its first frame on, with PyAV.

Run: python benchmarks/shuffled_reading.py [--peers PYTHON] [--full]     writes benchmarks/results/shuffled_reading.json
Without --full: 1,000 frames and two repeats; with it 10,000 and five.
The peers live in an environment of their own (.actwright/benchmarks/readers), which is made where --peers names none. LeRobot's decoder
needs Debian's FFmpeg 5 libraries: libavcodec59 libavformat59 libavfilter8 libavdevice59 libswscale6 libswresample4.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, ratio, written  # noqa: E402
from benchmarks.peers.readers import Clock, same_episode  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "shuffled_reading.json"
PEERS = ROOT / "benchmarks" / "peers" / "readers.py"
HOME = ROOT / ".actwright" / "benchmarks" / "readers"
LOCAL, REMOTE = (1.0, 1.5), (5.0, 10.0)  # floor, goal
LATENCY_S, CHUNK = 0.02, 8
BLOCK, WINDOW, AHEAD = 16, 64, 1024  # of our reading over the network
SMALL, FULL = (1_000, 2), (10_000, 5)  # frames, repeats
CAMERAS = ("front", "wrist")
# two steps: lerobot's own requirements ask for other builds of torch than a machine without a GPU has
PACKAGES = (
    ("torch==2.13.0", "numpy==2.2.6", "pandas", "pyarrow", "av<16", "datasets==4.1.1", "huggingface-hub<0.36", "jsonlines", "deepdiff"),
    ("einops", "termcolor", "draccus==0.10.0", "packaging<26", "webdataset==1.0.2", "pillow", "psutil", "safetensors"),
)
BARE = ("torchvision==0.28.0", "torchcodec==0.13.0", "accelerate==1.10.1", "lerobot==0.4.4")


def environment() -> Path:
    python = HOME / "bin" / "python"
    stamp = HOME / ".packages"
    wanted = json.dumps([PACKAGES, BARE])
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES[0], *PACKAGES[1]], check=True)
        subprocess.run([*install, "--no-deps", *BARE], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def write_sets(work: Path, frames: int, side: int) -> None:
    """The same episodes as a LeRobot set, as packs with a pushed version, and as arrays for the tar files."""
    from components.adapters.dvc_files import add_folder
    from components.data.lerobot.reader import DatasetReader
    from components.data.lerobot.writer import DatasetWriter
    from components.data.packing.packs import PackWriter

    length = min(100, frames)
    with DatasetWriter(work / "lerobot", embodiment=embodiment(side)) as recorder:
        for number in range(frames // length):
            recorder.add(episode(number, length, side))
    (work / "repository" / ".dvc").mkdir(parents=True)
    packs, columns = PackWriter(folder=work / "repository" / "packs"), dict[str, list[Any]]()
    for one in DatasetReader(work / "lerobot").episodes():
        packs.add(one)
        row = {f"observation.images.{name}": one.images[name] for name in CAMERAS}
        row |= {"observation.state": one.proprio_TP, "action": chunks(one.actions_TA), "frame": np.arange(len(one))}
        row["episode"] = np.full(len(one), int(one.episode_id.rpartition("-")[2]))
        for name, array in row.items():
            columns.setdefault(name, []).append(array)
    packs.close()
    (work / "version").write_text(add_folder(work / "repository", work / "repository" / "packs").md5, encoding="utf-8")
    np.savez(work / "frames.npz", **{name: np.concatenate(arrays) for name, arrays in columns.items()})
    (work / "tars").mkdir()


def chunks(actions_TA: np.ndarray) -> np.ndarray:
    steps = np.minimum(np.arange(len(actions_TA))[:, None] + np.arange(CHUNK), len(actions_TA) - 1)
    return actions_TA[steps]


def embodiment(side: int):
    from dataclasses import replace

    from components.simulation.metaworld import embodiment as sawyer
    from model_core.spec.contract import CameraSpec

    body = sawyer()
    camera = body.cameras[0]
    cameras = tuple(replace(camera, name=name, height=side, width=side) for name in CAMERAS)
    assert isinstance(camera, CameraSpec)
    return replace(body, cameras=cameras)


def episode(number: int, length: int, side: int):
    """Smooth moving images, which a video codec treats as it treats a camera's, with some noise."""
    from model_core.spec.episode import Episode, Provenance

    rng = np.random.default_rng(number)
    body = embodiment(side)
    grid = np.linspace(0, 4, side)
    images = {}
    for camera, name in enumerate(CAMERAS):
        phase_T = np.linspace(0, 3, length) + number + camera
        wave_THW = 100 + 80 * np.sin(grid[None, None, :] + phase_T[:, None, None]) * np.cos(grid[None, :, None] - phase_T[:, None, None])
        noise = rng.integers(-6, 7, (length, side, side, 3))
        images[name] = np.clip(wave_THW[..., None] * np.array([1.0, 0.8, 0.6]) + noise, 0, 255).astype(np.uint8)
    actions = rng.uniform(-1, 1, (length, len(body.action))).astype(np.float32)
    return Episode(
        episode_id=f"e-{number}",
        embodiment=body.name,
        task="t",
        instruction="do it",
        success=True,
        provenance=Provenance(producer="expert:x", cell="c", seed=number),
        images=images,
        depth_m={},
        geometry={},
        proprio_TP=rng.normal(size=(length, len(body.proprio))).astype(np.float32),
        actions_TA=actions,
        executed_TA=actions,
        timestamps_T=np.arange(length) / body.control_hz,
    )


def ours(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Our side, in this process; a JSON document as the peers print."""
    import torch

    from components.adapters.storage.ranges import HttpRanges
    from components.data.packing.packs import open_packs
    from components.data.packing.remote import open_version
    from components.data.packing.shuffled import ShuffledFrames

    clock = Clock()
    if options.url:
        opened = open_version(HttpRanges(options.url, connections=64), (work / "version").read_text(encoding="utf-8"))
    else:
        opened = open_packs(work / "repository" / "packs")
    remote = {"ahead": AHEAD, "block": BLOCK, "window": WINDOW} if options.url else {}
    frames = ShuffledFrames(opened, seed=1, chunk=CHUNK, **remote)
    lines, count = [], 0
    if not options.url:
        clock = Clock()  # as for the peers: their readers are open before the clock runs
    for sample in frames.epoch(0):
        count += 1
        if options.floats:
            for image in sample.images.values():
                torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        if options.hash:
            total = hashlib.sha256()
            for name in sorted(sample.images):
                total.update(np.ascontiguousarray(sample.images[name]).tobytes())
            lines.append(f"{sample.episode} {sample.frame} {total.hexdigest()}")
        if count == options.samples:
            break
    seconds, cpu = time.perf_counter() - clock.wall, time.process_time() - clock.cpu
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    found = {"samples": count, "seconds": seconds, "cpu": cpu, "frames": digest, "distinct": len(set(lines))}
    return found | {"same_episode": same_episode([int(line.split()[0]) for line in lines])}


def oracle(work: Path) -> str:
    """Every frame, decoded from the first frame of its file on; nothing is seeked."""
    import av

    lines: dict[tuple[int, int], Any] = {}
    for name in sorted(CAMERAS):
        number = 0
        for path in sorted((work / "lerobot" / "videos" / f"observation.images.{name}").rglob("*.mp4")):
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    lines.setdefault((number, 0), hashlib.sha256()).update(frame.to_ndarray(format="rgb24").tobytes())
                    number += 1
    length = min(100, len(lines))
    text = [f"{number // length} {number % length} {total.hexdigest()}" for (number, _), total in lines.items()]
    return hashlib.sha256("\n".join(sorted(text)).encode()).hexdigest()


def ran(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rate(runs: list[dict[str, Any]]) -> float:
    return statistics.median(run["samples"] / run["seconds"] for run in runs)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="python of an environment that has lerobot and webdataset")
    parser.add_argument("--full", action="store_true", help=f"{FULL[0]} frames in place of {SMALL[0]}")
    parser.add_argument("--frames", type=int, default=0, help="another number of frames, in episodes of 100")
    parser.add_argument("--samples", type=int, default=2_000, help="samples a timed run on the disk")
    parser.add_argument("--remote-samples", type=int, default=1_000, help="samples a timed run over the network")
    parser.add_argument("--side", type=int, default=128, help="pixels of an image's side")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--hash", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--floats", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(options.work, options)))
        return
    from benchmarks.peers.range_server import RangeServer

    started, load = time.perf_counter(), os.getloadavg()
    size_of_run = FULL if options.full else SMALL
    options.frames, options.repeats = options.frames or size_of_run[0], options.repeats or size_of_run[1]
    python = str(options.peers or environment())
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_sets(work, options.frames, options.side)
        peer, mine = [python, str(PEERS)], [sys.executable, __file__, "--ours", "--work", str(work)]
        subprocess.run([*peer, "pack", str(work / "tars"), "--frames", str(work / "frames.npz")], check=True)
        all_of_it, truth = ["--hash", "--samples", "0"], oracle(work)
        fps = ["--fps", str(embodiment(options.side).control_hz)]
        sides = {
            "ours": [*mine],
            "ours_as_floats": [*mine, "--floats"],
            "lerobot_0": [*peer, "lerobot", str(work / "lerobot"), *fps],
            "lerobot_2": [*peer, "lerobot", str(work / "lerobot"), *fps, "--workers", "2"],
            "webdataset": [*peer, "webdataset", str(work / "tars")],
        }
        whole = {name: ran([*command, *all_of_it]) for name, command in sides.items() if name != "ours_as_floats"}
        timed: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, command in sides.items():
                timed[name].append(ran([*command, "--samples", str(options.samples)]))
        with RangeServer(work / "repository" / ".dvc" / "cache", LATENCY_S) as store, RangeServer(work / "lerobot", LATENCY_S) as hub:
            distant = {
                "ours_remote": [*mine, "--floats", "--url", store.url],
                "lerobot_stream": [*peer, "lerobot-stream", str(work / "lerobot"), *fps, "--url", hub.url],
            }
            store.latency_s = hub.latency_s = 0.0
            whole |= {name: ran([*command, *all_of_it]) for name, command in distant.items()}
            store.latency_s = hub.latency_s = LATENCY_S
            timed |= {name: [] for name in distant}
            for _ in range(options.repeats):
                for name, command in distant.items():
                    timed[name].append(ran([*command, "--samples", str(options.remote_samples)]))
        sizes = {name: size(work / place) for name, place in (("packs", "repository/packs"), ("lerobot", "lerobot"), ("tars", "tars"))}
    rates = {name: round(rate(runs), 1) for name, runs in timed.items()}
    fastest = max(("lerobot_0", "lerobot_2"), key=lambda name: rates[name])
    pairs = {
        "lerobot": ("ours_as_floats", fastest),
        "webdataset": ("ours", "webdataset"),
        "lerobot_stream": ("ours_remote", "lerobot_stream"),
    }
    each = {name: [{**run, "each": run["seconds"] / run["samples"]} for run in runs] for name, runs in timed.items()}
    ratios = {name: ratio(each[peer], each[mine], "each") for name, (mine, peer) in pairs.items()}
    limits = {"lerobot": LOCAL, "webdataset": LOCAL, "lerobot_stream": REMOTE}
    equal = {name: run["frames"] == truth for name, run in whole.items()}
    result = {
        "what": "samples a second in shuffled order, two cameras; ratio is ours to the peer's, medians of alternating runs",
        "frames": options.frames,
        "image_side": options.side,
        "latency_s": LATENCY_S,
        "samples_per_second": rates,
        "cpu_ms_per_sample": {
            name: round(1000 * statistics.median(run["cpu"] / run["samples"] for run in runs), 3)
            for name, runs in timed.items()
            if name != "lerobot_2"  # whose processes do the work
        },
        "ratio": ratios,
        "floor_and_goal": limits,
        "is_goal_reached": {name: ratios[name]["ratio"] >= goal for name, (_, goal) in limits.items()},
        "every_frame_equals_the_oracle": equal,
        "pairs_of_one_episode_in_a_batch": {name: round(run["same_episode"], 4) for name, run in whole.items()},
        "pairs_of_one_episode_in_a_permutation": round((min(100, options.frames) - 1) / (options.frames - 1), 4),
        "bytes_on_disk": sizes,
        "conditions": conditions(load, started, lerobot="0.4.4", webdataset="1.0.2"),
    }
    written(result, RESULT)
    mine_equal = equal["ours"] and equal["ours_remote"]
    above_floor = all(ratios[name]["ratio"] >= floor for name, (floor, _) in limits.items())
    raise SystemExit(0 if mine_equal and above_floor else 1)


if __name__ == "__main__":
    main()
