"""The part of a recipe's training section that only networks of the published layout have: examples, rates, packing, loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.config.checks import one_of
from components.config.published.web import WebSource
from model_core.spec.documents import LATER, NEUTRAL
from model_core.spec.errors import require

# the four kinds of example (arXiv 2508.07917, section 3.1)
KINDS = ("action_reasoning", "trajectory_conditioned", "depth", "trace")
WEB = "web"  # the kind of an example of a web source
PARTS = ("llm", "connector", "vit")  # parameter groups: each has a learning rate and is clipped by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleGroup:
    """Sources that are drawn together at a rate of their own, and what is asked of their samples.

    rate: how often an example is of this group, relative to the other groups. sources: names of sources; empty: all. Inside a group a
    source is drawn in proportion to the square root of its samples, as published. kinds: how often each kind of example is made of a
    sample, relative to the others.
    """

    name: str
    rate: float = 1.0
    sources: tuple[str, ...] = ()
    kinds: Mapping[str, float] = field(default_factory=lambda: {"action_reasoning": 0.5, "trajectory_conditioned": 0.5})

    def __post_init__(self) -> None:
        where = f"group of examples {self.name!r}"
        require(math.isfinite(self.rate) and self.rate > 0, f"{where}: rate must be above 0; leave the group out", got=self.rate)
        for kind, weight in self.kinds.items():
            one_of(f"{where}: kinds", kind, KINDS)
            require(math.isfinite(weight) and weight >= 0, f"{where}: the weight of {kind} must not be negative", got=weight)
        require(sum(self.kinds.values()) > 0, f"{where}: at least one kind needs a weight above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRates:
    """Learning rate of each part of the network (llm: the decoder with its tables; vit: the vision tower); 0: `train.learning_rate`.

    All of them warm up and decay together.
    """

    llm: float = 0.0
    connector: float = 0.0
    vit: float = 0.0

    def __post_init__(self) -> None:
        for part in PARTS:
            rate = getattr(self, part)
            require(math.isfinite(rate) and rate >= 0, f"train.published.learning_rates.{part} must not be negative", got=rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTraining:
    """How a network of the published layout is trained. Nothing of it concerns the tiny network.

    revision: commit of a hub id in `train.network`. views: images an example has; 0: as many cameras as the data have. groups: which
    samples are drawn how often, and made into which kinds. style: the wording of answers. augment: random crop and colours of the
    published post-training, each view by itself.
    packing: examples of a micro batch lie one after the other in one row, and each sees itself only; without it each is padded to
    `max_tokens`. max_tokens: of one example; a longer one is refused. loss_rows: answer tokens whose logits are in memory at once.
    loss_ids: "all" rows of the head compete, or only those that an answer of the language can hold ("language": less work, other
    probabilities, the same choice of a grammar-bound decoder).
    trained_rows: of embedding and head "all" rows are trained, or those alone that sentences of the data hold ("language", with the same
    loss_ids): the others are what they were, as they are without weight decay, and a step of a small network takes a third less time.
    tower_images: images of each step whose trajectory and depth codes tower and connector also learn by themselves, through heads that are
    no part of the result; 0: none. For networks that begin at random: their towers learn little from answers.
    learning_rates: of each part. clip_by_part: the gradient is clipped part by part (as published) and not over all parameters.
    adam_eps: of AdamW. z_loss: weight of the squared log of the normaliser. lora_alpha: of the adapters, beside `train.lora_rank`.
    residual_dropout: share of the numbers that decoder blocks add to the residual stream which is dropped in training (published: 0.1).
    recompute: blocks of the decoder are computed a second time in the backward pass, so that little of them is kept.
    freeze_tower: the vision tower is not trained, by adapters neither; each view goes through it by itself and without gradients.
    web: image and text pairs that are drawn beside the groups; their answers are learned, their images are never augmented.
    feature_cache: folder in which the frozen tower's features are kept, so that a view goes through it once; "": none. Relative names are
    read from the folder in which training processes run. No number of the training changes by it.
    validation_samples: held-out samples of each kind whose loss is measured at each validation.
    open_loop_samples: held-out samples that are answered at each validation, for the error of their actions; 0: none.
    """

    revision: str = ""
    views: int = 0
    groups: tuple[ExampleGroup, ...] = (ExampleGroup(name="all"),)
    style: Literal["released", "finetuned"] = "released"
    augment: bool = False
    packing: bool = True
    max_tokens: int = 2304
    loss_rows: int = 256
    loss_ids: Literal["all", "language"] = "all"
    learning_rates: PartRates = PartRates()
    clip_by_part: bool = True
    z_loss: float = 1e-4
    adam_eps: float = 1e-6
    lora_alpha: float = 16.0
    residual_dropout: float = 0.0
    recompute: bool = True
    validation_samples: int = 16
    open_loop_samples: int = 4
    freeze_tower: bool = field(default=False, metadata=LATER)
    feature_cache: str = field(default="", metadata=NEUTRAL)
    web: tuple[WebSource, ...] = field(default=(), metadata=LATER)
    trained_rows: Literal["all", "language"] = field(default="all", metadata=LATER)
    tower_images: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        require(len(names) > 0 and len(set(names)) == len(names), "train.published.groups: each needs a name of its own", got=names)
        require(0 <= self.residual_dropout < 1, "train.published.residual_dropout must be 0 or more, below 1", got=self.residual_dropout)
        for name in ("max_tokens", "loss_rows", "lora_alpha"):
            require(getattr(self, name) > 0, f"train.published.{name} must be above 0", got=getattr(self, name))
        for name in ("views", "z_loss", "validation_samples", "open_loop_samples", "tower_images"):
            require(getattr(self, name) >= 0, f"train.published.{name} must not be negative", got=getattr(self, name))
        require(
            self.trained_rows == "all" or self.loss_ids == "language",
            "train.published.trained_rows: rows that are not trained may not compete. Fix: --set train.published.loss_ids=language",
            got=self.trained_rows,
        )
        self._check_tower()
        if self.web:
            self._check_web()

    def _check_web(self) -> None:
        """Raise `SpecError` for a training that cannot hold questions about web images."""
        names, where = [source.name for source in self.web], "train.published.web"
        require(len(set(names)) == len(names), f"{where}: two sources have one name; give each its own", got=names)
        require(self.packing, f"{where}: padded rows hold one question about images of one size. Fix: --set train.published.packing=true")
        require(
            self.loss_ids == "all",
            f"{where}: its answers are any text, and only ids of the robot's language compete. Fix: --set train.published.loss_ids=all",
            got=self.loss_ids,
        )
        require(
            not self.feature_cache,
            f"{where}: train.published.feature_cache keeps the views of robots, not of the web. Fix: leave the cache out",
            got=repr(self.feature_cache),
        )

    def _check_tower(self) -> None:
        """Raise `SpecError` for a cache that nothing would be read from, or that the training would not agree with."""
        where, rate = "train.published.feature_cache", self.learning_rates.vit
        require(
            not (self.freeze_tower and rate),
            "train.published.freeze_tower leaves the tower as it is, train.published.learning_rates.vit gives it a rate. Fix: set one of "
            "them only",
            got=rate,
        )
        require(
            not (self.freeze_tower and self.tower_images),
            "train.published.tower_images teaches the tower, train.published.freeze_tower leaves it as it is. Fix: set one of them only",
            got=self.tower_images,
        )
        require(
            not self.feature_cache or self.freeze_tower,
            f"{where}: features of a tower that is trained change at every step. Fix: --set train.published.freeze_tower=true, or leave "
            "the cache out",
            got=repr(self.feature_cache),
        )
        require(
            not self.feature_cache or self.packing,
            f"{where}: padded rows hold the crops of all views together. Fix: --set train.published.packing=true, or leave the cache out",
            got=repr(self.feature_cache),
        )
        require(
            not (self.feature_cache and self.augment),
            f"{where}: augmented images differ at every draw, nothing would be read twice. Fix: --set train.published.augment=false, or "
            "leave the cache out",
            got=repr(self.feature_cache),
        )
