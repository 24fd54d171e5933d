"""A training step with a vision tower that is trained, frozen and computed, or frozen with its features read from disk.

One network of the published layout (crops of 378 x 378, 729 patches; tower of width 256 and 6 blocks, decoder of width 128 and 4), one
frozen data set of one camera, the same draws, one thread, all sides in one process, step by step in turns: processor time of a step with
its optimiser, from the second epoch on, when every view was seen. Losses of both frozen sides must be equal, bit for bit, at every step.
Run: python benchmarks/vision_features.py      writes benchmarks/results/vision_features.json
It takes about 2 minutes on an idle machine and 3 GiB of memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import conditions, ratio, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "vision_features.json"
SAMPLES, MICRO = 8, 2
NETWORK = {"preset": "tiny-published", "vision_width": 256, "vision_layers": 7, "image_side": 378}


def make_config(side: str, cache: Path) -> Any:
    from components.config.published.training import ExampleGroup, PublishedTraining
    from components.config.train_config import TrainConfig

    published = PublishedTraining(
        groups=(ExampleGroup(name="all", kinds={"action_reasoning": 1.0}),),
        recompute=False,
        loss_ids="language",
        freeze_tower=side != "trained",
        feature_cache=str(cache) if side == "read" else "",
    )
    return TrainConfig(
        network=NETWORK, steps=100, warmup_steps=1, global_batch=MICRO, micro_batch=MICRO, precision="fp32", threads=1, published=published
    )


class Side:
    """One training, step by step."""

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        from components.training.published.model import PublishedArm

        self.name, self.config, self.losses = name, make_config(name, folder / "cache"), list[float]()
        self.arm = PublishedArm(self.config, folder / "data")
        parameters = [one for one in self.arm.module.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
        self.arm.module.train()

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; its processor and wall time."""
        from components.training.plan import batch_indices

        wall, processor = time.perf_counter(), time.process_time()
        indices = batch_indices(0, number, MICRO, self.arm.num_samples)
        loss, _ = self.arm.loss(self.arm.module, self.arm.batch(indices, seed=0, step=number, micro=0))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(float(loss.detach()))
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="steps of each side; those of the first epoch are not compared")
    options = parser.parse_args()
    import torch

    from tests.tiny_arm_data import make_small_contract, write_small_frozen

    torch.set_num_threads(1)
    load, started = os.getloadavg(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_small_frozen(Path(folder) / "data", make_small_contract(chunk_length=8), train=SAMPLES, validation=2)
        sides = [Side(name, Path(folder)) for name in ("trained", "computed", "read")]
        runs: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
        for number in range(options.steps):
            for side in sides:
                runs[side.name].append(side.step(number))
            print(
                f"step {number + 1}/{options.steps}: " + ", ".join(f"{n} {r[-1]['cpu_s']:.2f} s" for n, r in runs.items()), file=sys.stderr
            )
        files = [path.stat().st_size for path in (Path(folder) / "cache").rglob("*.safetensors")]
    losses = {side.name: side.losses for side in sides}
    if losses["computed"] != losses["read"]:
        raise SystemExit(f"features that were read give another curve: {losses['computed']} and {losses['read']}")
    seen = SAMPLES // MICRO
    later = {name: found[seen:] for name, found in runs.items()}
    written(
        {
            "conditions": conditions(load, started, torch=torch.__version__),
            "network": NETWORK,
            "flop_of_an_example": {side.name: side.arm.flops_at(0) for side in sides},
            "steps": runs,
            "losses": losses,
            "cache": {"views": len(files), "bytes_a_view": max(files)},
            "computed_against_read": {name: ratio(later["computed"], later["read"], name) for name in ("cpu_s", "wall_s")},
            "trained_against_read": {name: ratio(later["trained"], later["read"], name) for name in ("cpu_s", "wall_s")},
            "first_epoch_of_read_against_computed": ratio(runs["read"][:seen], runs["computed"][:seen], "cpu_s"),
            "flop_at_7b": flop_at_7b(),
        },
        RESULT,
    )


def flop_at_7b() -> dict[str, float]:
    """Work of one example of `molmoact_finetune`, by the plan: the tower adapted, frozen, and read."""
    from components.training.sizing.machines import accelerator
    from components.training.sizing.plan import plan_training
    from flows.pipeline.recipes import get_recipe

    recipe = get_recipe("molmoact_finetune")
    published = replace(recipe.train.published, augment=False)
    choices = {"adapted": {}, "frozen": {"freeze_tower": True}, "read": {"freeze_tower": True, "feature_cache": "features"}}
    found = {}
    for name, changes in choices.items():
        train = replace(recipe.train, published=replace(published, **changes))
        found[name] = plan_training(replace(recipe, train=train), accelerator("h100")).flop.training
    return found


if __name__ == "__main__":
    main()
