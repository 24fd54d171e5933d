"""What tower and connector also learn directly in a training from scratch: where the trajectory of an image runs, and its depth codes.

An answer teaches a fresh tower slowly: most of its tokens follow from the text before them, and a whole decoder is computed for each. Here
two heads read the mean of an image's tokens, so that every token learns where things are, at a fiftieth of the work of an example. The
heads are no part of what is written.
Shape letters: S images of a lesson, T tokens of them, P patches, D width, G depth cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.training.published.examples import ExampleMaker
from model_core.network.finetuning.packing import joined_images
from model_core.spec.errors import DatasetError, require

if TYPE_CHECKING:
    from model_core.network.finetuning.packing import PublishedBatch
    from model_core.network.model import MolmoAct

_DRAW = 0x70E5
_SCALE = 255.0  # the last pixel of a trajectory's grid
_TRAJECTORY_WEIGHT = 5.0  # brings an error in widths of the image to the size of a cross-entropy


class TowerHeads(nn.Module):
    """Reads a trajectory of 5 points, and the code of each of `cells` depth cells (0: none), from the mean of an image's tokens."""

    def __init__(self, width: int, cells: int, codes: int, seed: int) -> None:
        super().__init__()
        self.cells = cells
        self.trajectory, self.hidden, self.depth = nn.Linear(width, 10), nn.Linear(width, width), nn.Linear(width, cells * codes)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:  # nearly nothing is read at first
                nn.init.normal_(parameter, std=0.1 * parameter.shape[-1] ** -0.5, generator=generator)

    def forward(self, mean_SD: Tensor) -> tuple[Tensor, Tensor]:
        """(points [S, 5, 2], logits of depth codes [S x cells, codes])."""
        points_S52 = self.trajectory(mean_SD).float().view(-1, 5, 2)
        return points_S52, self.depth(F.gelu(self.hidden(mean_SD))).float().view(len(mean_SD) * self.cells, -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Images and what is to be read from them. image_T: of which image each token is. points_S52: in widths of the image around its
    centre; is_point_S5: which of them exist. depth_SG: codes, None where the data have none."""

    images: dict[str, Tensor]
    image_T: Tensor
    points_S52: Tensor
    is_point_S5: Tensor
    depth_SG: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchWithLesson:
    """A batch of examples, and the lesson of the same step."""

    examples: PublishedBatch
    lesson: Lesson


class TowerLesson:
    """Lessons of `images` images drawn from one split. Raises `DatasetError` for data without trajectories."""

    def __init__(self, maker: ExampleMaker, images: int) -> None:
        self._maker, self._images = maker, images
        traces_N52 = maker.split.trace_N52
        require(
            traces_N52 is not None and bool((traces_N52[..., 0] >= 0).any()),
            "train.published.tower_images: the data set has no trajectories to read. Fix: --set train.published.tower_images=0",
            error=DatasetError,
        )

    def add_heads(self, model: MolmoAct, seed: int) -> None:
        """Give the network heads for these data. They are trained and clipped with its connector."""
        codes_NG, codes = self._maker.split.depth_codes_NG, self._maker.network.tokenizer.special.num_depth
        cells = 0 if codes_NG is None else codes_NG.shape[1]
        model.model.vision_backbone.tower_heads = TowerHeads(model.config.llm.hidden_size, cells, codes, seed)

    @staticmethod
    def drop_heads(model: MolmoAct) -> None:
        """The network as it is without lessons."""
        del model.model.vision_backbone.tower_heads

    def beside(self, examples: PublishedBatch, draw: tuple[int, int, int]) -> BatchWithLesson:
        """These examples, and the lesson of the same draw."""
        return BatchWithLesson(examples=examples, lesson=self.drawn(draw))

    def drawn(self, draw: tuple[int, int, int]) -> Lesson:
        """The lesson of (seed, step, micro batch): images are drawn with replacement, of each sample its first view."""
        split = self._maker.split
        places_S = np.random.Generator(np.random.PCG64([_DRAW, *draw])).integers(0, len(split), self._images)
        inputs = [self._maker.look([np.ascontiguousarray(split.images_NVHW3[place, 0])]) for place in places_S]
        tokens = [int((one.pooled_patches_idx_N4 >= 0).any(axis=1).sum()) for one in inputs]
        assert split.trace_N52 is not None
        points_S52 = split.trace_N52[places_S].astype(np.float32)
        depth = None if split.depth_codes_NG is None else torch.from_numpy(split.depth_codes_NG[places_S].astype(np.int64))
        return Lesson(
            images=joined_images(inputs),
            image_T=torch.from_numpy(np.repeat(np.arange(len(inputs)), tokens)),
            points_S52=torch.from_numpy(points_S52 / _SCALE - 0.5),
            is_point_S5=torch.from_numpy(points_S52[..., 0] >= 0),
            depth_SG=depth,
        )


def lesson_loss(model: MolmoAct, lesson: Lesson) -> dict[str, Tensor]:
    """{"tower": what is added to the loss, "trajectory": mean error of a point in widths of the image, x and y added, "depth":
    cross-entropy of a cell}. The model has heads (`add_heads`)."""
    heads: TowerHeads = model.model.vision_backbone.tower_heads  # type: ignore[assignment]
    tokens_TD = model.encode_images(**lesson.images)
    sums_SD = tokens_TD.new_zeros(len(lesson.points_S52), tokens_TD.shape[1]).index_add(0, lesson.image_T, tokens_TD)
    points_S52, logits_NX = heads(sums_SD / torch.bincount(lesson.image_T, minlength=len(sums_SD))[:, None])
    errors_S5 = (points_S52 - lesson.points_S52).abs().sum(-1)
    trajectory = errors_S5[lesson.is_point_S5].sum() / lesson.is_point_S5.sum().clamp(min=1)
    if lesson.depth_SG is None:
        return {"tower": _TRAJECTORY_WEIGHT * trajectory, "trajectory": trajectory}
    depth = F.cross_entropy(logits_NX, lesson.depth_SG.flatten())
    return {"tower": _TRAJECTORY_WEIGHT * trajectory + depth, "trajectory": trajectory, "depth": depth}
