"""What a training run will do, decided before it starts: order of samples, what each step teaches, learning rate, precision, DeepSpeed.

Pure functions of the config and of (seed, step). Nothing here depends on how many processes share the work, so a run
that resumes with another number of processes sees the same samples in the same order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config.paths import INFRA
from components.config.published.networks import is_published
from components.config.train_config import CurriculumConfig, TrainConfig
from model_core.spec.contract import digest_of
from model_core.spec.documents import identity_document
from model_core.spec.errors import DatasetError, SpecError, require
from model_core.spec.types import LEVELS
from model_core.tokenization.compact.vocabulary import ReasoningMode

if TYPE_CHECKING:
    from model_core.training import Curriculum

_DEEPSPEED_FOLDER = INFRA / "deepspeed"
# Fields that change speed or safety, never the curve: a run may resume with other values of these.
_NOT_IN_CURVE = ("world_size", "zero_stage", "checkpoint_every", "log_every", "threads")
BF16_CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


def batch_indices(seed: int, step: int, global_batch: int, num_samples: int) -> NDArray[np.int64]:
    """The samples of optimiser step `step` (from 0): (global_batch,) int64, in order.

    The stream is one permutation of all samples after the other (an epoch each, drawn from (seed, epoch)), cut into
    batches; an epoch may end in the middle of one. Raises `DatasetError` for an empty data set.
    """
    require(num_samples > 0, "the training split holds no sample; collect more episodes", error=DatasetError)
    first = step * global_batch
    places = np.arange(first, first + global_batch)
    epochs = places // num_samples
    indices = np.empty(global_batch, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.Generator(np.random.PCG64([seed, 0x5EED, int(epoch)])).permutation(num_samples)
        here = epochs == epoch
        indices[here] = order[places[here] % num_samples]
    return indices


def drawn_samples(cfg: TrainConfig, num_samples: int) -> NDArray[np.int64]:
    """The samples that a whole training draws, each once: all of them after one epoch."""
    total = cfg.steps * cfg.global_batch
    if total >= num_samples:
        return np.arange(num_samples)
    return np.unique(batch_indices(cfg.seed, 0, total, num_samples))


def curriculum_of(config: CurriculumConfig, levels: Sequence[str] = LEVELS) -> Curriculum:
    """The recipe's curriculum in the model's terms. levels: of the contract.

    A data set without labels teaches actions alone; one of traces without depth teaches them in the share of the full chain too.
    """
    from model_core.training import Curriculum

    if "trace+action" not in levels:
        return Curriculum(no_depth_until=0.0, mixture={ReasoningMode.ACTION: 1.0})
    mixture = {ReasoningMode.TRACE_ACTION: config.no_depth, ReasoningMode.STEERED: config.trace_given}
    mixture |= {ReasoningMode.ACTION: config.action_only}
    if "full" in levels:
        mixture = {ReasoningMode.FULL: config.full, **mixture}
    else:
        mixture[ReasoningMode.TRACE_ACTION] += config.full
    return Curriculum(no_depth_until=config.no_depth_until, mixture=mixture)


def whole_chain(levels: Sequence[str]) -> ReasoningMode:
    """All that a policy of these levels predicts before and with its actions."""
    if "full" in levels:
        return ReasoningMode.FULL
    return ReasoningMode.TRACE_ACTION if "trace+action" in levels else ReasoningMode.ACTION


def micro_batches(cfg: TrainConfig, rank: int, world_size: int) -> list[int]:
    """Which of a step's micro batches (0..global_batch/micro_batch-1) this rank works on, in order."""
    total = cfg.global_batch // cfg.micro_batch
    require(total % world_size == 0, f"{total} micro batches cannot be shared by {world_size} processes; change train.micro_batch")
    return list(range(rank, total, world_size))


def learning_rate(cfg: TrainConfig, step: int) -> float:
    """Linear warm-up over `warmup_steps`, flat until `flat_until` of all steps, then a cosine to `min_learning_rate`. step: from 0.

    A network of the published layout goes by the published rule, which counts steps from 1: its cosine begins a step earlier.
    """
    if is_published(cfg.network) and cfg.decay == "cosine":
        from model_core.network.finetuning.optimizer import rate_at

        return rate_at(
            step + 1,
            cfg.learning_rate,
            steps=cfg.steps,
            warmup_steps=cfg.warmup_steps,
            final_share=cfg.min_learning_rate / cfg.learning_rate,
            flat_until=round(cfg.flat_until * cfg.steps),
        )
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    if cfg.decay == "none":
        return cfg.learning_rate
    start = max(cfg.warmup_steps, cfg.flat_until * cfg.steps)
    if step <= start:
        return cfg.learning_rate
    share = min(1.0, (step - start) / max(1.0, cfg.steps - start))
    return cfg.min_learning_rate + (cfg.learning_rate - cfg.min_learning_rate) * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The number format of the forward pass, and a sentence for a person when it will be slow ("" otherwise)."""

    name: str
    warning: str = ""


def choose_precision(requested: str, cpu_flags: frozenset[str], *, has_gpu: bool = False) -> Precision:
    """bf16 where the machine multiplies bf16 matrices in hardware, fp32 elsewhere; a request is obeyed."""
    fast = has_gpu or bool(BF16_CPU_FLAGS & cpu_flags)
    if requested == "auto":
        slow = "this machine has no bf16 matrix units (amx_bf16, avx512_bf16): training in fp32, two to three times slower than with them"
        return Precision(name="bf16") if fast else Precision(name="fp32", warning=slow)
    if requested == "bf16" and not fast:
        return Precision(name="bf16", warning="bf16 is emulated on this machine and slower than fp32; precision 'auto' would choose fp32")
    require(requested in ("bf16", "fp32"), "train.precision must be auto, bf16 or fp32", got=requested)
    return Precision(name=requested)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this machine's processor can do, in Linux's words; empty where that cannot be read."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def deepspeed_config(cfg: TrainConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's document: the file of the ZeRO stage with the numbers of the recipe filled in.

    The worker clips gradients itself at stage 0, where DeepSpeed does not tell their norm, and by part, which DeepSpeed cannot.
    """
    source = _DEEPSPEED_FOLDER / f"zero{cfg.zero_stage}.json"
    if not source.is_file():
        raise SpecError(f"no DeepSpeed settings for ZeRO stage {cfg.zero_stage}: expected {source.name} in infra/deepspeed")
    document: dict[str, Any] = json.loads(source.read_text())
    return document | {
        "train_batch_size": cfg.global_batch,
        "train_micro_batch_size_per_gpu": cfg.micro_batch,
        "gradient_accumulation_steps": len(micro_batches(cfg, 0, world_size)),
        "gradient_clipping": cfg.gradient_clip if cfg.zero_stage > 0 and not clips_by_part(cfg) else 0.0,
    }


def clips_by_part(cfg: TrainConfig) -> bool:
    """Whether the gradient of each part of a published network is clipped by itself."""
    return is_published(cfg.network) and cfg.published.clip_by_part


def curve_digest(cfg: TrainConfig, *, precision: str = "", start: str = "") -> str:
    """Names everything that shapes the loss curve; equal digests may resume from each other's checkpoints.

    precision: the number format that was chosen here, which "auto" does not tell. start: digest of what `init_from` holds.
    """
    document = {k: v for k, v in identity_document(cfg).items() if k not in _NOT_IN_CURVE}
    return digest_of(document | {"precision": precision or cfg.precision, "init_from": start or cfg.init_from})
