"""LeRobot 0.4.4 and webdataset 1.0.2 reading the same frames, each in an environment of its own; no module of the project is imported.

    python readers.py lerobot FOLDER            shuffled map-style reading with a DataLoader of --workers processes
    python readers.py lerobot-stream FOLDER     its streaming reader, images by HTTP from --url
    python readers.py webdataset FOLDER         tar files of raw arrays, its shuffle buffer; --pack writes them from FOLDER/frames.npz first

Prints one JSON line: samples, seconds, and the SHA-256 over the sorted "episode frame SHA-256 of its images" of every sample.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np


def importable_torchvision() -> None:
    """torchvision's compiled operators do not load beside a CPU build of torch; LeRobot uses none of them."""
    import torch

    register = torch.library.register_fake

    def careful(name, *args, **kwargs):
        def keep(function):
            try:
                return register(name, *args, **kwargs)(function)
            except RuntimeError:
                return function

        return keep

    torch.library.register_fake = careful
    import torchvision  # noqa: F401

    torch.library.register_fake = register


def frames_of(item, cameras) -> str:
    total = hashlib.sha256()
    for camera in sorted(cameras):
        image = item[camera]
        image_HW3 = (image.permute(1, 2, 0) * 255).round().byte().numpy() if hasattr(image, "permute") else image
        total.update(np.ascontiguousarray(image_HW3).tobytes())
    return total.hexdigest()


class Clock:
    """Wall time, and processor time of this process and its threads."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()


def told(clock: Clock, count: int, lines: list[str]) -> None:
    """Print times, a digest over all frames in sorted order, and how well their order is mixed. lines: "episode frame digest"."""
    seconds, cpu = time.perf_counter() - clock.wall, time.process_time() - clock.cpu
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    found = {"samples": count, "seconds": seconds, "cpu": cpu, "frames": digest, "distinct": len(set(lines))}
    print(json.dumps(found | {"same_episode": same_episode([int(line.split()[0]) for line in lines])}))


def same_episode(episodes: list[int], batch: int = 64) -> float:
    """Share of the pairs of samples in a batch that are of one episode, over all batches: what shuffling is to make small."""
    parts = [episodes[first : first + batch] for first in range(0, len(episodes) - batch + 1, batch)]
    pairs = sum(count * (count - 1) for part in parts for count in Counter(part).values())
    return pairs / (len(parts) * batch * (batch - 1)) if parts else 0.0


def first_item(batch):
    return batch[0]


def lerobot(options) -> None:
    importable_torchvision()
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/set", root=options.folder, video_backend="torchcodec", delta_timestamps=options.deltas)
    cameras = data.meta.video_keys
    loader = torch.utils.data.DataLoader(
        data, batch_size=1, shuffle=True, num_workers=options.workers, collate_fn=first_item, generator=torch.Generator().manual_seed(1)
    )
    lines, count, clock = [], 0, Clock()
    for item in loader:
        count += 1
        if options.hash:
            lines.append(f"{int(item['episode_index'])} {int(item['frame_index'])} {frames_of(item, cameras)}")
        if count == options.samples:
            break
    told(clock, count, lines)


def lerobot_stream(options) -> None:
    importable_torchvision()
    from datasets import load_dataset
    from lerobot.datasets import streaming_dataset
    from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata

    data = streaming_dataset.StreamingLeRobotDataset(
        "local/set", root=options.folder, buffer_size=options.buffer, seed=1, delta_timestamps=options.deltas
    )
    # its own code, pointed at the server in place of the hub
    LeRobotDatasetMetadata.url_root = property(lambda self: options.url)
    data.streaming_from_local = False
    tables = [f"{options.url}/{path.relative_to(options.folder).as_posix()}" for path in sorted(options.folder.glob("data/*/*.parquet"))]
    data.hf_dataset = load_dataset("parquet", data_files=tables, split="train", streaming=True)
    lines, count, clock = [], 0, Clock()
    for item in data:
        count += 1
        if options.hash:
            lines.append(f"{int(item['episode_index'])} {int(item['frame_index'])} {frames_of(item, data.meta.video_keys)}")
        if count == options.samples:
            break
    told(clock, count, lines)


def pack(options) -> None:
    import webdataset

    with np.load(options.frames) as frames, webdataset.ShardWriter(f"{options.folder}/shard-%05d.tar", maxcount=2000, verbose=0) as sink:
        for number in range(len(frames["episode"])):
            key = f"{int(frames['episode'][number]):06d}_{int(frames['frame'][number]):06d}"
            arrays = {f"{name}.npy": frames[name][number] for name in frames.files if name not in ("episode", "frame")}
            sink.write({"__key__": key, **arrays})


def webdataset_reader(options) -> None:
    import webdataset

    shards = [str(path) for path in sorted(options.folder.glob("*.tar"))]
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1).shuffle(options.buffer).decode()
    lines, count, clock = [], 0, Clock()
    for item in data:
        count += 1
        if options.hash:
            episode, frame = item["__key__"].split("_")
            images = {name: array for name, array in item.items() if name.startswith("observation.images.")}
            lines.append(f"{int(episode)} {int(frame)} {frames_of(images, images)}")
        if count == options.samples:
            break
    told(clock, count, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("lerobot", "lerobot-stream", "webdataset", "pack"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--hash", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--buffer", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--fps", type=float, default=20)
    parser.add_argument("--url", default="")
    parser.add_argument("--frames", type=Path)
    options = parser.parse_args()
    options.deltas = {"action": [step / options.fps for step in range(options.chunk)]}
    sides = {"lerobot": lerobot, "lerobot-stream": lerobot_stream, "webdataset": webdataset_reader, "pack": pack}
    sides[options.side](options)


if __name__ == "__main__":
    main()
