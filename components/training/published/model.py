"""A network of the published layout on frozen data, of one or several embodiments: a `trainable_model.TrainableModel`.

Shape letters: N samples, B examples of a micro batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig
from components.data.frozen_dataset import load_split
from components.data.frozen_members import FrozenMember, open_frozen
from components.training.plan import batch_indices, drawn_samples
from components.training.published.augmentation import augmented
from components.training.published.batches import make_batch
from components.training.published.checkpoint import write_published
from components.training.published.drawing import check_possible, drawing_pairs, drawn_kinds
from components.training.published.examples import ExampleMaker, Look, check_views
from components.training.published.joint.members import JoinedExamples, PublishedMember, check_members
from components.training.published.kinds import kind_weights
from components.training.published.networks import open_network, published_contract
from components.training.published.parts import TrainedPart, trained_parts
from components.training.published.tower.frozen_tower import FrozenTower
from components.training.published.tower.opened import open_tower, require_room
from components.training.published.validation import joined_values, language_ids, validation_values
from components.training.published.web.examples import web_processor
from components.training.published.web.measured import web_values
from components.training.published.web.mixture import WebMixture
from components.training.sizing.example_tokens import mean_shape, measured_shape
from components.training.sizing.flop import example_flop, tower_of
from model_core.network.finetuning.chosen_rows import choose_rows, join_rows, write_rows
from model_core.network.images import ImageProcessor
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError, require

if TYPE_CHECKING:
    from torch import Tensor

    from components.training.published.tower.lesson import BatchWithLesson, TowerLesson
    from model_core.network.finetuning.packing import PublishedBatch, TrainingExample
    from model_core.network.model import MolmoAct

_AUGMENT = 0xA06


class PublishedArm:
    """A network that learns published sentences. Raises `DatasetError` for data it cannot be trained on, `CheckpointError` for weights
    that are not here."""

    def __init__(self, config: TrainConfig, frozen: Path) -> None:
        import torch

        self.config, self.frozen, self._published = config, open_frozen(frozen), config.published
        self.network, self._model = open_network(config)
        self._model.model.transformer.checkpoint_activations = config.published.recompute
        if config.published.freeze_tower:
            self._model.model.vision_backbone.image_vit.requires_grad_(False)
        self._tower = lru_cache(maxsize=2)(self._opened_tower)
        self.members = [self._member(member) for member in self.frozen.members]
        check_members([member.contract for member in self.members])
        robots, robot_pairs_M2 = [member.train for member in self.members], drawing_pairs(self.frozen, config.published.groups)
        look = self._look(web_processor(self.network.processor))
        self._web = WebMixture(config, self.network, look, first=sum(map(len, robots)), robot_draws=len(robot_pairs_M2))
        self._train = JoinedExamples([*robots, *self._web.train])
        self._possible = self._train.possible()
        check_possible(robot_pairs_M2, config.published.groups, self._possible)
        self._pairs_M2 = np.concatenate([robot_pairs_M2, self._web.places_M2])
        self.num_samples = len(self._pairs_M2)
        self.data_digest = self._digest()
        self._ids_X = None
        if config.published.loss_ids == "language":
            found = [language_ids(member.train, config.published) for member in self.members]
            self._ids_X = torch.from_numpy(np.unique(np.concatenate(found)))
            if config.published.trained_rows == "language":
                read = [member.train.prompt_ids(kind) for member in self.members for kind in kind_weights(config.published.groups)]
                choose_rows(self._model, np.unique(np.concatenate([*found, *read])), self._ids_X.numpy())
        self._divisor = lru_cache(maxsize=2)(self._step_divisor)
        self._lesson = self._tower_lesson() if config.published.tower_images else None
        self._validation: dict[str, ExampleMaker] = {}
        if config.published.feature_cache:
            self._require_room()  # before the first step
        self._flop: float | None = None

    @property
    def module(self) -> MolmoAct:
        """The network."""
        return self._model

    def parts(self) -> Sequence[TrainedPart]:
        """Decoder, connector and vision tower, each with its rate; of an adapted network what is trained of them."""
        return trained_parts(self._model, self.config)

    def batch(self, indices_B: NDArray[np.int64], *, seed: int, step: int, micro: int) -> PublishedBatch | BatchWithLesson:
        """Examples of these draws, packed or padded; each of its answer tokens counts so that a step's micro batches average to the mean
        over all answer tokens of the step. With `tower_images` also what the tower learns by itself."""
        draw = (seed, step, micro)
        examples: list[TrainingExample] = []
        for number, (place, kind) in enumerate(self._drawn(indices_B, draw)):
            generator = np.random.Generator(np.random.PCG64([_AUGMENT, *draw, number])) if self._published.augment else None
            examples.append(self._train.example(place, kind, generator))
        batch = make_batch(examples, self._published, self.network.tokenizer.special.pad, self._divisor(seed, step))
        batch = replace(batch, draw=draw)
        return batch if self._lesson is None else self._lesson.beside(batch, draw)

    def loss(self, module: MolmoAct, batch: PublishedBatch | BatchWithLesson) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Cross-entropy and z-loss of the answer tokens, and its parts; with a lesson that of the tower, which is added."""
        from components.training.published.tower.lesson import BatchWithLesson, lesson_loss

        if isinstance(batch, BatchWithLesson):
            loss, parts = self._answer_loss(module, batch.examples)
            learned = lesson_loss(module, batch.lesson)
            return loss + learned["tower"], {**parts, **{f"loss_{name}": value.detach() for name, value in learned.items()}}
        return self._answer_loss(module, batch)

    def _answer_loss(self, module: MolmoAct, batch: PublishedBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        from model_core.network.finetuning.answer_rows import answer_row_loss
        from model_core.network.finetuning.packing import answer_states

        states_ND = answer_states(module, batch, dropout=self._published.residual_dropout)
        ids_X = None if self._ids_X is None else self._ids_X.to(states_ND.device)
        sums = answer_row_loss(
            module.lm_head, states_ND, batch.targets, z_loss=self._published.z_loss, rows_at_once=self._published.loss_rows, ids_X=ids_X
        )
        return sums.loss, {"loss_ce": sums.cross_entropy, "loss_z": sums.z_loss, "accuracy": sums.right}

    def validate(self, module: MolmoAct) -> dict[str, float]:
        """Loss and accuracy of held-out examples of every kind, answers given, and the error of the actions of whole own answers.

        Of several embodiments the means, the loss of each under its name, and each one's errors behind its name.
        """
        write_rows(module)
        found: dict[str, dict[str, float]] = {}
        for member in self.members:
            if len(self.members) > 1 and not member.holds_out:
                continue
            if member.name not in self._validation:
                self._validation[member.name] = self._maker(member.frozen, member.contract, "validation")
            found[member.name] = validation_values(module, self._validation[member.name], self.config, self.loss)
        web = web_values(module, self._web.held_out, self.config, self.loss)
        return (found[self.members[0].name] if len(self.members) == 1 else joined_values(found)) | web

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        """Write the trained network in the published layout, with its contract, ready to be served."""
        self._model.load_state_dict(dict(state))
        if self._lesson is not None:
            self._lesson.drop_heads(self._model)
        join_rows(self._model)
        contracts = [member.contract for member in self.members]
        write_published(folder, self._model, self.network, contracts, vqvae=self.frozen.vqvae, wording=self._published.style)

    def flops_at(self, step: int) -> float:
        """FLOP of one example: the mean of the first draws of the epoch, at their real lengths."""
        if self._flop is None:
            self._flop = self._measured_flop()
        return self._flop

    def _measured_flop(self) -> float:
        first_B = np.arange(self.num_samples)[:16]
        if self._web.train:  # its places stand behind all others
            first_B = np.linspace(0, self.num_samples - 1, min(16, self.num_samples)).astype(np.int64)
        found = [self._train.example(place, kind) for place, kind in self._drawn(first_B, (self.config.seed, 0, 0))]
        shape = mean_shape([measured_shape(example) for example in found])
        ids, tower = None if self._ids_X is None else len(self._ids_X), tower_of(self._published)
        return example_flop(self.network.config, shape, lora_rank=self.config.lora_rank, tower=tower, ids=ids).training

    def _member(self, frozen: FrozenMember) -> PublishedMember:
        contract = published_contract(frozen.contract, self.network)
        train = self._maker(frozen, contract, "train")
        check_views(self._published.views, train)
        return PublishedMember(frozen=frozen, contract=contract, train=train)

    def _maker(self, frozen: FrozenMember, contract: PolicyContract, split: str) -> ExampleMaker:
        published = self._published
        return ExampleMaker(
            load_split(frozen.folder, split),
            contract,
            self.network,
            published=published,
            look=self._look(self.network.processor),
            augment=augmented if published.augment and split == "train" else None,
        )

    def _look(self, processor: ImageProcessor) -> Look:
        """What makes views the input of the network: their crops, or the frozen tower, which is where the engine put the network."""
        if not (self._published.freeze_tower and self._published.packing):
            return processor
        return lambda views: self._tower(processor)(views)

    def _opened_tower(self, processor: ImageProcessor) -> FrozenTower:
        return open_tower(self._model, processor, self.config)

    def _tower_lesson(self) -> TowerLesson:
        from components.training.published.tower.lesson import TowerLesson

        require(
            len(self.members) == 1 and self.network.folder is None,
            "train.published.tower_images is for a network that begins at random, on data of one embodiment. "
            "Fix: --set train.published.tower_images=0",
            error=DatasetError,
        )
        cfg = self.config
        lesson = TowerLesson(self.members[0].train, -(-cfg.published.tower_images * cfg.micro_batch // cfg.global_batch))
        lesson.add_heads(self._model, cfg.seed)
        return lesson

    def _require_room(self) -> None:
        """Raise `JobError` unless the features of all views that are drawn fit on the disk; a drawn trajectory makes another view."""
        samples = len(np.unique(self._pairs_M2[drawn_samples(self.config, self.num_samples), 0]))
        samples += self._published.validation_samples * len(self.members)
        drawn = "trajectory_conditioned" in kind_weights(self._published.groups)
        largest = max((member.train for member in self.members), key=lambda maker: maker.views).split.images_NVHW3
        views = largest.shape[1] + drawn
        require_room(self._model, self.network.processor, self.config, images=samples * views, views_VHW3=largest[0])

    def _step_divisor(self, seed: int, step: int) -> float:
        """Answer tokens of the whole step, a micro batch's share of them."""
        cfg = self.config
        indices = batch_indices(seed, step, cfg.global_batch, self.num_samples)
        tokens, micros = 0.0, cfg.global_batch // cfg.micro_batch
        for micro in range(micros):
            indices_B = indices[micro * cfg.micro_batch : (micro + 1) * cfg.micro_batch]
            tokens += sum(self._train.answer_tokens(place, kind) for place, kind in self._drawn(indices_B, (seed, step, micro)))
        return tokens / micros

    def _drawn(self, indices_B: NDArray[np.int64], draw: tuple[int, int, int]) -> list[tuple[int, str]]:
        """Which sample or row each of these draws is, and what is made of it."""
        pairs_B2, (_, step, micro) = self._pairs_M2[indices_B], draw
        kinds = drawn_kinds(pairs_B2, self._published.groups, self._possible, draw)
        first = step * self.config.global_batch + micro * self.config.micro_batch
        epochs_B = (first + np.arange(len(indices_B))) // self.num_samples
        return list(zip(self._web.rows(pairs_B2, epochs_B).tolist(), kinds, strict=True))

    def _digest(self) -> str:
        """Names the frozen data set, and the rows of the web sources."""
        found = hashlib.sha256(json.dumps(self.frozen.manifest, sort_keys=True).encode())
        for pairs in self._web.listed:
            found.update(pairs.listing.rows_sha256.encode())
        return found.hexdigest()
