"""The rows of embedding and head that a training can change, as small tables of their own beside the whole ones.

Of 152,064 ids a robot's sentences hold a few hundred. The gradient of every other row is zero, and yet it is written, summed, clipped and
stepped: with a small network that is a third of a training step. Here a row of the small table stands in the place of the whole table's
row of that id, which nothing reads until `write_rows` brings it up to date.

Shape letters: X chosen ids, D width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model_core.network.language import TokenEmbedding
from model_core.network.model import MolmoAct
from model_core.spec.errors import require


class ChosenEmbedding(TokenEmbedding):
    """A token embedding of which only the rows of `ids_X` are trained, and the rows of image tokens as before."""

    ids_X: Tensor

    def __init__(self, whole: TokenEmbedding, ids_X: Tensor) -> None:
        nn.Module.__init__(self)
        self.embedding, self.new_embedding = whole.embedding.requires_grad_(False), whole.new_embedding
        self.rows_XD = nn.Parameter(whole.embedding.detach()[ids_X].clone())
        self.register_buffer("ids_X", ids_X, persistent=False)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Trained rows where an id is one of ours, else rows of the whole tables."""
        places_BL = torch.searchsorted(self.ids_X, ids_BL).clamp(max=len(self.ids_X) - 1)
        is_ours_BL = self.ids_X[places_BL] == ids_BL
        return torch.where(is_ours_BL[..., None], F.embedding(places_BL, self.rows_XD), super().forward(ids_BL))


class ChosenHead(nn.Linear):
    """A head without bias of which only the rows of `ids_X` are trained. Only its rows are read: by a loss over those ids."""

    ids_X: Tensor

    def __init__(self, whole: nn.Linear, ids_X: Tensor) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = whole.in_features, whole.out_features
        self.weight = whole.weight.requires_grad_(False)
        self.register_parameter("bias", None)
        self.rows_XD = nn.Parameter(whole.weight.detach()[ids_X].clone())
        self.register_buffer("ids_X", ids_X, persistent=False)


def choose_rows(model: MolmoAct, read_X: NDArray[np.int64], answered_X: NDArray[np.int64]) -> None:
    """Train of the tables only the rows of these ascending ids, in place. read_X: of the embedding. answered_X: of the head.

    Raises `SpecError` for a head that is adapted or has a bias.
    """
    head, transformer = model.lm_head, model.model.transformer
    require(type(head) is nn.Linear and head.bias is None, "rows are chosen of a plain head without bias", got=type(head).__name__)
    base_X = read_X[read_X < len(transformer.wte.embedding)]  # image tokens have a table of their own, which is trained whole
    transformer.wte = ChosenEmbedding(transformer.wte, torch.from_numpy(base_X))
    model.lm_head = ChosenHead(head, torch.from_numpy(answered_X))


@torch.no_grad()
def write_rows(model: MolmoAct) -> None:
    """Bring the whole tables up to date, for what reads them (the engine, a checkpoint); nothing of the training changes by it."""
    for layer, whole in ((model.model.transformer.wte, "embedding"), (model.lm_head, "weight")):
        if isinstance(layer, ChosenEmbedding | ChosenHead):
            getattr(layer, whole).index_copy_(0, layer.ids_X, layer.rows_XD.to(getattr(layer, whole).dtype))


def join_rows(model: MolmoAct) -> MolmoAct:
    """A bare `MolmoAct` again, in place, whose tables hold what was trained."""
    write_rows(model)
    embedding, head = model.model.transformer.wte, model.lm_head
    if isinstance(embedding, ChosenEmbedding):
        whole = TokenEmbedding(0, 0, embedding.embedding.shape[1])
        whole.embedding, whole.new_embedding = nn.Parameter(embedding.embedding), embedding.new_embedding
        model.model.transformer.wte = whole
    if isinstance(head, ChosenHead):
        plain = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(head.weight)
        model.lm_head = plain
    return model
