"""What encoding an identical low/high crop once saves, and that the features stay the same.

Every frame of robot training fits one base crop, where the published layout carries the same picture twice (low and
high resolution, 2 x 212 tokens). `ImageProcessor` points both grids at one crop; tokens and features stay.

The tower has 7B-D's real width; `--blocks` cuts its depth (25 is the whole tower) to keep a CPU run short.
Run: python benchmarks/shared_crop.py      writes benchmarks/results/shared_crop.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "shared_crop.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=6, help="blocks of the tower (25: all)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    import numpy as np
    import torch

    from model_core.network.images import ImageProcessor
    from model_core.network.presets import molmoact_7b_d
    from model_core.network.vision import VisionBackbone

    torch.set_num_threads(1)
    torch.manual_seed(0)
    full = molmoact_7b_d()
    config = replace(
        full,
        vit=replace(full.vit, num_hidden_layers=options.blocks),
        adapter=replace(full.adapter, vit_layers=(-1, -min(5, options.blocks))),
    )
    backbone = VisionBackbone(config).eval()
    torch.nn.init.normal_(backbone.image_vit.positional_embedding, std=0.02)
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(2)]
    sides = {"once": ImageProcessor.for_network(config), "twice": ImageProcessor.for_network(config, share_equal_crops=False)}
    prepared = {name: processor(views) for name, processor in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    features = {}
    with torch.inference_mode():
        for _ in range(options.repeats):  # the two sides take turns: a busy machine slows both
            for name, inputs in prepared.items():
                tensors = inputs.tensors()
                started = time.perf_counter()
                features[name] = backbone(**tensors)
                seconds[name].append(time.perf_counter() - started)
    median = {name: sorted(times)[len(times) // 2] for name, times in seconds.items()}
    result = {
        "what": "vision tower and connector for two 240x320 views, fp32, 1 thread, random weights at 7B-D width",
        "blocks": options.blocks,
        "crops_encoded": {name: len(inputs.images_CPD) for name, inputs in prepared.items()},
        "image_tokens": len(features["once"]),
        "median_seconds": median,
        "saved_fraction": 1.0 - median["once"] / median["twice"],
        "max_abs_feature_diff": float((features["once"] - features["twice"]).abs().max()),
        "bit_identical": bool(torch.equal(features["once"], features["twice"])),
        "repeats": options.repeats,
        "torch": torch.__version__,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
