"""Batches of one split of one embodiment: shards in, tensors out, nothing random that is not drawn from (seed, step).

Shape letters: N samples, V views, P proprio, K chunk, A action dims, G depth cells, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config.train_config import TrainConfig
from components.data.frozen_dataset import FrozenSplit
from components.training.plan import whole_chain
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError, require
from model_core.spec.types import TRACE_MAX_POINTS
from model_core.tokenization.compact.layout import CompactBatch, CompactLayout, Field, ReasoningMode
from model_core.tokenization.observation import ContractActions, PolicyInputs

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.training import FieldTargets, TrainingBatch


def tokens_of(layout: CompactLayout, mode: ReasoningMode, *, head: str) -> int:
    """Tokens that the network reads of one sample."""
    queries = len(layout.slots[Field.ACTION]) if head == "both" else 0  # alone they stand in place of the actions
    return layout.prompt_length + layout.max_answer_length(mode) + queries


def trained_contract(contract: PolicyContract, config: TrainConfig) -> PolicyContract:
    """The contract of the data with what a training decides: the kind of policy, and how many rows of a chunk may be committed.

    Raises `SpecError` where a whole chunk or more would be committed.
    """
    from model_core.network.queries import ActionHead

    require(
        config.committed_rows < contract.chunk_length,
        f"train.committed_rows must be below the chunk's {contract.chunk_length} rows",
        got=config.committed_rows,
    )
    kind = ActionHead(config.action_head).kind
    return replace(contract, reasoning=replace(contract.reasoning, kind=kind), max_prefix_rows=config.committed_rows)


class BatchMaker:
    """Batches of one split in one layout; everything that does not change from epoch to epoch is encoded once, here.

    committed_rows: in half of the samples up to so many first actions are given (executed ones), and only the others are trained.
    """

    def __init__(
        self,
        split: FrozenSplit,
        layout: CompactLayout,
        contract: PolicyContract,
        *,
        augment_shift_px: int = 0,
        head: str = "causal",
        committed_rows: int = 0,
    ) -> None:
        from model_core.network.queries import ActionHead

        self._head = ActionHead(head)
        self.split, self.layout = split, layout
        self._shift = augment_shift_px
        inputs, actions = PolicyInputs(layout=layout, contract=contract), ContractActions(contract=contract)
        self._bins_NKA = actions.bins(split.actions_NKA)
        self._committed_rows = committed_rows
        if committed_rows and split.executed_NKA is None:
            raise DatasetError("train.committed_rows needs what was executed, and this frozen data set has none. Fix: freeze again")
        self._executed_NKA = actions.bins(split.executed_NKA) if committed_rows and split.executed_NKA is not None else None
        # every sample begins with a recorded action; older data sets do not say where an episode ended
        self._recorded_rows_N = None if split.is_padded_NK is None else (~split.is_padded_NK).sum(axis=1)
        self._proprio_NP = inputs.proprio_bins(split.proprio_NP)
        self._words_IW = inputs.word_table(split.instructions)

    @staticmethod
    def for_training(split: FrozenSplit, layout: CompactLayout, contract: PolicyContract, config: TrainConfig) -> BatchMaker:
        """Batches that are trained on: augmented, and with committed rows as the recipe says."""
        return BatchMaker(
            split,
            layout,
            contract,
            augment_shift_px=config.augment_shift_px,
            head=config.action_head,
            committed_rows=config.committed_rows,
        )

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices_B: NDArray[np.int64], mode: ReasoningMode, *, draw: tuple[int, ...] | None = None) -> TrainingBatch:
        """The batch of these samples in `mode`. draw: seed of the augmentation; None for none."""
        from model_core.training import shift_images, training_batch

        split = self.split
        images, trace = split.images_NVHW3[indices_B], _labels_of(split.trace_N52, indices_B, needed=mode is not ReasoningMode.ACTION)
        if self._shift and draw is not None:
            generator = np.random.Generator(np.random.PCG64([0xA06, *draw]))
            shifts_B2 = generator.integers(-self._shift, self._shift + 1, size=(len(indices_B), 2))
            images, trace = shift_images(images, trace, shifts_B2)
        bins_BKA, given_B = self._bins_NKA[indices_B], None
        if self._executed_NKA is not None and draw is not None:
            # A demonstrator rarely changes course, so the last given action predicts the next one better than any image does, and a
            # policy that learns this repeats itself for ever. Hence actions of another sample in half of the cases: an old plan that
            # the image has overtaken is what a cell commits too.
            generator = np.random.Generator(np.random.PCG64([0xC0117, *draw]))
            size = len(indices_B)
            given_B = generator.integers(1, self._committed_rows + 1, size) * generator.integers(0, 2, size)
            if self._recorded_rows_N is not None:  # at least one recorded action is left to predict
                given_B = np.minimum(given_B, self._recorded_rows_N[indices_B] - 1)
            sources_B = np.where(generator.integers(0, 2, size) > 0, indices_B, generator.integers(0, len(self), size))
            is_given_BK1 = (np.arange(bins_BKA.shape[1]) < given_B[:, None])[..., None]
            bins_BKA = np.where(is_given_BK1, self._executed_NKA[sources_B], bins_BKA)
        tokens = self.layout.batch(
            mode=mode,
            words_BW=self._words_IW[split.instruction_idx_N[indices_B]],
            proprio_bins_BP=self._proprio_NP[indices_B],
            bins_BKA=bins_BKA,
            committed_rows_B=given_B,
            depth_codes_BG=_labels_of(split.depth_codes_NG, indices_B, needed=True) if mode is ReasoningMode.FULL else None,
            trace_B52=trace if mode is not ReasoningMode.ACTION else None,
        )
        made = training_batch(self.layout, tokens, images, mode, head=self._head)
        if self._recorded_rows_N is None:
            return made
        return without_padding(made, tokens, self.layout, self._recorded_rows_N[indices_B])


def validation_values(
    maker: BatchMaker,
    levels: Sequence[str],
    loss_of: Callable[[TrainingBatch], tuple[Tensor, Mapping[str, Tensor]]],
    samples: int,
) -> dict[str, float]:
    """Mean loss and its parts over evenly spaced samples, the whole chain that is taught, teacher-forced. levels: of the contract."""
    chain = whole_chain(levels)
    chosen = np.linspace(0, len(maker) - 1, min(samples, len(maker))).astype(np.int64)
    sums: dict[str, float] = {}
    for start in range(0, len(chosen), 64):
        part = chosen[start : start + 64]
        loss, parts = loss_of(maker.batch(part, chain))
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part) / len(chosen)
    return sums


def _labels_of(labels_N: NDArray[Any] | None, indices_B: NDArray[np.int64], *, needed: bool) -> NDArray[Any]:
    """The labels of these samples. Where a data set has none, and none are learned, a trace without points stands for them."""
    if labels_N is not None:
        return labels_N[indices_B]
    require(not needed, "this step teaches labels, and the frozen data set has none", error=DatasetError)
    return np.full((len(indices_B), TRACE_MAX_POINTS, 2), -1, np.int16)


def without_padding(
    batch: TrainingBatch, tokens: CompactBatch, layout: CompactLayout, recorded_rows_B: NDArray[np.integer]
) -> TrainingBatch:
    """The batch without the action targets past the end of an episode. recorded_rows_B: how many actions of each sample were recorded.

    All other tokens count what they counted before: the last action of an episode is no more important than the others. What is
    read is unchanged, because a padded action comes after all recorded ones and none of them sees it.
    """
    first, width = layout.slots[Field.ACTION].start, batch.ids_BL.shape[1]

    def kept(wanted: FieldTargets, slots_BL: NDArray[np.int64], ahead: int) -> FieldTargets:
        sample_N, column_N = np.divmod(wanted.places_N.numpy(), width)
        row_N = (slots_BL[sample_N, column_N + ahead] - first) // layout.action_dims
        is_recorded_N = row_N < recorded_rows_B[sample_N]
        return replace(wanted, **{name: getattr(wanted, name)[is_recorded_N] for name in ("places_N", "codes_N", "shares_N")})

    targets = dict(batch.targets)
    if Field.ACTION in targets:
        targets[Field.ACTION] = kept(targets[Field.ACTION], tokens.slots_BL, 1)  # the token before predicts
    block = None if batch.block is None else kept(batch.block, batch.slots_BL.numpy(), 0)  # a placeholder predicts its own value
    return replace(batch, targets=targets, block=block)
