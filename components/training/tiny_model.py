"""The tiny model as something that can be trained, on the data of one embodiment or of several.

Shape letters: N samples, B batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig
from components.data.frozen_dataset import drawing_order, load_split, read_frozen
from components.data.frozen_members import open_frozen
from components.training.plan import curriculum_of
from components.training.tiny.batches import BatchMaker, tokens_of, trained_contract, validation_values
from components.training.tiny.joint_model import JointArm

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.model import MolmoAct
    from model_core.training import TrainingBatch

__all__ = ["BatchMaker", "TinyArm", "make_tiny_arm"]


class TinyArm:
    """The tiny Action Reasoning Model of one embodiment, as a `components.training.trainable_model.TrainableModel`."""

    def __init__(self, config: TrainConfig, frozen: Path) -> None:
        from model_core.network.queries import ActionHead
        from model_core.tiny import TinySize, new_tiny_model, tiny_layout
        from model_core.training import LossConfig

        manifest, contract = read_frozen(frozen)
        self._head = ActionHead(config.action_head)
        self.contract = trained_contract(contract, config)
        self.config, self.frozen = config, frozen
        train = load_split(frozen, "train")
        size = TinySize.of(config.network)
        self.layout = tiny_layout(self.contract, size, train.instructions)
        self._model = new_tiny_model(self.layout, size, config.seed, self._head)
        if config.init_from:
            self._take_weights(config)
        self._train = BatchMaker.for_training(train, self.layout, self.contract, config)
        self._validation: BatchMaker | None = None
        self._curriculum = curriculum_of(config.curriculum, self.contract.reasoning.levels)
        self._loss = LossConfig(weights=config.loss_weights, smoothing_bins=config.smoothing_bins)
        self._order = drawing_order(frozen, "train")
        self.num_samples = len(train) if self._order is None else len(self._order)
        self.data_digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        self._weights = sum(p.numel() for p in self._model.model.transformer.blocks.parameters())

    @property
    def module(self) -> MolmoAct:
        """The network."""
        return self._model

    def batch(self, indices_B: NDArray[np.int64], *, seed: int, step: int, micro: int) -> TrainingBatch:
        """Samples in the mode that the curriculum draws for this step (the same for all its micro batches)."""
        mode = self._curriculum.mode_at(step, self.config.steps, seed)
        indices_B = indices_B if self._order is None else self._order[indices_B]
        return self._train.batch(indices_B, mode, draw=(seed, step, micro))

    def loss(self, module: MolmoAct, batch: TrainingBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean loss and its parts. A part that the step's mode does not train is not among them."""
        from model_core.training import answer_loss

        return answer_loss(module, batch, self.layout, self._loss)

    def validate(self, module: MolmoAct, *, samples: int = 256) -> dict[str, float]:
        """Loss and accuracy of every field on held-out episodes, the whole chain that is taught, teacher-forced."""
        if self._validation is None:
            self._validation = BatchMaker(load_split(self.frozen, "validation"), self.layout, self.contract, head=self._head)
        found = validation_values(self._validation, self.contract.reasoning.levels, partial(self.loss, module), samples)
        return {f"validation_{name}": value for name, value in found.items()}

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the trained model as a checkpoint folder that a policy can be loaded from."""
        from model_core.checkpoint import write_checkpoint

        vqvae = self.frozen / "vqvae"
        write_checkpoint(folder, state=state, config=self._model.config, contract=self.contract, vqvae=vqvae if vqvae.is_dir() else None)

    def _take_weights(self, config: TrainConfig) -> None:
        from components.training.start.carried_rows import weights_of_start

        fresh, only_adapters = self._model.state_dict(), config.lora_rank > 0
        self._model.load_state_dict(weights_of_start(config.init_from, self.contract, self.layout, fresh, only_adapters=only_adapters))

    def flops_at(self, step: int) -> float:
        """6 FLOP a weight of the decoder and token, for the mode that the curriculum draws for `step`."""
        mode = self._curriculum.mode_at(step, self.config.steps, self.config.seed)
        return 6.0 * self._weights * tokens_of(self.layout, mode, head=self._head)


def make_tiny_arm(config: TrainConfig, frozen: Path) -> TinyArm | JointArm:
    """Open a frozen data set and make a fresh tiny model for its embodiments: what `components.training.trainable_model` names."""
    found = open_frozen(frozen)
    return TinyArm(config, frozen) if len(found.members) == 1 else JointArm(config, found)
