"""What can be trained: the port that the worker drives, and the adapters from our models to it.

A trainee is single-device maths: it knows nothing of ranks, engines or checkpoints in progress.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.recipe import TrainConfig
from model_core.spec.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Trainee(Protocol):
    """A model, its data and its loss.

    num_samples: size of the training split. data_digest: names the frozen data set. flops_per_sample: forward and backward,
    an estimate for the MFU.
    """

    num_samples: int
    data_digest: str
    flops_per_sample: float

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

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        """Numbers on the validation split, no gradients; deterministic."""
        ...

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the trained model into `folder`: weights, config, contract and depth codebook."""
        ...


class MakeTrainee(Protocol):
    """What "module:function" names."""

    def __call__(self, config: TrainConfig, frozen: Path) -> Trainee:
        """Open the data and make the model."""
        ...


def load_trainee(source: str, config: TrainConfig, frozen: Path) -> Trainee:
    """Make the trainee that "module:function" names; raises `SpecError` when there is none."""
    module_name, _, function_name = source.partition(":")
    try:
        make: MakeTrainee = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"no trainee {source!r} ({error}); expected 'package.module:function'") from error
    return make(config, frozen)
