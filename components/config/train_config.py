"""The training section of a recipe: network, steps, learning rate, curriculum and processes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.config.checks import positive
from components.config.paths import REPOSITORY
from components.config.published.networks import check_network, is_published
from components.config.published.training import PublishedTraining
from model_core.spec.documents import LATER, NEUTRAL
from model_core.spec.errors import SpecError, require

# What is known of parts that bring torch, which a recipe must not: tests/unit/test_recipe.py holds both sides together.
NETWORK_FIELDS = ("width", "layers", "heads", "kv_heads", "feed_forward", "projector", "stem", "rope")
NETWORK_DEFAULTS: Mapping[str, Any] = {"width": 192, "heads": 3, "stem": (32, 64, 128)}
CHECKPOINT_FILES = ("model.safetensors", "config.json", "contract.json")


def start_folder(init_from: str) -> Path:
    """Where the checkpoint of `train.init_from` lies: relative names are read from the folder in which training processes run."""
    return REPOSITORY / init_from


def rounded_up(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumConfig:
    """What a training batch is asked to predict, over time.

    no_depth_until: share of all steps in which only trace and action are trained. After that every batch draws its mode with the
    probabilities full (depth, trace, action), no_depth (trace, action), trace_given (action after a given trace: steering) and action_only.
    """

    no_depth_until: float = 0.35
    full: float = 0.5
    no_depth: float = 0.25
    trace_given: float = 0.15
    action_only: float = 0.1

    def __post_init__(self) -> None:
        total = self.full + self.no_depth + self.trace_given + self.action_only
        require(
            abs(total - 1) < 1e-6,
            f"train.curriculum: full + no_depth + trace_given + action_only must be 1, got {total:.3f}; divide each by {total:.3f}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run.

    network: "tiny" or the fields of it; or one of the published layout: a preset ("tiny-published", "molmoact-7b-d", "molmoact-7b-o"),
    {"preset": "tiny-published"} with fields of it, the folder of a checkpoint, or a hub id (then with `published.revision`).
    action_head: how the tiny one predicts actions: "causal" (value after value), "parallel" (all at once, a policy kind of its own)
    or "both" (causal, with a parallel block that can draft for it).
    global_batch: samples an optimiser step, over all processes and accumulation; micro_batch: samples a forward pass of one process.
    decay: "cosine" (flat until `flat_until` of the steps, then to min_learning_rate) or "none".
    smoothing_bins: standard deviation, in bins, of the Gaussian that softens trace and action targets.
    committed_rows: up to so many first rows of a chunk are given in half of the samples (executed ones); so many may then be committed by a
    cell that runs the "prefix" strategy (0: none, its answers are joined by bending). Needs action_head "causal".
    stage: "pre", "mid" or "post" training, as the tracker shows it; init_from: folder of the checkpoint to start from.
    lora_rank: 0 trains all weights. checkpoint_every, log_every: in steps. threads: of one process (0: its share of the cores).
    published: what networks of the published layout have besides; nothing of it concerns the tiny one, and of curriculum, loss_weights,
    smoothing_bins, augment_shift_px, committed_rows and action_head nothing concerns them.
    """

    seed: int = 0
    network: str | Mapping[str, Any] = "tiny"
    action_head: Literal["causal", "parallel", "both"] = "causal"
    steps: int = 1_000
    global_batch: int = 48
    micro_batch: int = 48
    world_size: int = 1
    zero_stage: Literal[0, 1, 2, 3] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    learning_rate: float = 1e-3
    min_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    warmup_steps: int = 60
    decay: Literal["cosine", "none"] = "cosine"
    flat_until: float = 0.4
    curriculum: CurriculumConfig = CurriculumConfig()
    loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    smoothing_bins: float = 2.0
    augment_shift_px: int = 0
    committed_rows: int = 0
    checkpoint_every: int = 200
    log_every: int = 10
    stage: Literal["pre", "mid", "post"] = "post"
    init_from: str = ""
    lora_rank: int = 0
    threads: int = field(default=0, metadata=NEUTRAL)
    spikes: Literal["note", "skip", "rewind"] = field(default="note", metadata=LATER)
    restarts: int = field(default=2, metadata=NEUTRAL)
    time_limit_s: float = field(default=0.0, metadata=NEUTRAL)
    published: PublishedTraining = field(default=PublishedTraining(), metadata=LATER)

    def __post_init__(self) -> None:
        positive(self, "steps", "global_batch", "micro_batch", "world_size", "learning_rate", "checkpoint_every", "log_every")
        together = self.micro_batch * self.world_size
        if self.global_batch % together:
            below, above = self.global_batch // together * together, (self.global_batch // together + 1) * together
            raise SpecError(
                f"train.global_batch {self.global_batch} is not divisible by world_size x micro_batch = {together}; use "
                + (f"{below} or {above}" if below else f"{above}")
            )
        require(
            self.warmup_steps < self.steps,
            f"train.warmup_steps {self.warmup_steps} must be below steps {self.steps}; use {self.steps // 10}",
        )
        require(self.restarts >= 0 and self.time_limit_s >= 0, "train.restarts and train.time_limit_s must not be negative")
        require(self.committed_rows >= 0, "train.committed_rows must not be negative", got=self.committed_rows)
        require(
            self.committed_rows == 0 or self.action_head == "causal",
            'train.committed_rows needs train.action_head "causal": placeholders cannot be held to rows',
            got=self.action_head,
        )
        self._check_start()
        self._check_network()

    def _check_start(self) -> None:
        if not is_published(self.network):
            require(self.lora_rank == 0 or bool(self.init_from), "train.lora_rank needs init_from: adapters sit on a trained checkpoint")
            require(
                self.published == PublishedTraining(), "train.published concerns networks of the published layout", got=repr(self.network)
            )
            return
        require(
            not self.init_from,
            "train.init_from is for the tiny network. Fix: name the folder to start from as train.network",
            got=repr(self.init_from),
        )
        require(
            not (self.published.tower_images and self.lora_rank),
            "train.published.tower_images teaches a tower that begins at random, adapters go on from one that was trained. Fix: set one of "
            "them only",
            got=self.published.tower_images,
        )
        require(
            self.published.trained_rows == "all" or (self.zero_stage < 3 and not self.lora_rank),
            "train.published.trained_rows: rows are chosen of a network all weights of which are trained, and are whole in every process. "
            "Fix: --set train.published.trained_rows=all",
            got=f"zero_stage {self.zero_stage}, lora_rank {self.lora_rank}",
        )
        require(
            self.zero_stage < 3 or not self.published.freeze_tower,
            "train.published.freeze_tower needs all weights of the tower in every process, train.zero_stage 3 spreads them. Fix: "
            "--set train.zero_stage=2",
            got=self.zero_stage,
        )

    def _check_network(self) -> None:
        if isinstance(self.network, str) or is_published(self.network):
            check_network(self.network)
            return
        if strangers := sorted(set(self.network) - set(NETWORK_FIELDS)):
            near = difflib.get_close_matches(strangers[0], NETWORK_FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise SpecError(f"train.network: no field {strangers[0]!r}; it has {', '.join(NETWORK_FIELDS)}; {hint}")
        chosen = {**NETWORK_DEFAULTS, **self.network}
        require(
            isinstance(chosen["stem"], list | tuple), "train.network.stem: expected a list of channels, one a halving", got=chosen["stem"]
        )
        counts = {k: v for k, v in chosen.items() if k not in ("stem", "rope")} | dict(enumerate(chosen["stem"]))
        for name, value in counts.items():
            where = f"train.network.stem[{name}]" if isinstance(name, int) else f"train.network.{name}"
            require(isinstance(value, int) and value > 0, f"{where}: expected a whole number above 0", got=repr(value))
        require(1 <= len(chosen["stem"]) <= 5, "train.network.stem: expected 1..5 numbers of channels", got=chosen["stem"])
        step = 2 * chosen["heads"]
        require(
            chosen["width"] % step == 0,
            f"train.network.width: expected a multiple of twice the {chosen['heads']} heads; use {rounded_up(chosen['width'], step)}",
            got=chosen["width"],
        )

    @property
    def start(self) -> str:
        """The folder or hub id that weights are read from; "" where they begin at random, and for a preset."""
        network = self.network if isinstance(self.network, str) and is_published(self.network) else ""
        return self.init_from or (network if "/" in network else "")

    @property
    def picture_step(self) -> int:
        """The sides of an image are multiples of this: the tiny network halves it once a convolution of its stem, and once more."""
        if is_published(self.network):
            return 1  # its processor resizes
        stem = NETWORK_DEFAULTS["stem"] if isinstance(self.network, str) else self.network.get("stem", NETWORK_DEFAULTS["stem"])
        return 2 ** (len(stem) + 1)
