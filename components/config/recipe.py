"""Everything that a person chooses for a run, as frozen values. Recipes themselves live in ``flows/pipeline/recipes.py``.

Each config goes into the key of its stage; a field that only says how the work is done (how many processes share
it) is marked `NEUTRAL` and stays out of the key. Cross-field rules state the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.config.annotators import DEPTH_ANNOTATORS, POINT_ANNOTATORS, annotator_source
from components.config.paths import REPOSITORY
from components.config.simulators import simulator_source
from model_core.spec.contract import digest_of
from model_core.spec.documents import NEUTRAL, from_document, to_document
from model_core.spec.errors import SpecError, require
from model_core.spec.execution.cell_options import FIRST_SEED

# What is known of parts that bring torch, which a recipe must not: tests/unit/test_recipe.py holds both sides together.
NETWORK_FIELDS = ("width", "layers", "heads", "kv_heads", "feed_forward", "projector", "stem", "rope")
NETWORK_DEFAULTS: Mapping[str, Any] = {"width": 192, "heads": 3, "stem": (32, 64, 128)}
CHECKPOINT_FILES = ("model.safetensors", "config.json", "contract.json")
_ROOT = REPOSITORY  # where the training processes run: relative folders are read from here


def _positive(config: object, *names: str) -> None:
    for name in names:
        require(getattr(config, name) > 0, f"{type(config).__name__}.{name} must be above 0", got=getattr(config, name))


def _one_of(where: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        near = difflib.get_close_matches(got, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"set {where} to one of them"
        raise SpecError(f"{where}: expected one of {', '.join(known)}, got {got!r}; {hint}")


def _fraction(config: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(config, name) <= 1, f"{type(config).__name__}.{name} must be 0..1", got=getattr(config, name))


def _up(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Where a camera stands that looks at a fixed point: azimuth and elevation in degrees (MuJoCo's free camera), distances in metres."""

    name: str = "front"
    azimuth: float = 135.0
    elevation: float = -35.0
    distance: float = 1.0
    lookat: tuple[float, float, float] = (0.0, 0.74, 0.13)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """Recording of demonstrations by scripted experts.

    first_seed: episode i of every task uses first_seed + i. horizon_sim_steps: an attempt ends here at the latest.
    keep_failures: also record attempts that did not solve the task. noise_levels: standard deviation (of the action) of
    correlated noise; an episode draws one. burst_probability, burst_steps: chance per control step that a random push of that
    many steps begins. settle_steps: control steps that are recorded after the success. max_depth_m: distances are clipped there.
    instructions: task -> the sentence that replaces the simulator's. workers: processes (does not change the data).
    """

    simulator: str = "metaworld"
    tasks: tuple[str, ...] = ("coffee-button-v3", "drawer-close-v3")
    episodes_per_task: int = 300
    first_seed: int = 10_000
    workers: int = field(default=2, metadata=NEUTRAL)
    sim_steps_per_action: int = 4
    horizon_sim_steps: int = 200
    noise_levels: tuple[float, ...] = (0.0, 0.3, 0.6)
    noise_correlation: float = 0.7
    burst_probability: float = 0.04
    burst_steps: tuple[int, int] = (2, 4)
    keep_failures: bool = False
    settle_steps: int = 4
    image_size: int = 80
    camera: CameraConfig = CameraConfig()
    max_depth_m: float = 3.0
    instructions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        simulator_source(self.simulator)  # an unknown name is refused here
        require(len(self.tasks) > 0, "collect.tasks is empty; name at least one task, such as 'drawer-close-v3'")
        require(len(set(self.tasks)) == len(self.tasks), "collect.tasks names a task twice", got=self.tasks)
        _positive(self, "episodes_per_task", "workers", "sim_steps_per_action", "horizon_sim_steps", "image_size", "max_depth_m")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateConfig:
    """What an episode must satisfy to be used, and how many may fail before the flow stops.

    `collect` and `ingest` inspect every episode with black_mean, range_slack and max_timestamp_jitter_s, too. Fractions are
    0..1 of an episode's frames (max_bad_fraction: of all episodes). frozen_frames_limit: equal images in a row of a commanded arm.
    black_mean: an image with a lower mean (0..255) is black; images of Meta-World have means of 82 to 101, so 5 sets none of them aside.
    range_slack: share of a dimension's range by which a value may exceed its limits.
    """

    min_frames: int = 8
    max_frames: int = 1000
    max_bad_fraction: float = 0.2
    min_gripper_visible: float = 0.5
    frozen_frames_limit: int = 10
    black_mean: float = 5.0
    range_slack: float = 0.05
    max_clipped_fraction: float = 0.9
    max_timestamp_jitter_s: float = 0.001
    data_docs: bool = True

    def __post_init__(self) -> None:
        _fraction(self, "max_bad_fraction", "min_gripper_visible", "max_clipped_fraction", "range_slack")


