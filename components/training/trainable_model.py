"""What can be trained: the interface that the worker drives, and the low-rank adapters around it.

A trainable model is single-device computation: it knows nothing of ranks, engines or checkpoints in progress.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from components.config.published.networks import is_published
from components.config.train_config import TrainConfig
from model_core.spec.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.training.published.parts import TrainedPart


class TrainableModel(Protocol):
    """A model, its data and its loss.

    num_samples: size of the training split. data_digest: names the frozen data set.
    """

    num_samples: int
    data_digest: str

    @property
    def module(self) -> nn.Module:
        """The network, freshly made from the seed (or from `init_from`)."""
        ...

    def batch(self, indices_B: NDArray[np.int64], *, seed: int, step: int, micro: int) -> Any:
        """The training batch of these samples; everything random in it is drawn from (seed, step, micro)."""
        ...

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(mean loss of the batch, named parts of it). Called inside one forward of the engine, under its autocast."""
        ...

    def flops_at(self, step: int) -> float:
        """Estimated FLOP of one sample at `step`, forward and backward: for the MFU and the time left."""
        ...

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Numbers on the validation split, no gradients; deterministic."""
        ...

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the trained model into `folder`: weights, config, contract and depth codebook."""
        ...


@runtime_checkable
class TrainedByParts(Protocol):
    """A trainable model whose parts have learning rates of their own, and are clipped one by one."""

    def parts(self) -> Sequence[TrainedPart]:
        """Every trained parameter in one part; none where all are trained alike."""
        ...


class MakeTrainableModel(Protocol):
    """What "module:function" names."""

    def __call__(self, config: TrainConfig, frozen: Path) -> TrainableModel:
        """Open the data and make the model."""
        ...


def make_trainable(config: TrainConfig, frozen: Path) -> Any:
    """The trainable model that `train.network` names, on a frozen data set: the tiny one, or one of the published layout."""
    if is_published(config.network):
        from components.training.published.model import PublishedArm

        return PublishedArm(config, frozen)
    from components.training.tiny_model import make_tiny_arm

    return make_tiny_arm(config, frozen)


def parts_of(trainable: TrainableModel) -> Sequence[TrainedPart]:
    """The parts of a model that is trained by parts; none of another."""
    return trainable.parts() if isinstance(trainable, TrainedByParts) else ()


def load_trainable_model(source: str, config: TrainConfig, frozen: Path) -> TrainableModel:
    """Make the trainable model that "module:function" names; raises `SpecError` when there is none."""
    module_name, _, function_name = source.partition(":")
    try:
        make: MakeTrainableModel = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"no trainable model {source!r} ({error}); expected 'package.module:function'") from error
    trainable = make(config, frozen)
    return trainable if config.lora_rank == 0 else LoraModel(trainable, config)


class LoraModel:
    """A trainable model of which only low-rank adapters are trained, merged at export, so that later steps see a plain checkpoint."""

    def __init__(self, trainable: TrainableModel, config: TrainConfig) -> None:
        from model_core.network.finetuning.lora import LoraSettings, add_lora
        from model_core.network.model import MolmoAct

        model = trainable.module
        if not isinstance(model, MolmoAct):
            raise SpecError(f"train.lora_rank needs a MolmoAct, got {type(model).__name__}; use lora_rank 0")
        self._inner = trainable
        published = is_published(config.network)
        # of the tiny network the published proportion (rank 32, alpha 16), and no head: its loss reads rows of the head directly
        alpha = config.published.lora_alpha if published else config.lora_rank / 2
        settings = LoraSettings(rank=config.lora_rank, alpha=alpha, adapt_head=published, adapt_tower=not config.published.freeze_tower)
        self._model = add_lora(model, settings, seed=config.seed)
        self.num_samples, self.data_digest = trainable.num_samples, trainable.data_digest

    @property
    def module(self) -> nn.Module:
        """The network with adapters; only these require gradients."""
        return self._model

    def batch(self, indices_B: NDArray[np.int64], *, seed: int, step: int, micro: int) -> Any:
        """As without adapters."""
        return self._inner.batch(indices_B, seed=seed, step=step, micro=micro)

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As without adapters."""
        return self._inner.loss(module, batch)

    def parts(self) -> Sequence[TrainedPart]:
        """The adapters by part, where the model has parts."""
        return parts_of(self._inner)

    def flops_at(self, step: int) -> float:
        """As without adapters: only the optimiser does less."""
        return self._inner.flops_at(step)

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """As without adapters."""
        return self._inner.validate(module)

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Merge the adapters into the weights and write a plain checkpoint."""
        from model_core.network.finetuning.lora import merge_lora

        for name, value in (*self._model.named_parameters(), *self._model.named_buffers()):
            if name in state:  # stage 3 left an empty tensor in a parameter's place: it is whole again
                value.data = state[name]
        self._inner.export(merge_lora(self._model).state_dict(), folder)
