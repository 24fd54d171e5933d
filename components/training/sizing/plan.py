"""The plan of a training on GPUs: what each holds, how long a run takes, whether it fits, and what would fit if it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from components.config.recipe import Recipe
from components.config.train_config import TrainConfig
from components.training.published.shapes import NetworkShape, network_shape
from components.training.sizing.counts import ParameterCounts, parameter_counts
from components.training.sizing.example_tokens import ActionShape, example_shape, with_web
from components.training.sizing.flop import ExampleFlop, ExampleShape, example_flop, tower_of
from components.training.sizing.machines import ACCELERATORS, GIB, Accelerator
from components.training.sizing.memory import MemoryParts, Sharing, memory_parts
from components.training.sizing.reported import PADDED_CROPS, PADDED_TOKENS, REPORTED
from model_core.network.config import MolmoActConfig
from model_core.spec.errors import SpecError

DEFAULT_MFU = 0.4
_PROCESS_BYTES = 8 * GIB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingPlan:
    """One training on `train.world_size` GPUs of a kind.

    example: the mean one. padded: as the published trainer pads it. mfu: the share of the GPU's peak that is assumed; hours follow from it.
    """

    recipe: str
    train: TrainConfig
    network: NetworkShape
    gpu: Accelerator
    mfu: float
    counts: ParameterCounts
    example: ExampleShape
    padded: ExampleShape
    flop: ExampleFlop
    padded_flop: ExampleFlop
    memory: MemoryParts

    @property
    def fits(self) -> bool:
        """Whether a GPU of this kind holds all parts."""
        return self.memory.total <= self.gpu.memory_bytes

    @property
    def hours(self) -> float:
        """Of the whole training, at the assumed utilisation."""
        return self._gpu_hours(self.flop) / self.train.world_size

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs."""
        return self._gpu_hours(self.flop)

    @property
    def padded_gpu_hours(self) -> float:
        """The same with every example padded as published, at the same utilisation, which then counts padding as work."""
        return self._gpu_hours(self.padded_flop)

    def _gpu_hours(self, flop: ExampleFlop) -> float:
        samples = self.train.steps * self.train.global_batch
        return samples * flop.training / (self.gpu.bf16_flops * self.mfu) / 3600

    def implied_mfu(self, gpu_hours: float, gpu: Accelerator) -> float:
        """The utilisation that so many GPU hours mean for the work of this plan, padding not counted."""
        return self.train.steps * self.train.global_batch * self.flop.training / (gpu_hours * 3600 * gpu.bf16_flops)

    def document(self) -> dict[str, Any]:
        """All figures under plain names: bytes, tokens, FLOP, hours."""
        train, reported = self.train, REPORTED.get(self.recipe)
        step = {
            "samples": train.global_batch,
            "tokens": train.global_batch * self.example.tokens,
            "answer_tokens": train.global_batch * self.example.answer,
            "tokens_a_gpu": train.micro_batch * self.example.tokens,
            "accumulation": train.global_batch // (train.micro_batch * train.world_size),
            "flop": train.global_batch * self.flop.training,
        }
        paper = {}
        if reported is not None:
            mfu = [self.implied_mfu(hours, ACCELERATORS["h100"]) for hours in (reported.high, reported.low)]
            paper = {**asdict(reported), "mfu_of_this_work": mfu}
        return {
            "recipe": self.recipe,
            "network": train.network,
            "gpus": train.world_size,
            "gpu": self.gpu.name,
            "zero_stage": train.zero_stage,
            "lora_rank": train.lora_rank,
            "parameters": {**asdict(self.counts), "total": self.counts.total},
            "example": {**asdict(self.example), "tokens": self.example.tokens, "padded_tokens": self.padded.tokens},
            "step": step,
            "example_flop": asdict(self.flop),
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total, "of": self.gpu.memory_bytes},
            "fits": self.fits,
            "time": {
                "mfu": self.mfu,
                "steps": train.steps,
                "hours": self.hours,
                "gpu_hours": self.gpu_hours,
                "padded_gpu_hours": self.padded_gpu_hours,
            },
            "paper_gpu_hours": paper,
        }

    def lines(self) -> list[str]:
        """The plan for a person."""
        train, counts, memory, shape = self.train, self.counts, self.memory, self.example
        trained = f"{counts.trained / 1e9:.3f} B trained" + (f" (adapters of rank {train.lora_rank})" if train.lora_rank else "")
        lines = [
            f"{self.recipe}: {train.network} on {train.world_size} x {self.gpu.name}, ZeRO stage {train.zero_stage}",
            f"  parameters   {counts.total / 1e9:.3f} B (decoder {counts.decoder / 1e9:.3f}, connector {counts.connector / 1e9:.3f}, "
            f"vision {counts.vision / 1e9:.3f}); {trained}",
            f"  example      {shape.prompt} prompt + {shape.answer} answer = {shape.tokens} tokens, {shape.crops} crops "
            f"(padded as published: {self.padded.tokens} tokens, {self.padded.crops} crops)",
            f"  step         {train.global_batch} examples, {train.global_batch * shape.tokens:,} tokens, "
            f"{train.global_batch * self.flop.training:.3g} FLOP; {train.micro_batch} examples a GPU and forward pass",
            "  memory a GPU " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in asdict(memory).items() if size),
            f"               = {memory.total / GIB:.2f} of {self.gpu.memory_bytes / GIB:.1f} GiB",
            f"  time         {train.steps:,} steps: {self.hours:.1f} h, {self.gpu_hours:,.0f} GPU hours at an MFU of {self.mfu:.0%} "
            f"(padded as published: {self.padded_gpu_hours:,.0f})",
        ]
        reported = REPORTED.get(self.recipe)
        if reported is not None:
            span = f"{reported.low:,.0f}" + (f" to {reported.high:,.0f}" if reported.high > reported.low else "")
            low = self.implied_mfu(reported.high, ACCELERATORS["h100"])
            lines.append(f"  paper        {span} GPU hours on h100: an MFU of {low:.1%} of the work above")
        return lines


