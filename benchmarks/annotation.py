"""Annotated frames a second, against asking one frame at a time, with the same small random weights; memory; and what a kill costs.

    ours   `annotate`: Depth Anything V2 and a pointing network in batches over all episodes, every answered batch kept; in this process and
           in a process for each core
    peer   the published script's way: one process, one frame after the other, pointing in one pass and depth in another, nothing kept

Both sides run the same classes with the same weights, which are open before the clock runs. Depth maps may differ by 1 of 255 where a batch
adds in another order, gripper points must be equal. Memory: the peak of the process and its children over four times the frames must not
grow by more than a tenth. Kill: a run that is killed in its middle is run again; frames that are asked twice are at most a batch.

Run: python benchmarks/annotation.py [--full]     writes benchmarks/results/annotation.json
Without --full: 500 frames and three repeats; with it 2,000 and five.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.measuring import conditions, medians, ratio, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "annotation.json"
FLOOR, GOAL, LENGTH, SIDE, BATCH, TOKENS = 3.0, 6.0, 50, 64, 64, 48
MOST_GROWTH = 1.1
SMALL, FULL = (10, 3), (40, 5)  # episodes, repeats


def write_weights(folder: Path) -> None:
    """Depth Anything V2's classes and our network's published layout with a few thousand random weights."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    from model_core.network.checkpoints.hub import save_pretrained
    from model_core.network.config import MolmoActConfig
    from model_core.network.images import ImageProcessor
    from model_core.network.model import MolmoAct
    from tests.unit.test_annotators import GOLDEN, own_tokenizer

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    backbone = Dinov2Config(**sizes, out_features=["stage1", "stage2"], reshape_hidden_states=False)
    small = {"reassemble_hidden_size": 16, "reassemble_factors": [2, 1], "neck_hidden_sizes": [8, 8], "fusion_hidden_size": 8}
    model = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **small, head_hidden_size=4))
    model.save_pretrained(folder / "depth")
    side = {"height": 518, "width": 518}
    processor = DPTImageProcessor(size=side, ensure_multiple_of=14, do_pad=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder / "depth")
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    data["llm_config"] |= {"vocab_size": 275, "additional_vocab_size": 16}
    config = MolmoActConfig.from_json(data | {"image_patch_id": 277})
    pointing = MolmoAct(config)
    pointing.init_weights(3)
    save_pretrained(pointing, folder / "points", processor=ImageProcessor.for_network(config, overlap_margins=(1, 1)))
    own_tokenizer(folder / "points")


def open_depth(cfg: Any):
    """The recipe's annotator: real classes at a small input size."""
    from components.data.annotators.depth_anything import DepthAnything

    return DepthAnything.load(cfg.depth_model, size=28, batch_size=cfg.batch_size, device="cpu")


def open_points(cfg: Any):
    """The recipe's annotator: a pointing network that writes at most `TOKENS` tokens."""
    from components.data.annotators.molmoact_pointing import OwnPointing

    return OwnPointing.load(cfg.point_model, batch_size=cfg.batch_size, device="cpu", max_new_tokens=TOKENS)


def images_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (LENGTH, SIDE, SIDE, 3), np.uint8)


def config(weights: Path, workers: int, batch: int) -> Any:
    from components.config.data_config import AnnotateConfig

    return AnnotateConfig(
        depth_annotator="benchmarks.annotation:open_depth",
        point_annotator="benchmarks.annotation:open_points",
        depth_model=str(weights / "depth"),
        point_model=str(weights / "points"),
        batch_size=batch,
        workers=workers,
    )


@dataclass(kw_only=True)
class Noted:
    """A labeller that notes how many rows it was asked, before it answers."""

    inner: Any
    notes: Path

    def description(self) -> Any:
        return self.inner.description()

    def label(self, shard: Any) -> Any:
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(f"{len(shard.row_ids)}\n")
        return self.inner.label(shard)


def answer(side: str, weights: Path, cache: Path, episodes: int, workers: int) -> dict[str, Any]:
    """Answer every frame in this process; what is timed begins when the models are open, as both sides open them once."""
    import logging

    import torch

    from components.data.annotators.cache import AnswerCache
    from components.data.labelling.batching import Batching, EpisodeImages
    from components.data.labelling.engine import Shard
    from components.data.labelling.in_process import InProcessEngine
    from components.data.labelling.labeller import ImageLabeller, job_of
    from components.data.labelling.process_pool import ProcessPoolEngine

    logging.disable(logging.WARNING)  # random weights answer in no readable words, which is told for each frame
    cfg = config(weights, workers, BATCH if side == "ours" else 1)
    annotators = {"depth": open_depth(cfg), "points": open_points(cfg)}
    if side == "peer":
        torch.set_num_threads(os.cpu_count() or 1)
        started, used = time.perf_counter(), processor()
        for kind in ("points", "depth"):  # a pass over all frames each, as the published script makes them
            for number in range(episodes):
                for image in images_of(number):
                    annotators[kind].answer_images(image[None])
        return {"wall_s": time.perf_counter() - started, "cpu_s": processor() - used}
    kept, seconds, used = AnswerCache(folder=cache), 0.0, processor()
    for kind, annotator in annotators.items():
        labeller = Noted(inner=ImageLabeller(annotator=annotator), notes=cache / "asked")
        engine = ProcessPoolEngine(job_of(kind, cfg), workers) if workers > 1 else InProcessEngine(labeller=labeller)
        if workers > 1:  # every process opens its model before the clock runs
            rows = images_of(0)[:1]
            list(engine.label(Shard(row_ids=(f"warm:{n}",), columns={"images": rows}) for n in range(8 * workers)))
        started = time.perf_counter()
        work = Batching(engine=engine, cache=kept, version=annotator.version, batch=BATCH)
        work.run(EpisodeImages(digest=f"{number:032d}", images_THW3=images_of(number)) for number in range(episodes))
        seconds += time.perf_counter() - started
        engine.close()
        assert not work.errors
    return {"wall_s": seconds, "cpu_s": processor() - used}


