"""A linear layer with int8 weights: y = (x . q) * scale + bias, in float32.

q = round(w / scale) with scale = max |w| / 127 over the inputs of one output: symmetric, so that 0 stays 0, and -128 is never used.
Sums run over float32 products of the float32 input and the whole numbers q; the scale is applied once, to the sum. However a product is
computed (this module, the packed kernel of the engine), it is this one, up to the order of additions.

Shape letters: n rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.spec.errors import CheckpointError

LARGEST = 127
# Numbers of a weight that are float at one time: they stay in a core's cache. torch's own product of float32 and int8 takes longer, up to
# fifty times from four rows on (torch 2.13, AVX2).
_PIECE = 1 << 18


class Int8Linear(nn.Module):
    """Stands in for `nn.Linear`. Its weights are never trained."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=torch.int8), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) float32 -> (..., O) float32."""
        return int8_product(x, self.weight, self.weight_scale, self.bias)


def int8_product(x: Tensor, weight_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:
    """(..., I) -> (..., O) in float32; a weight is made float piece by piece, so that memory holds it as int8."""
    wide = x.float()
    rows = max(1, _PIECE // weight_OI.shape[1])
    parts = [F.linear(wide, part.float()) for part in weight_OI.split(rows)]
    y = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)) * scale_O
    return y if bias_O is None else y + bias_O


def rounded(weight_OI: Tensor, name: str = "a weight") -> tuple[Tensor, Tensor]:
    """(q int8 (O, I), scale float32 (O,)) of a float weight. An output without weights has scale 1.

    Raises `CheckpointError`, with the name, for a weight that is not finite.
    """
    wide = weight_OI.float()
    largest_O = wide.abs().amax(dim=1)
    if not bool(torch.isfinite(largest_O).all()):
        raise CheckpointError(
            f"{name} holds NaN or an infinite number, which no int8 stands for. Fix: use a checkpoint whose weights are finite"
        )
    scale_O = largest_O / LARGEST
    scale_O = torch.where(scale_O > 0, scale_O, torch.ones_like(scale_O))
    return (wide / scale_O[:, None]).round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale_O


def exchange_linears(network: nn.Module) -> None:
    """Put an `Int8Linear` of the same shape, without numbers yet, in place of every linear layer."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                parent.add_module(name, Int8Linear(child.in_features, child.out_features, bias=child.bias is not None))
