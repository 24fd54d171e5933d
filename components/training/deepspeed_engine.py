"""DeepSpeed behind a few verbs: open, step, save, load, gather. The only importer of deepspeed.

Facts that decide this file, each seen with 0.19.8: its shared-memory collective compiles for 80 s at the first start
unless it is marked as incompatible; CPU Adam compiles likewise, while torch's fused AdamW needs nothing; at ZeRO stage 0
it does not report the gradient norm, so we clip there; its checkpoints fit the number of processes and the stage that wrote them, so ours
are written by `state/`; it imports what nothing here uses: for its autotuner MLflow, half of the time until a process is ready, and for
its Muon torch's compiler, three seconds of each rank above ZeRO stage 0.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config.train_config import TrainConfig
from components.training.optimizer.clipping import clip_by_part, clip_whole, drop_gradients
from components.training.optimizer.groups import groups_of
from components.training.plan import clips_by_part, deepspeed_config, micro_batches
from components.training.state.saving import LiveState
from components.training.trainable_model import TrainableModel, parts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def start_processes() -> tuple[int, int]:
    """Join the process group that torchrun described in the environment; returns (rank, world size)."""
    import torch

    deepspeed = _deepspeed()
    # Without this DeepSpeed compiles its shared-memory collective at first use: 80 s, for nothing at our sizes.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False, verbose=False)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def end_processes() -> None:
    """Leave the process group."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Engine:
    """One rank's share of a model in training."""

    def __init__(self, config: TrainConfig, trainable: TrainableModel, *, bf16: bool, rank: int, world_size: int) -> None:
        import torch

        self.config = config
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        self._bf16 = bf16
        self._micros = micro_batches(config, rank, world_size)
        self._wrapped = _WithLoss(trainable, self.autocast)
        self._parts = parts_of(trainable)
        self._by_part = clips_by_part(config) and bool(self._parts)
        self._clips = self._by_part or config.zero_stage == 0
        groups, self._rates = groups_of(self._wrapped.inner, self._parts, config.weight_decay)
        eps = config.published.adam_eps if self._parts else 1e-8
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=eps, fused=True)
        self._engine, *_ = _deepspeed().initialize(
            model=self._wrapped, optimizer=optimizer, config=deepspeed_config(config, world_size), dist_init_required=False
        )

    @property
    def micros(self) -> list[int]:
        """This rank's micro batches of every step."""
        return self._micros

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The number format of the forward pass."""
        import torch

        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            yield

    def step(self, batches: Sequence[Any], rate: float, *, stop: bool, limit: float = math.inf) -> tuple[dict[str, float], bool]:
        """One optimiser step at learning rate `rate`; none, but for the gradients, where the mean loss is above `limit`.

        Returns the mean over all ranks of the loss and its parts, with "grad_norm" (of a step that was made) or "skipped", and whether
        any rank has a stop request.
        """
        import torch

        for group, relative in zip(self._engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * relative
        sums: dict[str, Tensor] = {}
        skips = False
        for batch in batches:
            loss, parts = self._engine(_moved(batch, self.device))
            self._engine.backward(loss)
            for name, value in {"loss": loss, **parts}.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach().float() / len(batches)
            if batch is batches[-1]:
                skips = self._skips(sums["loss"], limit)
                if self._clips and not skips:
                    sums["grad_norm"] = self._clip()
            self._engine.step()
        if skips:
            sums["skipped"] = torch.ones((), device=self.device)
        elif not self._clips:
            sums["grad_norm"] = torch.as_tensor(float(self._engine.get_global_grad_norm() or 0.0), device=self.device)
        together = torch.stack([torch.tensor(float(stop), device=self.device), *(sums[name].to(self.device) for name in sorted(sums))])
        if self.world_size > 1:
            torch.distributed.all_reduce(together)
            together[1:] /= self.world_size
        values = together.tolist()
        return dict(zip(sorted(sums), values[1:], strict=True)), values[0] > 0

    def _skips(self, loss: Tensor, limit: float) -> bool:
        """Whether the mean loss of all ranks is above the limit; then the gradients are made such that no weight and no moment moves."""
        import torch

        if limit == math.inf:
            return False
        mean = loss.clone()
        if self.world_size > 1:
            torch.distributed.all_reduce(mean)
        if not float(mean) / self.world_size > limit:
            return False
        drop_gradients(self._wrapped.parameters(), self._engine.optimizer, stage=self.config.zero_stage)
        return True

    def _clip(self) -> Tensor:
        most, stage = self.config.gradient_clip, self.config.zero_stage
        if self._by_part:
            return clip_by_part(self._parts, self._engine.optimizer, most=most, stage=stage)
        return clip_whole([p for p in self._wrapped.parameters() if p.requires_grad], most)

    def state(self) -> LiveState:
        """What of the training state this process holds, to be written or filled."""
        return LiveState(
            module=self._wrapped.inner,
            optimizer=self._engine.optimizer,
            stage=self.config.zero_stage,
            rank=self.rank,
            world_size=self.world_size,
            gathered=_deepspeed().zero.GatheredParameters,
        )

    def load(self, folder: Path) -> None:
        """Take the state of a checkpoint, of any number of processes and any ZeRO stage; raises `CheckpointError`."""
        self.state().read(folder)
        self.wait()

    def module(self) -> nn.Module:
        """The network itself, for validation (every rank calls it alike)."""
        return self._wrapped.inner

    def full_state(self) -> dict[str, Tensor]:
        """All weights in fp32 on the CPU, under the network's own names. Every rank must call it."""
        deepspeed = _deepspeed()
        parameters = list(self._wrapped.parameters())
        with deepspeed.zero.GatheredParameters(parameters, enabled=self.config.zero_stage == 3):
            return {name: value.detach().to("cpu", copy=True) for name, value in self._wrapped.inner.state_dict().items()}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, every rank sees whole parameters (only ZeRO stage 3 needs it)."""
        with _deepspeed().zero.GatheredParameters(list(self._wrapped.parameters()), enabled=self.config.zero_stage == 3):
            yield

    def wait(self) -> None:
        """Until every rank is here."""
        import torch

        if self.world_size > 1:
            torch.distributed.barrier()

    def agree(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        import torch

        box = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather_all(self, value: Any) -> list[Any]:
        """Every rank's `value`, on every rank, in order of rank."""
        import torch

        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(values, value)
        return values


def _WithLoss(trainable: TrainableModel, autocast: Any) -> Any:
    """A module whose forward is the trainable model's loss: what DeepSpeed wraps."""
    from torch import nn

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = trainable.module

        def forward(self, batch: Any) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
            with autocast():
                return trainable.loss(self.inner, batch)

    return WithLoss()


def _moved(batch: Any, device: torch.device) -> Any:
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type) and device.type != "cpu":
        return dataclasses.replace(batch, **{f.name: _moved(getattr(batch, f.name), device) for f in dataclasses.fields(batch)})
    return batch


def _deepspeed() -> Any:
    """DeepSpeed, silent: it logs a page at every start."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with _hidden("mlflow"):
        import deepspeed
        from deepspeed.utils import logger

    deepspeed.runtime.compiler.compile = lambda: deepspeed.runtime.compiler.dummy_decorator
    logger.setLevel(logging.WARNING)
    return deepspeed


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Inside, a library that another one imports only where it is installed counts as not installed; one that is loaded stays."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what makes an import of it fail
    try:
        yield
    finally:
        del sys.modules[module]
