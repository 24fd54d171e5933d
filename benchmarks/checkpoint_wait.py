"""How long a training step waits for a checkpoint: the copy into memory, against a save that is waited for, and DeepSpeed's own save.

One process, ZeRO stage 0, Adam, float32: weights and two moments of every parameter. In each round, in turn:

    begin      our save as trainings make it: the step waits until the state is copied, a thread writes, hashes and seals
    blocking   the same save, waited for until it is sealed
    deepspeed  `save_checkpoint` of the engine (0.19.8), flushed to disk as ours is

After the rounds the state is read back into a fresh engine and compared number by number.
Run: python benchmarks/checkpoint_wait.py [--millions 60]      writes benchmarks/results/checkpoint_wait.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import conditions, written  # noqa: E402
from components.adapters.processes import free_port  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "checkpoint_wait.json"
WIDTH, LIMIT, ROUNDS = 1024, 0.08, 5


class Wide:
    """A trainable model of square layers, `millions` of parameters. Only what an engine needs of one."""

    num_samples, data_digest = 1, "d" * 64

    def __init__(self, millions: int, seed: int) -> None:
        import torch
        from torch import nn

        torch.manual_seed(seed)
        self.module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(millions)))

    def loss(self, module, batch):
        return module(batch).square().mean(), {}


def make_engine(millions: int, seed: int):
    from components.config.train_config import TrainConfig
    from components.training.deepspeed_engine import Engine

    return Engine(TrainConfig(precision="fp32", threads=1, micro_batch=48), Wide(millions, seed), bf16=False, rank=0, world_size=1)


def synced(folder: Path) -> None:
    """Flush every file of a folder to disk."""
    for path in (one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def measure(millions: int, root: Path) -> dict[str, object]:
    import torch

    from components.training.checkpoints import CheckpointManifest, checkpoint_name
    from components.training.deepspeed_engine import start_processes
    from components.training.state.writer import StateWriter

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    start_processes()
    engine = make_engine(millions, seed=0)
    engine.step([torch.randn(48, WIDTH)], 1e-3, stop=False)
    writer = StateWriter(root / "ours", rank=0, world_size=1, keep=1)
    times: dict[str, list[float]] = {"first": [], "begin": [], "blocking": [], "deepspeed": []}

    def save(step: int, *, wait: bool) -> float:
        writer.prepare(step)
        began = time.perf_counter()
        writer.begin(CheckpointManifest(step=step, data_digest="d", config_digest="c", world_size=1, zero_stage=0), engine.state().pieces())
        if wait:
            writer.wait()
        seconds = time.perf_counter() - began
        writer.wait()
        return seconds

    times["first"].append(save(1, wait=False))
    for number in range(ROUNDS):
        times["begin"].append(save(2 + 2 * number, wait=False))
        times["blocking"].append(save(3 + 2 * number, wait=True))
        began = time.perf_counter()
        engine._engine.save_checkpoint(str(root / "theirs"), tag="one", save_latest=False)
        synced(root / "theirs")
        times["deepspeed"].append(time.perf_counter() - began)
        shutil.rmtree(root / "theirs")
    folder = root / "ours" / checkpoint_name(1 + 2 * ROUNDS)
    fresh = make_engine(millions, seed=1)
    fresh.load(folder)
    same = all(
        torch.equal(value, other)
        for mine, theirs in zip(engine.state().pieces(), fresh.state().pieces(), strict=True)
        for value, other in zip(mine.values.values(), theirs.values.values(), strict=True)
    )
    if not same:
        raise SystemExit("what was read back is not what was saved")
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"times_s": times, "checkpoint_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, default=60, help="parameters, in millions")
    parser.add_argument("--work", type=Path, help="where checkpoints go (default: a temporary folder, removed)")
    options = parser.parse_args()
    load, started = os.getloadavg(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        found = measure(options.millions, Path(work))
    medians = {name: round(statistics.median(values), 4) for name, values in found["times_s"].items()}
    shares = [begin / blocking for begin, blocking in zip(found["times_s"]["begin"], found["times_s"]["blocking"], strict=True)]
    result = {
        "what": "seconds that a step waits for a checkpoint, median of rounds; first: the one that takes its memory from the system",
        "median_s": medians,
        "share_of_blocking": {"median": round(statistics.median(shares), 4), "rounds": [round(one, 4) for one in shares], "limit": LIMIT},
        "blocking_to_deepspeed": round(medians["blocking"] / medians["deepspeed"], 3),
        "within_limit": statistics.median(shares) <= LIMIT,
        **found,
        "conditions": conditions(load, started, deepspeed="0.19.8"),
    }
    written(result, RESULT)
    raise SystemExit(0 if result["within_limit"] else 1)


if __name__ == "__main__":
    main()