def plan_training(recipe: Recipe, gpu: Accelerator, *, mfu: float = DEFAULT_MFU) -> TrainingPlan:
    """The plan of a recipe of a published network, whether it fits or not. Raises `SpecError` for another network or a wrong MFU."""
    if not 0 < mfu <= 1:
        raise SpecError(f"mfu: expected a share of the peak above 0 and at most 1, got {mfu}. Fix: 0.4 is usual")
    return _plan(recipe.name, recipe.train, recipe.freeze.chunk_length, (gpu, mfu), network_shape(recipe.train))


def _plan(name: str, train: TrainConfig, chunk_length: int, on: tuple[Accelerator, float], network: NetworkShape) -> TrainingPlan:
    config, published = network.config, train.published
    views = published.views or 1
    action = ActionShape(views=views, chunk_length=chunk_length)
    example = with_web(example_shape(config, network.processor, network.tokenizer, action, published.groups), published, network)
    full = replace(example, answer=PADDED_TOKENS - example.prompt, crops=PADDED_CROPS.get(views, 9 * views), head_rows=PADDED_TOKENS)
    counts = parameter_counts(config, train.lora_rank, frozen_tower=published.freeze_tower)
    tower = tower_of(published)
    return TrainingPlan(
        recipe=name,
        train=train,
        network=network,
        gpu=on[0],
        mfu=on[1],
        counts=counts,
        example=example,
        padded=full,
        flop=example_flop(config, example, lora_rank=train.lora_rank, tower=tower),
        padded_flop=example_flop(config, full, lora_rank=train.lora_rank, tower=tower),
        memory=_memory(train, config, counts, example if published.packing else full),
    )


def _memory(train: TrainConfig, config: MolmoActConfig, counts: ParameterCounts, shape: ExampleShape) -> MemoryParts:
    sharing = Sharing(world=train.world_size, zero_stage=train.zero_stage, examples=train.micro_batch, loss_rows=train.published.loss_rows)
    return memory_parts(config, counts, shape, sharing, frozen_tower=train.published.freeze_tower)


def machine_memory_bytes(plan: TrainingPlan, processes: int) -> int:
    """Memory that a machine with so many processes needs beside its GPUs: each reads all weights in float32, one of them gathers all once
    more to write the checkpoint, and each holds `_PROCESS_BYTES` of libraries and data."""
    weights = 4 * plan.counts.total
    return (processes + 1) * weights + processes * _PROCESS_BYTES


def require_fit(plan: TrainingPlan) -> None:
    """Raise `SpecError` for a plan that no GPU of its kind holds, with the changes that would make it fit."""
    if plan.fits:
        return
    largest = max(asdict(plan.memory).items(), key=lambda part: part[1])
    fixes = fitting_changes(plan)
    raise SpecError(
        f"{plan.recipe} on {plan.train.world_size} x {plan.gpu.name}: expected at most {plan.gpu.memory_bytes / GIB:.1f} GiB a GPU, got "
        f"{plan.memory.total / GIB:.1f} (most of it {largest[0]}: {largest[1] / GIB:.1f}). Fix: "
        + ("; or ".join(fixes) if fixes else "none of the usual changes fits; train a smaller network")
    )


def fitting_changes(plan: TrainingPlan) -> list[str]:
    """Changes of the recipe with which the plan fits, each by itself, the least first."""
    train = plan.train
    candidates: dict[str, Mapping[str, Any]] = {}
    for micro in _divisors_below(train.micro_batch):
        candidates[f"--set train.micro_batch={micro}"] = {"micro_batch": micro}
    for stage in range(train.zero_stage + 1, 4 if not train.published.freeze_tower else 3):
        candidates[f"--set train.zero_stage={stage}"] = {"zero_stage": stage}
    world = train.world_size * 2
    while world <= train.global_batch // train.micro_batch and train.zero_stage > 0:
        candidates[f"--gpus {world}"] = {"world_size": world}
        world *= 2
    if not train.lora_rank:
        stage = min(train.zero_stage, 2)
        candidates[f"--set train.lora_rank=32 --set train.zero_stage={stage}"] = {"lora_rank": 32, "zero_stage": stage}
    found: dict[tuple[str, ...], str] = {}  # what is changed -> the least change of it that fits
    for words, changes in candidates.items():
        kind = tuple(changes)
        if kind not in found and _resized(plan, **changes).fits:
            found[kind] = words
    larger = [one for one in ACCELERATORS.values() if one.memory_bytes > plan.gpu.memory_bytes and plan.memory.total <= one.memory_bytes]
    return [*found.values(), *(f"--gpu {one.name}" for one in larger)]


def _resized(plan: TrainingPlan, **changes: Any) -> TrainingPlan:
    train = replace(plan.train, **changes)
    config = plan.network.config
    counts = parameter_counts(config, train.lora_rank, frozen_tower=train.published.freeze_tower)
    shape = plan.example if train.published.packing else plan.padded
    return replace(plan, train=train, counts=counts, memory=_memory(train, config, counts, shape))


def _divisors_below(number: int) -> list[int]:
    return [one for one in range(number - 1, 0, -1) if number % one == 0]
