"""Training examples as tensors: several in one row, each of which sees itself only, or one a row with padding behind it.

    packed    ids      <doc 0><doc 1><doc 2>       places  0 1 2 ..  0 1 ..  0 1 2 ..      crops of all, one after the other
    padded    ids      <doc 0>. . . . . .          places  0 1 2 ..                        as many crops as the most that one has
                       <doc 1>. . .

Both give equal losses and gradients: attention and positions of an example are the same. Packed, no token and no crop is computed that
belongs to no example.
Shape letters: B rows, L tokens of a row, C crops, P patches, N image tokens or answer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.network.attention import Documents
from model_core.network.finetuning.answer_rows import RowTargets
from model_core.network.finetuning.dropout import ResidualDropout
from model_core.network.image_inputs import ImageFeatures, ImageInputs, collate_images, joined_windows
from model_core.network.model import MolmoAct
from model_core.spec.errors import SpecError, require

_UNLIKE = "examples with images, with features and without lie in one batch; give all of them the same"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingExample:
    """One example. ids_L: int64, prompt and answer with its end. answer_start: place of the first answer token. weight: what each of its
    answer tokens counts. kind: what was asked, for accounts.

    questions: (place of the question, place of its answer) of each of several questions about the same images, which stand before all of
    them; each goes up to the next, sees the images and itself, and its positions go on from the images. Empty for one question.
    """

    ids_L: NDArray[np.int64]
    answer_start: int
    images: ImageInputs | ImageFeatures | None
    weight: float = 1.0
    kind: str = ""
    questions: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        inside = 0 < self.answer_start < len(self.ids_L)
        require(inside, "an example has a prompt and an answer: answer_start must lie inside its tokens", got=self.answer_start)

    @property
    def answers(self) -> list[tuple[int, int]]:
        """The first place of each answer, and the one behind it."""
        ends = [*(question for question, _ in self.questions[1:]), len(self.ids_L)]
        starts = [answer for _, answer in self.questions] or [self.answer_start]
        return list(zip(starts, ends, strict=True))

    @property
    def answer_tokens(self) -> int:
        """Tokens that are learned."""
        return sum(end - start for start, end in self.answers)

    @property
    def parts(self) -> tuple[int, ...]:
        """`Documents.parts` of it."""
        starts = [0, *(question for question, _ in self.questions), len(self.ids_L)]
        return tuple(np.diff(starts).tolist()) if self.questions else ()

    @property
    def places_L(self) -> NDArray[np.int64]:
        """Rotary positions."""
        if not self.questions:
            return np.arange(len(self.ids_L))
        shared, *lengths = self.parts
        return np.concatenate([np.arange(shared), *(shared + np.arange(length) for length in lengths)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedBatch:
    """Examples as one forward pass takes them.

    ids_BL, places_BL: int64. documents: how long each example is, where they lie in one row; None: one a row. images: keyword arguments of
    `MolmoAct.encode_images`, or of `connect_images` where the tower's features are known; empty without images.
    rows_N: where in the flattened (B x L) hidden states an answer token is predicted.
    example_N: which example each of those rows is of. draw: (seed, step, micro batch) that it is of, None outside a training.
    """

    ids_BL: Tensor
    places_BL: Tensor
    documents: Documents | None
    images: dict[str, Tensor]
    rows_N: Tensor
    targets: RowTargets
    example_N: Tensor
    kinds: tuple[str, ...]
    draw: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.kinds)


def several_questions(
    prefix: Sequence[int],
    pairs: Sequence[tuple[Sequence[int], Sequence[int] | NDArray[np.int64]]],
    images: ImageInputs | ImageFeatures | None,
    kind: str = "",
) -> TrainingExample:
    """The example of these (question, answer), as ids, behind one prefix (BOS and images). Each answer counts 1/sqrt(questions), as
    published."""
    require(len(pairs) > 0, "an example needs at least one question")
    starts = np.cumsum([len(prefix), *(len(question) + len(answer) for question, answer in pairs)])
    places = [(int(start), int(start) + len(question)) for start, (question, _) in zip(starts, pairs, strict=False)]
    return TrainingExample(
        ids_L=np.concatenate([np.asarray(part, np.int64) for part in (prefix, *(part for pair in pairs for part in pair))]),
        answer_start=places[0][1],
        images=images,
        weight=1.0 / math.sqrt(len(pairs)),
        kind=kind,
        questions=tuple(places) if len(pairs) > 1 else (),
    )


def packed_batch(examples: Sequence[TrainingExample]) -> PublishedBatch:
    """All examples in one row without a token between them."""
    require(len(examples) > 0, "a batch needs at least one example")
    lengths = [len(example.ids_L) for example in examples]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    parts = tuple(example.parts for example in examples)
    return PublishedBatch(
        ids_BL=torch.from_numpy(np.concatenate([example.ids_L for example in examples]))[None],
        places_BL=torch.from_numpy(np.concatenate([example.places_L for example in examples]))[None],
        documents=Documents(lengths=tuple(lengths), parts=parts if any(parts) else ()),
        images=_images_of(examples),
        **_targets(examples, starts),
    )


def padded_batch(examples: Sequence[TrainingExample], *, length: int, pad_id: int, crops: int = 0) -> PublishedBatch:
    """One example a row, padded behind to `length` tokens, and to as many crops as the most that one has (or `crops`, if more).

    Raises `SpecError` for an example that is longer, for several questions, and for images of which only features are given.
    """
    require(len(examples) > 0, "a batch needs at least one example")
    require(not any(example.questions for example in examples), "padded rows hold one question each; several about one image are packed")
    longest = max(len(example.ids_L) for example in examples)
    require(longest <= length, f"an example has {longest} tokens, a row has {length}. Fix: raise train.published.max_tokens")
    ids_BL = np.full((len(examples), length), pad_id, np.int64)
    for row, example in enumerate(examples):
        ids_BL[row, : len(example.ids_L)] = example.ids_L
    crops_of = [example.images for example in examples if isinstance(example.images, ImageInputs)]
    require(len(crops_of) == sum(e.images is not None for e in examples), "padded rows hold crops; features are packed")
    images = collate_images(crops_of) if crops_of else {}
    if images and (more := crops - images["images_BCPD"].shape[1]) > 0:
        images["images_BCPD"] = torch.nn.functional.pad(images["images_BCPD"], (0, 0, 0, 0, 0, more), value=-1.0)
        images["image_masks_BCP"] = torch.nn.functional.pad(images["image_masks_BCP"], (0, 0, 0, more))
    return PublishedBatch(
        ids_BL=torch.from_numpy(ids_BL),
        places_BL=torch.arange(length).expand(len(examples), -1).contiguous(),
        documents=None,
        images=images,
        **_targets(examples, np.arange(len(examples), dtype=np.int64) * length),
    )


def answer_states(model: MolmoAct, batch: PublishedBatch, *, dropout: float = 0.0) -> Tensor:
    """Hidden states of the rows that predict an answer token, [N, D]. Vision, embedding and trunk of the whole batch.

    dropout: of the residual stream, where the model is trained and the batch has a draw (`finetuning.dropout`).
    """
    drops = dropout > 0 and model.training and batch.draw is not None
    model.model.transformer.set_dropout(ResidualDropout(share=dropout, draw=batch.draw) if drops else None)  # type: ignore[arg-type]
    encode = model.connect_images if "features_BCPD" in batch.images else model.encode_images
    features = encode(**batch.images) if batch.images else None
    hidden_BLD = model.trunk(model.embed(batch.ids_BL, features), batch.places_BL, batch.documents)
    return hidden_BLD.flatten(0, 1).index_select(0, batch.rows_N)


def _targets(examples: Sequence[TrainingExample], starts: NDArray[np.int64]) -> dict[str, Any]:
    """starts: where each example begins in the flattened rows. A row predicts the token behind it."""
    rows = [start + np.arange(first - 1, end - 1) for start, one in zip(starts, examples, strict=True) for first, end in one.answers]
    labels = [one.ids_L[first:end] for one in examples for first, end in one.answers]
    counts = [one.answer_tokens for one in examples]
    return {
        "rows_N": torch.from_numpy(np.concatenate(rows)),
        "targets": RowTargets(
            labels_N=torch.from_numpy(np.concatenate(labels)),
            weights_N=torch.from_numpy(np.repeat([one.weight for one in examples], counts).astype(np.float32)),
        ),
        "example_N": torch.from_numpy(np.repeat(np.arange(len(examples)), counts)),
        "kinds": tuple(one.kind for one in examples),
    }


def _images_of(examples: Sequence[TrainingExample]) -> dict[str, Tensor]:
    inputs = [example.images for example in examples if example.images is not None]
    if inputs and len(inputs) != len(examples):
        raise SpecError(_UNLIKE)
    return joined_images(inputs) if inputs else {}


def joined_images(inputs: Sequence[ImageInputs | ImageFeatures]) -> dict[str, Tensor]:
    """The crops of several, or their features, as those of one sample. Raises `SpecError` for crops beside features."""
    crops = [one.images_CPD for one in inputs if isinstance(one, ImageInputs)]
    features = [one.features_CPD for one in inputs if isinstance(one, ImageFeatures)]
    if crops and features:
        raise SpecError(_UNLIKE)
    shown = {"features_BCPD": torch.cat(features)} if features else {"images_BCPD": torch.from_numpy(np.concatenate(crops))}
    return {
        **{name: value[None] for name, value in shown.items()},
        "pooled_patches_idx_BN4": torch.from_numpy(joined_windows(inputs))[None],
        "image_masks_BCP": torch.from_numpy(np.concatenate([one.image_masks_CP for one in inputs]))[None],
    }
