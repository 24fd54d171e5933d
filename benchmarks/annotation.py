"""Annotated frames a second, against asking one frame at a time, with the same small random weights; memory; and what a kill costs.

    ours   `annotate`: Depth Anything V2 and a pointing network in batches over all episodes, `--workers` processes
    peer   the published script's way: one process, one frame after the other, depth then pointing, nothing kept until the end

Depth maps of both sides may differ by 1 of 255 where a batch adds in another order, gripper points must be equal. Memory: the peak of
the process and its children over four times the frames must not grow by more than a tenth. Kill: a run that is killed in its middle is run
again; frames that are asked twice are at most a batch a process.

Run: python benchmarks/annotation.py [--episodes N] [--workers W]     writes benchmarks/results/annotation.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "annotation.json"
FLOOR, GOAL, LENGTH, SIDE, BATCH, TOKENS = 3.0, 6.0, 50, 64, 64, 48
MOST_GROWTH = 1.1


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


def answer(side: str, weights: Path, cache: Path, episodes: int, workers: int) -> dict[str, Any]:
    """Answer every frame in this process; what is timed begins when the models are open, as both sides open them once."""
    import logging

    import torch

    from components.data.annotators.cache import AnswerCache
    from components.data.labelling.batching import Batching, EpisodeImages
    from components.data.labelling.in_process import InProcessEngine
    from components.data.labelling.labeller import ImageLabeller, job_of
    from components.data.labelling.process_pool import ProcessPoolEngine

    logging.disable(logging.WARNING)  # random weights answer in no readable words, which is told for each frame
    cfg = config(weights, workers, BATCH if side == "ours" else 1)
    annotators = {"depth": open_depth(cfg), "points": open_points(cfg)}
    if side == "peer":
        torch.set_num_threads(os.cpu_count() or 1)
        started = time.perf_counter()
        for number in range(episodes):
            for image in images_of(number):
                for annotator in annotators.values():
                    annotator.answer_images(image[None])
        return {"seconds": time.perf_counter() - started}
    kept, seconds = AnswerCache(folder=cache), 0.0
    for kind, annotator in annotators.items():
        labeller = ImageLabeller(annotator=annotator)
        engine = ProcessPoolEngine(job_of(kind, cfg), workers) if workers > 1 else InProcessEngine(labeller=labeller)
        engine.description()
        started = time.perf_counter()
        work = Batching(engine=engine, cache=kept, version=annotator.version, batch=BATCH)
        work.run(EpisodeImages(digest=f"{number:032d}", images_THW3=images_of(number)) for number in range(episodes))
        seconds += time.perf_counter() - started
        engine.close()
        assert not work.errors
    return {"seconds": seconds}


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
    """Kill a run when half of the first annotator's answers are there; how many frames were answered, and are asked again."""
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.DEVNULL, cwd=ROOT)
    while answered(cache) < total // 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = answered(cache)
    ran(words)
    return {"kept_frames": kept, "frames": total}


def answered(cache: Path) -> int:
    """Frames of which some answer is kept."""
    whole = len(list(cache.glob("*/*.safetensors"))) * LENGTH
    return whole + BATCH * len(list(cache.glob("*/parts/*.safetensors")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20, help=f"of {LENGTH} frames each")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.side:
        print(json.dumps(answer(options.side, options.weights, options.cache, options.episodes, options.workers)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_weights(work / "weights")

        def words(side: str, cache: str, episodes: int) -> list[str]:
            places = [f"--weights={work / 'weights'}", f"--cache={work / cache}"]
            return [f"--side={side}", *places, f"--episodes={episodes}", f"--workers={options.workers}"]

        timed: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
        for repeat in range(options.repeats):
            for side in ("ours", "peer"):
                timed[side].append(ran(words(side, f"answers-{repeat}", options.episodes)))
        equal = compare(work / "weights", work / "answers-0")
        more = ran(words("ours", "answers-more", 4 * options.episodes))
        kill = killed(words("ours", "answers-killed", options.episodes), work / "answers-killed", options.episodes * LENGTH)
    frames = options.episodes * LENGTH
    speed = {side: frames / statistics.median(run["seconds"] for run in runs) for side, runs in timed.items()}
    growth = more["peak_bytes"] / statistics.median(run["peak_bytes"] for run in timed["ours"])
    ratio = speed["ours"] / speed["peer"]
    result = {
        "what": "frames a second with depth and gripper point; ratio is ours to the peer's, medians of alternating runs",
        "frames": frames,
        "workers": options.workers,
        "batch": BATCH,
        "frames_per_second": speed,
        "ratio": ratio,
        "floor": FLOOR,
        "goal": GOAL,
        "is_goal_reached": ratio >= GOAL,
        "equal": equal,
        "peak_bytes": {side: max(run["peak_bytes"] for run in runs) for side, runs in timed.items()},
        "peak_growth_at_four_times_the_frames": growth,
        "kill": kill,
        "python": platform.python_version(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))
    sound = equal["points_are_equal"] and equal["depth_differs_by"] <= 1 and growth <= MOST_GROWTH
    raise SystemExit(0 if ratio >= FLOOR and sound else 1)


if __name__ == "__main__":
    main()
