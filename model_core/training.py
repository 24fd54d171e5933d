"""What is trained, on one device: batches of the compact language, the loss of an answer, the curriculum.

Shape letters: B samples, V views, L tokens, N learned tokens of one field, D width. Knows nothing of ranks, engines or files.
Loss: next-token cross-entropy on answer tokens, the mean over a sample's tokens of a field, then over samples, then summed
over fields with weights. Ordinal targets (trace, actions) are softened by a Gaussian: bin 130 for 128 is a small mistake.
Everything is a sum of per-sample terms divided by the batch size, so that equal slices of a batch average to the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model_core.network.model import MolmoAct
from model_core.network.queries import ActionHead, block_visibility
from model_core.spec.errors import require
from model_core.tiny import pooled_patches
from model_core.tokenization.compact.layout import CompactBatch, CompactLayout
from model_core.tokenization.compact.vocabulary import Field, ReasoningMode

ANSWER_FIELDS = (Field.DEPTH, Field.TRACE, Field.ACTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of (depth, trace, action); standard deviation of the Gaussian targets in bins; weight of logsumexp squared."""

    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    smoothing_bins: float = 2.0
    z_loss: float = 0.0

    def weight(self, kind: Field) -> float:
        """Weight of one answer field."""
        return self.weights[ANSWER_FIELDS.index(kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What a step trains: until `no_depth_until` of all steps trace and action; then modes drawn with these probabilities."""

    no_depth_until: float = 0.35
    mixture: Mapping[ReasoningMode, float] = field(
        default_factory=lambda: {
            ReasoningMode.FULL: 0.5,
            ReasoningMode.TRACE_ACTION: 0.25,
            ReasoningMode.STEERED: 0.15,
            ReasoningMode.ACTION: 0.1,
        }
    )

    def __post_init__(self) -> None:
        total = sum(self.mixture.values())
        require(abs(total - 1.0) < 1e-6, "the curriculum's probabilities must add up to 1", got=total)

    def mode_at(self, step: int, steps: int, seed: int) -> ReasoningMode:
        """The mode of optimiser step `step` (from 0): a pure function, equal on every rank."""
        if step < self.no_depth_until * steps:
            return ReasoningMode.TRACE_ACTION
        draw = np.random.Generator(np.random.PCG64([seed, 0xC0DE, step])).random()
        edges = np.cumsum(list(self.mixture.values()))
        return list(self.mixture)[min(int(np.searchsorted(edges, draw, side="right")), len(edges) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldTargets:
    """N tokens of one field to predict. places_N: index into the flattened (B, L-1) hidden states; codes_N: id - first id of the
    field; shares_N: what each token counts: all tokens of the field, also those that are left out, add up to the mean sample weight."""

    places_N: Tensor
    codes_N: Tensor
    shares_N: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingBatch:
    """Everything one loss needs. images_BVHW3 uint8; ids_BL, slots_BL int64: what is read; targets of each learned field.

    block: the actions that placeholders predict, None where there are none. visible_B1LL: who sees whom, None for causal.
    """

    mode: ReasoningMode
    images_BVHW3: Tensor
    ids_BL: Tensor
    slots_BL: Tensor
    targets: Mapping[Field, FieldTargets]
    block: FieldTargets | None = None
    visible_B1LL: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids_BL)


def training_batch(
    layout: CompactLayout,
    tokens: CompactBatch,
    images_BVHW3: NDArray[np.uint8],
    mode: ReasoningMode,
    weights_B: NDArray[np.floating] | None = None,
    head: ActionHead = ActionHead.CAUSAL,
) -> TrainingBatch:
    """Images and token rows as tensors, with the places to learn. weights_B: what each sample counts (1 where not given).

    head: CAUSAL reads all but the last token, which predicts nothing; the others read placeholders of the actions as well
    (PARALLEL: in place of them).
    """
    read = _causal_tokens(tokens) if head is ActionHead.CAUSAL else _with_queries(layout, tokens, keep_actions=head is ActionHead.BOTH)
    weights_B = np.ones(len(tokens.ids_BL), np.float32) if weights_B is None else np.asarray(weights_B, np.float32)
    width = read.ids_BL.shape[1]
    targets: dict[Field, FieldTargets] = {}
    for kind in ANSWER_FIELDS:
        rows_N, columns_N, codes_N = tokens.targets(kind, layout.vocabulary.range_of(kind))
        if len(rows_N) > 0 and not (kind is Field.ACTION and head is ActionHead.PARALLEL):
            targets[kind] = _field_targets(rows_N, columns_N, codes_N, weights_B, width)
    block = None
    if head.has_queries:
        rows_N, columns_N, codes_N = tokens.targets(Field.ACTION, layout.vocabulary.action)
        columns_N = np.tile(np.arange(read.before, width), len(weights_B))  # a placeholder predicts its own value, not the next one
        block = _field_targets(rows_N, columns_N, codes_N, weights_B, width)
    return TrainingBatch(
        mode=mode,
        images_BVHW3=torch.from_numpy(np.ascontiguousarray(images_BVHW3)),
        ids_BL=torch.from_numpy(np.ascontiguousarray(read.ids_BL)),
        slots_BL=torch.from_numpy(np.ascontiguousarray(read.slots_BL)),
        targets=targets,
        block=block,
        visible_B1LL=read.visible_B1LL,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ReadTokens:
    """What the network reads. before: number of columns that are no placeholders."""

    ids_BL: NDArray[np.int64]
    slots_BL: NDArray[np.int64]
    before: int
    visible_B1LL: Tensor | None = None


def _causal_tokens(tokens: CompactBatch) -> _ReadTokens:
    ids_BL = tokens.ids_BL[:, :-1]
    return _ReadTokens(ids_BL=ids_BL, slots_BL=tokens.slots_BL[:, :-1], before=ids_BL.shape[1])


def _with_queries(layout: CompactLayout, tokens: CompactBatch, *, keep_actions: bool) -> _ReadTokens:
    """Prompt, reasoning, the encoded actions where they are trained too, then one placeholder a value in the value's slot."""
    action = layout.slots[Field.ACTION]
    actions_BL = tokens.fields_BL == Field.ACTION
    kept_BL = (tokens.fields_BL != Field.PAD) & (keep_actions | ~actions_BL)
    before = tokens.ids_BL.shape[1] - 1 if keep_actions else int(kept_BL.sum(axis=1).max())
    kept_BL, actions_BL = kept_BL[:, :before], actions_BL[:, :before]
    shape = (len(kept_BL), len(action))
    return _ReadTokens(
        ids_BL=np.concatenate(
            [np.where(kept_BL, tokens.ids_BL[:, :before], layout.vocabulary.pad_id), np.full(shape, layout.vocabulary.query_id)], axis=1
        ),
        slots_BL=np.concatenate(
            [np.where(kept_BL, tokens.slots_BL[:, :before], 0), np.broadcast_to(np.arange(action.start, action.stop), shape)], axis=1
        ),
        before=before,
        visible_B1LL=block_visibility(
            torch.from_numpy(kept_BL), new=before, queries=len(action), actions_BT=torch.from_numpy(np.ascontiguousarray(actions_BL))
        ),
    )


def _field_targets(
    rows_N: NDArray[np.int64], columns_N: NDArray[np.int64], codes_N: NDArray[np.int64], weights_B: NDArray[np.floating], width: int
) -> FieldTargets:
    size = len(weights_B)
    counts_B = np.bincount(rows_N, minlength=size)
    return FieldTargets(
        places_N=torch.from_numpy(rows_N * width + columns_N),
        codes_N=torch.from_numpy(np.ascontiguousarray(codes_N)),
        shares_N=torch.from_numpy((weights_B[rows_N] / counts_B[rows_N] / size).astype(np.float32)),
    )


def answer_loss(model: MolmoAct, batch: TrainingBatch, layout: CompactLayout, config: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """(scalar loss, parts): parts are "loss_depth", "accuracy_depth" and so on for the fields of this batch, detached.

    Placeholders count as the action where they are all there is of it, and as a part of their own ("action_block") beside it.
    The head is applied to the rows of a field's own ids only: the language leaves no other choice at those slots.
    """
    hidden_MD = hidden_states(model, batch.images_BVHW3, batch.ids_BL, batch.slots_BL, layout, batch.visible_B1LL).flatten(0, 1)
    trained = [(kind, kind.name.lower(), wanted) for kind, wanted in batch.targets.items()]
    if batch.block is not None:
        trained.append((Field.ACTION, "action_block" if Field.ACTION in batch.targets else "action", batch.block))
    total = hidden_MD.new_zeros((), dtype=torch.float32)
    parts: dict[str, Tensor] = {}
    for kind, name, wanted in trained:
        ids = layout.vocabulary.range_of(kind)
        logits_NX = F.linear(hidden_MD.index_select(0, wanted.places_N), model.lm_head.weight[ids.start : ids.stop]).float()
        smoothing = config.smoothing_bins if kind is not Field.DEPTH else 0.0
        losses_N = token_losses(logits_NX, wanted.codes_N, smoothing, config.z_loss)
        loss = (losses_N * wanted.shares_N).sum()
        total = total + config.weight(kind) * loss
        parts[f"loss_{name}"] = loss.detach()
        parts[f"accuracy_{name}"] = (logits_NX.detach().argmax(-1) == wanted.codes_N).float().mean()
    return total, parts


def hidden_states(
    model: MolmoAct, images_BVHW3: Tensor, ids_BL: Tensor, slots_BL: Tensor, layout: CompactLayout, visible_B1LL: Tensor | None = None
) -> Tensor:
    """h_BLD of token rows that begin with a prompt: position l has seen tokens 0..l and predicts token l + 1.

    visible_B1LL: who sees whom instead (see `block_visibility`); a placeholder predicts its own value.
    """
    windows_N4 = pooled_patches(layout).to(ids_BL.device)
    features_ND = model.encode_images(images_BVHW3, windows_N4.expand(len(ids_BL), -1, -1))
    return model.trunk(model.embed(ids_BL, features_ND), slots_BL, visible_B1LL)


def token_losses(logits_NX: Tensor, codes_N: Tensor, smoothing_bins: float, z_loss: float = 0.0) -> Tensor:
    """Cross-entropy of each token (N,), against a Gaussian around its bin where `smoothing_bins` > 0.

    A 257th code is the end of a trace: it is no number and keeps all of its weight.
    """
    if smoothing_bins > 0:
        soft_NX = smooth_targets(logits_NX.shape[1], smoothing_bins).to(logits_NX.device).index_select(0, codes_N)
        normaliser_N = logits_NX.logsumexp(-1)
        losses_N = normaliser_N - (soft_NX * logits_NX).sum(-1)
    else:
        losses_N = F.cross_entropy(logits_NX, codes_N, reduction="none")
        normaliser_N = logits_NX.logsumexp(-1) if z_loss else losses_N
    return losses_N + z_loss * normaliser_N.square() if z_loss else losses_N


@functools.lru_cache(maxsize=8)
def smooth_targets(codes: int, smoothing_bins: float) -> Tensor:
    """(codes, codes): row c is the target distribution of code c. Only the first 256 codes are numbers."""
    numbers = min(codes, 256)
    places = torch.arange(numbers, dtype=torch.float32)
    table = torch.eye(codes)
    bell = torch.exp(-0.5 * ((places[None] - places[:, None]) / smoothing_bins) ** 2)
    table[:numbers, :numbers] = bell / bell.sum(1, keepdim=True)
    return table


def shift_images(
    images_BVHW3: NDArray[np.uint8], trace_B52: NDArray[np.integer], shifts_B2: NDArray[np.integer]
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Move each sample's images by (x, y) pixels, edges repeated, and its trace (0..255 over the image) with them.

    The shift is the same in all views; points that leave the image are clipped to its edge. Depth codes are not moved.
    """
    height, width = images_BVHW3.shape[2:4]
    rows_BH = np.clip(np.arange(height)[None] - shifts_B2[:, 1:2], 0, height - 1)
    columns_BW = np.clip(np.arange(width)[None] - shifts_B2[:, 0:1], 0, width - 1)
    sample_B = np.arange(len(images_BVHW3))
    moved = images_BVHW3[sample_B[:, None, None], :, rows_BH[:, :, None], columns_BW[:, None, :]]  # (B, H, W, V, 3)
    scale_2 = np.array([255.0 / max(width - 1, 1), 255.0 / max(height - 1, 1)])
    points = np.clip(np.rint(trace_B52 + shifts_B2[:, None] * scale_2), 0, 255)
    return np.ascontiguousarray(np.moveaxis(moved, 3, 1)), np.where(trace_B52 < 0, -1, points).astype(np.int16)
