"""A training step of a published-layout network at published token counts: packed, padded as the reference pads, and by HF's Trainer.

One network (7B-D's vocabulary, special ids and image layout: crops of 378 x 378, 424 tokens a view; narrow decoder and tower), the same
examples (2 views, chunks of 8 x 7, answers of 407 to 445 tokens), the same AdamW, one thread, all sides in one run, in turns:

    packed     examples one after the other in one row; head and loss of answer rows, in chunks; each view's crop once
    reference  each example padded to 2304 tokens and 18 crops, both crops of a view, full logits: as the published trainer pads
    trainer    transformers.Trainer on the same network: padded to the longest example, logits of every token, both crops of a view

Losses of the first step must agree. Then the loss head alone: answer rows in chunks against full logits, time and peak memory.
Run: python benchmarks/published_training.py      writes benchmarks/results/published_training.json
It takes about 5 minutes on an idle machine and 8 GiB of memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import conditions, peak_bytes, ratio, written  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "published_training.json"
LENGTH, CROPS = 2304, 18
SIDES = ("packed", "reference", "trainer")


def make_config() -> Any:
    """7B-D's layout and vocabulary at a small width."""
    from model_core.network.presets import SmallSize, tiny_published

    size = SmallSize(
        width=64, layers=2, heads=4, kv_heads=2, feed_forward=192, projector=128, vision_width=32, vision_layers=2, image_side=378
    )
    return replace(tiny_published(size), attention="sdpa")