def processor() -> float:
    """Seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def compare(weights: Path, cache: Path) -> dict[str, Any]:
    """The kept answers of the first episode beside those of single frames."""
    from components.data.annotators.cache import AnswerCache

    cfg, kept, worst = config(weights, 1, 1), AnswerCache(folder=cache), 0
    for kind, annotator in (("depth", open_depth(cfg)), ("points", open_points(cfg))):
        answers = kept.kept(annotator.version, f"{0:032d}")
        for place, image in enumerate(images_of(0)):
            alone = annotator.answer_images(image[None]).columns
            if kind == "depth":
                worst = max(worst, int(np.abs(alone["depth"][0].astype(int) - answers["depth"][place]).max()))
            elif not all(np.array_equal(alone[name][0], answers[name][place], equal_nan=name == "points") for name in alone):
                return {"depth_differs_by": worst, "points_are_equal": False}
    return {"depth_differs_by": worst, "points_are_equal": True}


def peak_of(process: subprocess.Popen[str]) -> int:
    """The highest resident memory of a process and its children, looked at until it ends."""
    import psutil

    highest = 0
    try:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            family = [watched, *watched.children(recursive=True)]
            highest = max(highest, sum(one.memory_info().rss for one in family if one.is_running()))
            time.sleep(0.05)
    except psutil.Error:
        pass
    return highest


def ran(words: list[str]) -> dict[str, Any]:
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peaks: list[int] = []
    watcher = threading.Thread(target=lambda: peaks.append(peak_of(process)))
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}")
    return {**json.loads(out.strip().splitlines()[-1]), "peak_bytes": peaks[0]}


def killed(words: list[str], cache: Path, total: int) -> dict[str, Any]:
    """Kill a run when a quarter of all answers (two annotators) was asked; run it again, and count what was asked twice."""
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.DEVNULL, cwd=ROOT)
    while asked(cache) < total // 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = asked(cache)
    ran(words)
    return {
        "asked_when_killed": before,
        "asked_in_all": asked(cache),
        "answers": 2 * total,
        "asked_twice": asked(cache) - 2 * total,
        "batch": BATCH,
    }


def asked(cache: Path) -> int:
    """Rows that an annotator was asked."""
    notes = cache / "asked"
    return sum(map(int, notes.read_text(encoding="utf-8").split())) if notes.is_file() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL[0] * LENGTH} frames in place of {SMALL[0] * LENGTH}")
    parser.add_argument("--episodes", type=int, default=0, help=f"another number of episodes, of {LENGTH} frames each")
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.side:
        print(json.dumps(answer(options.side, options.weights, options.cache, options.episodes, options.workers)))
        return
    started, load = time.perf_counter(), os.getloadavg()
    episodes, repeats = FULL if options.full else SMALL
    episodes, cores = options.episodes or episodes, os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_weights(work / "weights")

        def words(side: str, cache: str, count: int, workers: int = 1) -> list[str]:
            places = [f"--weights={work / 'weights'}", f"--cache={work / cache}"]
            return [f"--side={side}", *places, f"--episodes={count}", f"--workers={workers}"]

        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "ours_on_all_cores": [], "peer": []}
        for repeat in range(repeats):
            runs["ours"].append(ran(words("ours", f"answers-{repeat}", episodes)))
            runs["peer"].append(ran(words("peer", "", episodes)))
            runs["ours_on_all_cores"].append(ran(words("ours", f"answers-many-{repeat}", episodes, cores)))
        equal = compare(work / "weights", work / "answers-0")
        more = ran(words("ours", "answers-more", 4 * episodes))
        kill = killed(words("ours", "answers-killed", episodes), work / "answers-killed", episodes * LENGTH)
    frames = episodes * LENGTH
    growth = more["peak_bytes"] / max(run["peak_bytes"] for run in runs["ours"])
    ratios = {name: ratio(runs["peer"], runs[name], "wall_s") for name in ("ours", "ours_on_all_cores")}
    result = {
        "what": "seconds for a depth map and a gripper point of each frame; ratio is the peer's time to ours, medians of alternating runs",
        "frames": frames,
        "batch": BATCH,
        "processes": {"ours": 1, "ours_on_all_cores": cores, "peer": 1},
        "seconds": medians(runs, ("wall_s",)),
        "frames_per_second": {name: round(frames / found["wall_s"], 1) for name, found in medians(runs, ("wall_s",)).items()},
        "ratio": ratios,
        "ratio_of_processor_time": ratio(runs["peer"], runs["ours"], "cpu_s"),
        "floor": FLOOR,
        "goal": GOAL,
        "is_goal_reached": ratios["ours_on_all_cores"]["ratio"] >= GOAL,
        "equal": equal,
        "peak_bytes": {side: max(run["peak_bytes"] for run in found) for side, found in runs.items()},
        "peak_growth_at_four_times_the_frames": round(growth, 3),
        "kill": kill,
        "conditions": conditions(load, started, torch=version("torch"), transformers=version("transformers")),
    }
    written(result, RESULT)
    sound = equal["points_are_equal"] and equal["depth_differs_by"] <= 1 and growth <= MOST_GROWTH and kill["asked_twice"] <= BATCH
    raise SystemExit(0 if ratios["ours_on_all_cores"]["ratio"] >= FLOOR and sound else 1)


if __name__ == "__main__":
    main()
