"""One tiny network that is trained for several embodiments (`components.training.trainable_model.TrainableModel`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig
from components.data.frozen_dataset import load_split
from components.data.frozen_members import FrozenMembers
from components.training.plan import curriculum_of
from components.training.tiny.batches import BatchMaker, tokens_of, trained_contract, validation_values
from components.training.tiny.joint_batches import JointBatch, TrainedMember, joint_batch, joint_loss

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.network.model import MolmoAct
    from model_core.training import TrainingBatch


class JointArm:
    """The tiny Action Reasoning Model for all embodiments of a frozen data set. Every sample is encoded by its embodiment's contract.

    Raises `SpecError` for cameras that do not fit the network, `CheckpointError` for members that cannot share one.
    """

    def __init__(self, config: TrainConfig, frozen: FrozenMembers) -> None:
        from model_core.embodiments import joint_config, joint_layout
        from model_core.network.queries import ActionHead
        from model_core.tiny import TinySize, fresh_model
        from model_core.training import LossConfig

        self.config, self.frozen = config, frozen
        self._head, size = ActionHead(config.action_head), TinySize.of(config.network)
        self.contracts = [trained_contract(member.contract, config) for member in frozen.members]
        instructions = [text for member in frozen.members for text in member.manifest["instructions"]]
        self.joint = joint_layout(self.contracts, size, instructions)
        self._model = fresh_model(joint_config(self.joint, size, self._head), self.joint.vocabulary, config.seed)
        if config.init_from:
            from components.training.start.joint_rows import weights_of_joint_start

            fresh, only_adapters = self._model.state_dict(), config.lora_rank > 0
            state = weights_of_joint_start(
                config.init_from, self.contracts, self.joint, self._model.config, fresh, only_adapters=only_adapters
            )
            self._model.load_state_dict(state)
        self.members = [self._member(place) for place in range(len(self.contracts))]
        self._validation: dict[str, BatchMaker] = {}
        self._curriculum = curriculum_of(config.curriculum, self.contracts[0].reasoning.levels)
        self._loss = LossConfig(weights=config.loss_weights, smoothing_bins=config.smoothing_bins)
        self._order = frozen.order("train")
        self.num_samples = len(self._order)
        self.data_digest = hashlib.sha256(json.dumps(frozen.manifest, sort_keys=True).encode()).hexdigest()
        self._weights = sum(p.numel() for p in self._model.model.transformer.blocks.parameters())

    def _member(self, place: int) -> TrainedMember:
        frozen, contract = self.frozen.members[place], self.contracts[place]
        layout = self.joint.layouts[frozen.name]
        train = BatchMaker.for_training(load_split(frozen.folder, "train"), layout, contract, self.config)
        return TrainedMember(
            frozen=frozen, contract=contract, layout=layout, slot_rows_S=self.joint.slot_rows[frozen.name], train=train, head=self._head
        )

    @property
    def module(self) -> MolmoAct:
        """The network."""
        return self._model

    def batch(self, indices_B: NDArray[np.int64], *, seed: int, step: int, micro: int) -> JointBatch:
        """Samples of any embodiment in the mode that the curriculum draws for this step (the same for all its micro batches)."""
        mode = self._curriculum.mode_at(step, self.config.steps, seed)
        return joint_batch(self.members, self._order[indices_B], mode, (seed, step, micro))

    def loss(self, module: MolmoAct, batch: JointBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Mean loss over all samples, its parts, and what each embodiment adds to it."""
        return joint_loss(module, batch, self.members, self._loss)

    def validate(self, module: MolmoAct, *, samples: int = 256) -> dict[str, float]:
        """Loss and accuracy of every field on held-out episodes of each embodiment; those without its name are the mean of all.

        An embodiment that holds out no episode has no values.
        """
        found: dict[str, dict[str, float]] = {}
        for member in self.members:
            if not member.frozen.manifest["split"]["validation"]:
                continue
            if member.name not in self._validation:
                self._validation[member.name] = member.held_out()
            found[member.name] = self._validate_one(module, member, self._validation[member.name], samples)
        names = sorted({name for values in found.values() for name in values})
        mean = {f"validation_{name}": float(np.mean([values[name] for values in found.values()])) for name in names}
        return mean | {f"validation_loss/{name}": values["loss"] for name, values in found.items()}

    def _validate_one(self, module: MolmoAct, member: TrainedMember, maker: BatchMaker, samples: int) -> dict[str, float]:
        from model_core.training import answer_loss

        def loss_of(batch: TrainingBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
            return answer_loss(module, member.in_network(batch), member.layout, self._loss)

        return validation_values(maker, member.contract.reasoning.levels, loss_of, samples)

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the trained model as a checkpoint folder with the contract of every embodiment."""
        from model_core.checkpoint import write_checkpoint

        first, *further = self.contracts
        vqvae = self.frozen.vqvae
        write_checkpoint(folder, state=state, config=self._model.config, contract=first, vqvae=vqvae, further=further)

    def flops_at(self, step: int) -> float:
        """6 FLOP a weight of the decoder and token, for the mode of `step`: the mean over the samples that are drawn."""
        mode = self._curriculum.mode_at(step, self.config.steps, self.config.seed)
        counts = np.bincount(self._order[:, 0], minlength=len(self.members))
        tokens = [tokens_of(member.layout, mode, head=self._head) for member in self.members]
        return 6.0 * self._weights * float(np.average(tokens, weights=counts))