def make_network(config: Any) -> Any:
    import torch

    from model_core.network.model import MolmoAct

    model = MolmoAct(config)
    model.init_weights(0, std=0.1)
    with torch.no_grad():
        torch.nn.init.normal_(model.lm_head.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    return model


def make_examples(config: Any, count: int) -> tuple[list[Any], list[Any]]:
    """The same examples with each view's crop once, and with both crops as published."""
    import numpy as np

    from model_core.network.finetuning.packing import TrainingExample
    from model_core.network.images import ImageProcessor
    from model_core.spec.types import ActionReasoning, DepthTokens, Trace
    from model_core.tokenization.published.grammar import Form, render_answer, render_question
    from model_core.tokenization.published.tokenizer import PromptTokenizer

    tokenizer = PromptTokenizer.load()
    once, twice = ImageProcessor.for_network(config), ImageProcessor.for_network(config, share_equal_crops=False)
    rng = np.random.default_rng(0)
    found: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(count):
        bins_KA = np.clip(np.rint(rng.normal(128, 30, (8, 7))), 1, 256).astype(np.int64)
        points = rng.integers(0, 256, (int(rng.integers(1, 6)), 2))
        reasoning = ActionReasoning(depth=DepthTokens(codes_G=rng.integers(0, 128, 100)), trace=Trace(points_N2=points), bins_KA=bins_KA)
        views = [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(2)]
        answer = tokenizer.answer_ids(render_answer(Form.FULL, reasoning, views=2))
        for examples, processor in zip(found, (once, twice), strict=True):
            inputs = processor(views)
            question = render_question(Form.FULL, "put the red block into the white bowl", views=2)
            prompt = tokenizer.prompt_ids(question, inputs.image_grids)
            examples.append(TrainingExample(ids_L=np.concatenate([prompt, answer]), answer_start=len(prompt), images=inputs))
    return found


def packed_loss(model: Any, examples: Sequence[Any], divisor: float) -> Any:
    from model_core.network.finetuning.answer_rows import answer_row_loss
    from model_core.network.finetuning.packing import answer_states, packed_batch

    batch = packed_batch(examples)
    return answer_row_loss(model.lm_head, answer_states(model, batch), batch.targets).loss / divisor


def full_logits_loss(model: Any, batch: Any) -> Any:
    """The sum over answer tokens, from the logits of every token of every row."""
    import torch
    import torch.nn.functional as F

    features = model.encode_images(**batch.images)
    logits = model.logits(model.trunk(model.embed(batch.ids_BL, features), batch.places_BL)).float().flatten(0, 1)
    labels = torch.full((len(logits),), -100).index_copy(0, batch.rows_N, batch.targets.labels_N)
    z = logits.logsumexp(-1)[labels >= 0].square().sum()
    return F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") + 1e-4 * z


class Clock:
    """Wall and processor time of each step: one thread does all the work, so that the second hardly feels a busy machine."""

    def __init__(self) -> None:
        self.times: list[dict[str, float]] = []

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wall, processor = self.began
        self.times.append({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor})


def timed_steps(step: Callable[[int], float], steps: int) -> tuple[list[dict[str, float]], list[float]]:
    """Times and loss of each step."""
    clock, losses = Clock(), []
    for number in range(steps):
        clock.start()
        losses.append(step(number))
        clock.stop()
    return clock.times, losses


def side_steps(side: str, config: Any, micro: int, steps: int) -> dict[str, Any]:
    """`steps` optimiser steps of `micro` examples of one side, in this process."""
    import torch

    from model_core.network.finetuning.packing import padded_batch

    torch.set_num_threads(1)
    model = make_network(config)
    once, twice = make_examples(config, micro)
    divisor = float(sum(example.answer_tokens for example in once))
    if side == "trainer":
        return trainer_steps(model, twice, divisor, steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0, fused=True)

    def step(_: int) -> float:
        if side == "packed":
            loss = packed_loss(model, once, divisor)
            loss.backward()
            total = float(loss)
        else:  # one example at a time: the logits of one are 1.4 GB
            total = 0.0
            for example in twice:
                loss = full_logits_loss(model, padded_batch([example], length=LENGTH, pad_id=151643, crops=CROPS)) / divisor
                loss.backward()
                total += float(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    times, losses = timed_steps(step, steps)
    return {"times": times, "losses": losses, "peak_gib": peak_bytes() / 2**30}


def trainer_steps(model: Any, examples: Sequence[Any], divisor: float, steps: int) -> dict[str, Any]:
    """The same steps by transformers.Trainer: its loop, its optimiser call, its collation of padded rows."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from model_core.network.finetuning.packing import padded_batch

    longest = max(len(example.ids_L) for example in examples)

    class WithLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, batch: Any) -> dict[str, Any]:
            return {"loss": full_logits_loss(self.inner, batch) / divisor}

    class Examples(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(examples) * steps

        def __getitem__(self, place: int) -> Any:
            return examples[place % len(examples)]

    clock = Clock()

    class Timing(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

    losses: list[float] = []

    class Plain(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = model(inputs["batch"])["loss"]
            losses.append(float(loss))
            return loss

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=1, gradient_accumulation_steps=len(examples), max_steps=steps, report_to=[],
            learning_rate=1e-3, lr_scheduler_type="constant", max_grad_norm=1.0, weight_decay=0.0, adam_beta2=0.95, adam_epsilon=1e-6,
            save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
            optim="adamw_torch_fused",
        )  # fmt: skip
        Plain(
            model=WithLoss(),
            args=arguments,
            train_dataset=Examples(),
            data_collator=lambda few: {"batch": padded_batch(few, length=longest, pad_id=151643)},
            callbacks=[Timing()],
        ).train()
    size = len(examples)
    summed = [sum(losses[at : at + size]) for at in range(0, len(losses), size)]
    return {"times": clock.times, "losses": summed, "peak_gib": peak_bytes() / 2**30}


def head_alone(kind: str, rows: int, tokens: int, width: int) -> dict[str, Any]:
    """Forward and backward of head and loss: of the answer rows in chunks, or of all tokens with full logits."""
    import torch
    import torch.nn.functional as F

    from model_core.network.finetuning.answer_rows import RowTargets, answer_row_loss

    torch.set_num_threads(1)
    head = torch.nn.Linear(width, 152064, bias=False)
    with torch.no_grad():
        torch.nn.init.normal_(head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(tokens, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.randint(0, 152064, (rows,), generator=torch.Generator().manual_seed(2))
    before, clock = peak_bytes(), Clock()
    clock.start()
    if kind == "answer rows":
        loss = answer_row_loss(head, hidden[-rows:], RowTargets(labels_N=labels, weights_N=torch.ones(rows)), rows_at_once=64).loss
    else:
        logits = head(hidden)
        targets = torch.cat([torch.full((tokens - rows,), -100), labels])
        z = logits.logsumexp(-1)[targets >= 0].square().sum()
        loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") + 1e-4 * z
    loss.backward()
    clock.stop()
    norms = [float(head.weight.grad.norm()), float(hidden.grad.norm())]  # type: ignore[union-attr]
    more = peak_bytes() - before
    return {**clock.times[0], "more_peak_gib": more / 2**30, "loss": float(loss.detach()), "gradient_norms": norms}


def in_process(*words: str) -> dict[str, Any]:
    """One measurement in a process of its own, so that its peak memory is its own."""
    import json

    done = subprocess.run(
        [sys.executable, __file__, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micro", type=int, default=2, help="examples of a step")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn; the first of each turn is not timed")
    parser.add_argument("--turns", type=int, default=1, help="how often each side runs, in a process of its own")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--head", choices=("answer rows", "full logits"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side_steps(options.side, make_config(), options.micro, options.steps)))
    elif options.head:
        print(json.dumps(head_alone(options.head, 430, LENGTH, 64)))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    from components.training.sizing.machines import accelerator
    from components.training.sizing.plan import plan_training
    from flows.pipeline.recipes import get_recipe

    load, started = os.getloadavg(), time.perf_counter()
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    peaks: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    for turn in range(options.turns):
        for side in SIDES:
            found = in_process("--side", side, "--micro", str(options.micro), "--steps", str(options.steps))
            runs[side] += found["times"][1:]
            peaks[side] = max(peaks.get(side, 0.0), found["peak_gib"])
            losses[side] = found["losses"]
            told = ", ".join(f"{run['cpu_s']:.1f}" for run in found["times"])
            print(f"turn {turn + 1}/{options.turns}: {side}: {told} s of processor time a step", file=sys.stderr)
    first = [losses[side][0] for side in SIDES]
    if max(first) - min(first) > 1e-4 * abs(first[0]):
        raise SystemExit(f"the sides do not compute one loss: {dict(zip(SIDES, first, strict=True))}")
    once, _ = make_examples(make_config(), options.micro)
    heads = {kind: [in_process("--head", kind) for _ in range(options.turns)] for kind in ("answer rows", "full logits")}
    plan = plan_training(get_recipe("molmoact_libero_long"), accelerator("h100"))
    written(
        {
            "conditions": conditions(load, started, torch=version("torch"), transformers=version("transformers")),
            "example": {
                "tokens": [len(example.ids_L) for example in once],
                "answer_tokens": [example.answer_tokens for example in once],
                "crops": [len(example.images.images_CPD) for example in once],
                "padded": {"tokens": LENGTH, "crops": CROPS},
            },
            "samples_per_s": {
                side: options.micro / sorted(run["wall_s"] for run in found)[len(found) // 2] for side, found in runs.items()
            },
            "steps": runs,
            "peak_gib": peaks,
            "losses": losses,
            **{
                f"packed_against_{side}": {measure: ratio(runs[side], runs["packed"], measure) for measure in ("wall_s", "cpu_s")}
                for side in ("reference", "trainer")
            },
            "head": {kind: found[len(found) // 2] for kind, found in heads.items()},
            "head_time": {measure: ratio(heads["full logits"], heads["answer rows"], measure) for measure in ("wall_s", "cpu_s")},
            "at_7b": {
                "what": "FLOP of one example of molmoact_libero_long by the plan, padded as published over packed; not measured",
                "ratio": plan.padded_flop.training / plan.flop.training,
            },
        },
        RESULT,
    )


def version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