@dataclass(frozen=True, slots=True, kw_only=True)
class VqvaeConfig:
    """Training of the depth VQ-VAE: 10x10 codes. input_size: 20, 40, 80, 160 or 320 pixels. lr: AdamW's.

    frames: at most about this many depth maps are trained on.
    """

    steps: int = 600
    batch: int = 16
    lr: float = 4e-3
    seed: int = 0
    hidden: int = 16
    code_dim: int = 16
    num_codes: int = 128
    input_size: int = 40
    commitment: float = 0.25
    ema_decay: float = 0.99
    frames: int = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateConfig:
    """How frames get their depth tokens and traces.

    depth_annotator: "truth" (the simulator's metric depth), "depth_anything" or "package.module:function". point_annotator: "truth",
    "pointing" or "package.module:function".
    depth_model, point_model: folder or hub id of their weights, read only by the annotators that have any.
    The default pointer is a MolmoAct because our own network reads its layout: Molmo-7B-D-0924 needs remote code, which is
    refused, and Molmo2 needs torchvision. Any MolmoAct folder or any pointing architecture that transformers has built in will do.
    batch_size: frames a forward pass (does not change the labels).
    """

    depth_annotator: str = "truth"
    point_annotator: str = "truth"
    depth_model: str = "depth-anything/Depth-Anything-V2-Base-hf"
    point_model: str = "allenai/MolmoAct-7B-D-0812"
    vqvae: VqvaeConfig = VqvaeConfig()
    trace_points: int = 5
    batch_size: int = field(default=64, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        annotator_source("annotate.depth_annotator", self.depth_annotator, DEPTH_ANNOTATORS)
        annotator_source("annotate.point_annotator", self.point_annotator, POINT_ANNOTATORS)
        require(1 <= self.trace_points <= 5, "annotate.trace_points must be 1..5", got=self.trace_points)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeConfig:
    """How labelled episodes become a data set version.

    mask: per action dimension, whether it is normalised by quantiles (False: passed through as it is). Empty: every dimension but the
    embodiment's gripper.
    frame_stride: every n-th frame becomes a training sample; its chunk still holds consecutive actions.
    """

    name: str = "loop"
    validation_fraction: float = 0.05
    chunk_length: int = 8
    execute_horizon: int = 4
    frame_stride: int = 1
    frames_per_shard: int = 4096
    mask: tuple[bool, ...] = ()
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _positive(self, "chunk_length", "execute_horizon", "frame_stride", "frames_per_shard")
        require(
            0 < self.validation_fraction < 0.5, "freeze.validation_fraction must be above 0 and below 0.5", got=self.validation_fraction
        )
        require(
            self.execute_horizon <= self.chunk_length,
            f"freeze.execute_horizon {self.execute_horizon} is longer than the chunk; use at most {self.chunk_length}",
        )


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

    network: name of a network ("tiny") or its fields. action_head: how it predicts actions: "causal" (value after value), "parallel" (all
    at once, a policy kind of its own) or "both" (causal, with a parallel block that can draft for it).
    global_batch: samples an optimiser step, over all processes and accumulation; micro_batch: samples a forward pass of one process.
    decay: "cosine" (flat until `flat_until` of the steps, then to min_learning_rate) or "none".
    smoothing_bins: standard deviation, in bins, of the Gaussian that softens trace and action targets.
    committed_rows: up to so many first rows of a chunk are given in half of the samples (executed ones); so many may then be committed by a
    cell that runs the "prefix" strategy (0: none, its answers are joined by bending). Needs action_head "causal".
    stage: "pre", "mid" or "post" training, as the tracker shows it; init_from: folder of the checkpoint to start from.
    lora_rank: 0 trains all weights. checkpoint_every, log_every: in steps. threads: of one process (0: its share of the cores).
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

    def __post_init__(self) -> None:
        _positive(self, "steps", "global_batch", "micro_batch", "world_size", "learning_rate", "checkpoint_every", "log_every")
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
        require(self.committed_rows >= 0, "train.committed_rows must not be negative", got=self.committed_rows)
        require(
            self.committed_rows == 0 or self.action_head == "causal",
            'train.committed_rows needs train.action_head "causal": placeholders cannot be held to rows',
            got=self.action_head,
        )
        require(self.lora_rank == 0 or bool(self.init_from), "train.lora_rank needs init_from: adapters sit on a trained checkpoint")
        self._check_network()

    def _check_network(self) -> None:
        if isinstance(self.network, str):
            _one_of("train.network", self.network, ("tiny",))
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
            f"train.network.width: expected a multiple of twice the {chosen['heads']} heads; use {_up(chosen['width'], step)}",
            got=chosen["width"],
        )

    @property
    def picture_step(self) -> int:
        """The sides of an image are multiples of this: the network halves it once a convolution of its stem, and once more."""
        stem = NETWORK_DEFAULTS["stem"] if isinstance(self.network, str) else self.network.get("stem", NETWORK_DEFAULTS["stem"])
        return 2 ** (len(stem) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """Closed loop on seeds that were never trained on.

    suite: "package.module:function" of a benchmark suite (empty: the tasks of the recipe's own simulator).
    reasoning: "full" (depth, trace, action), "trace+action" or "action". batch: episodes that are decided for together.
    image_swap_frames, min_image_swap_change: the image-swap check: of so many frames, at least this share of decisions must change when
    the image is exchanged (a model that uses it: 0.88 and more; after 20 steps of training: 0.16). films_per_task: how many rollout strips.
    """

    seeds_per_task: int = 20
    first_seed: int = 930_000
    horizon_sim_steps: int = 500
    execute_horizon: int = 4
    reasoning: Literal["full", "trace+action", "action"] = "full"
    batch: int = 10
    workers: int = field(default=2, metadata=NEUTRAL)
    image_swap_frames: int = 64
    min_image_swap_change: float = 0.5
    max_refusals_in_a_row: int = 3
    films_per_task: int = 1
    suite: str = ""

    def __post_init__(self) -> None:
        _positive(self, "seeds_per_task", "horizon_sim_steps", "execute_horizon", "batch", "workers")
        _fraction(self, "min_image_swap_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What a candidate must show to become champion.

    floor: the lower end of the interval of every task must be at least this (0.55 asks for 16 of 20, 80 %). margin: against the
    champion, the candidate's success rate may be lower by at most this (non-inferiority, on the interval of the difference).
    min_trials: per task, else "not enough".
    """

    floor: float = 0.55
    confidence: float = 0.95
    margin: float = 0.3
    min_trials: int = 20
    max_refusal_rate: float = 0.05
    min_image_swap_change: float = 0.5

    def __post_init__(self) -> None:
        _fraction(self, "floor", "confidence", "margin", "max_refusal_rate", "min_image_swap_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageConfig:
    """What goes into the Bento and how it must answer before it counts as ready.

    golden_probes: recorded observations whose decisions the packed model must reproduce.
    """

    name: str = "actwright-policy"
    model_name: str = "actwright"
    golden_probes: int = 4
    reasoning: Literal["full", "trace+action", "action"] = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkcellsConfig:
    """Simulated cells that call the served policy. tasks: one a cell, in order (empty: the tasks of collect).

    deadline_ms: a chunk that comes later is not used; the cell holds. real_time: wait for the control rate
    (False: as fast as the simulator goes). audit: keep a hash-chained record of every decision.
    """

    cells: int = 2
    tasks: tuple[str, ...] = ()
    episodes_per_cell: int = 5
    first_seed: int = FIRST_SEED
    horizon_sim_steps: int = 500
    execute_horizon: int = 4
    deadline_ms: float = 2_000.0
    real_time: bool = False
    record: bool = True
    audit: bool = True

    def __post_init__(self) -> None:
        _positive(self, "cells", "episodes_per_cell", "horizon_sim_steps", "execute_horizon", "deadline_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything chosen by a person for one run of the loop.

    include: digests of ingested recordings (`actwright ingest`) that join the demonstrations; nothing joins unasked.
    """

    name: str
    collect: CollectConfig = CollectConfig()
    validate: ValidateConfig = ValidateConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    freeze: FreezeConfig = FreezeConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvalConfig = EvalConfig()
    gate: GateConfig = GateConfig()
    package: PackageConfig = PackageConfig()
    workcells: WorkcellsConfig = WorkcellsConfig()
    include: tuple[str, ...] = ()
    description: str = field(default="", metadata=NEUTRAL)

    def __post_init__(self) -> None:
        for name, config in (("evaluate", self.evaluate), ("workcells", self.workcells)):
            require(
                config.execute_horizon <= self.freeze.chunk_length,
                f"{name}.execute_horizon {config.execute_horizon} is longer than the chunk; use at most {self.freeze.chunk_length}",
            )
        step, side = self.train.picture_step, self.collect.image_size
        require(
            side % step == 0,
            f"collect.image_size {side} does not fit train.network, whose images have sides that are multiples of {step}; use "
            + " or ".join(str(fit) for fit in (side // step * step, _up(side, step)) if fit),
        )
        require(
            self.train.committed_rows < self.freeze.chunk_length,
            f"train.committed_rows {self.train.committed_rows} must be below freeze.chunk_length {self.freeze.chunk_length}: "
            f"a policy predicts at least one row itself; use at most {self.freeze.chunk_length - 1}",
        )
        self._check_seeds()
        strangers = sorted(set(self.workcells.tasks) - set(self.collect.tasks))
        require(not strangers, f"workcells.tasks {strangers} are not among collect.tasks; the policy has never seen them")

    def _check_seeds(self) -> None:
        """Evaluation and workcells use no seed that was demonstrated."""
        shown = range(self.collect.first_seed, self.collect.first_seed + self.collect.episodes_per_task)
        for name, first, count in (
            ("evaluate", self.evaluate.first_seed, self.evaluate.seeds_per_task),
            ("workcells", self.workcells.first_seed, self.workcells.cells * self.workcells.episodes_per_cell),
        ):
            overlap = first < shown.stop and shown.start < first + count
            require(
                not overlap,
                f"{name}.first_seed {first} is among the demonstrations' seeds {shown.start}..{shown.stop - 1}; use {shown.stop}",
            )

    def check_start(self) -> None:
        """Raise `SpecError` unless the checkpoint that training starts from is here; asked before any work, not when a recipe is read."""
        if not self.train.init_from:
            return
        folder = _ROOT / self.train.init_from
        missing = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
        if missing:
            got = f"a folder without {', '.join(missing)}" if folder.is_dir() else "no folder there"
            raise SpecError(
                f"train.init_from {folder}: expected the folder of a checkpoint ({', '.join(CHECKPOINT_FILES)}), got {got}; name one, such "
                'as the "checkpoint" that `actwright train` prints at its end'
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe as a plain document; `from_json` is its exact inverse."""
        return to_document(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Recipe:
        """Read a resolved recipe; raises `SpecError` naming the field and what was probably meant."""
        return from_document(Recipe, document, where="recipe")
