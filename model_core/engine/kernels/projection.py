"""Linear layers as the engine runs them: on a CPU with weights packed once for the kernel library, where this torch can.

Why: torch hands float32 products to a library that repacks the weights at every call, and chooses another kernel for one, two or
three rows. The packed kernels (oneDNN's, which inductor uses too) take half the time from 16 rows on, and a row's sums are the same
bit for bit whatever stands beside it. `engine.numerics` checks that and does not rely on it.

int8 weights (`network.int8`) are packed as the float32 numbers that they are, where that copy is affordable, and their scales are applied
to the sums; else they are held as int8 alone, and a piece of them is made float at each call.

Shape letters: n rows, I inputs, O outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.network.int8.linear import Int8Linear, int8_product
from model_core.network.language import RMSNorm

# Packing keeps a second copy of the weights. The layout is chosen for about so many rows.
_MOST_BYTES, _TYPICAL_ROWS = 2 << 30, 16


def can_pack(decoder: nn.Module, dtype: torch.dtype) -> bool:
    """Whether packed kernels exist here and the second copy of the weights is affordable."""
    first = next(decoder.parameters())
    size = sum(parameter.numel() for parameter in decoder.parameters()) * dtype.itemsize
    if first.device.type != "cpu" or size > _MOST_BYTES or not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    try:
        Projection(torch.ones(16, 16), None, dtype, packed=True)(torch.ones(2, 16, dtype=dtype))
    except (AttributeError, RuntimeError, NotImplementedError):  # private to torch: another version may not have them
        return False
    return True


class Projection:
    """x @ weight.T * scale + bias in `dtype`. packed: by the packed kernel, which also serves one row; never for gradients."""

    __slots__ = ("_bias", "_packed", "_scale", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, packed: bool, scale: Tensor | None = None) -> None:
        is_kept = scale is not None and not packed
        self._weight = weight.detach() if is_kept else weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._scale = None if scale is None else scale.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous(), _TYPICAL_ROWS) if packed else None
        if packed and dtype is not weight.dtype:
            self._weight = self._weight.new_empty(0)  # not a view: that would keep the cast copy, which is never read

    def __call__(self, x_nI: Tensor) -> Tensor:
        """(n, I) -> (n, O), a fresh tensor."""
        if self._scale is not None:
            return self._scaled(x_nI, self._scale)
        if self._packed is None:
            return F.linear(x_nI, self._weight, self._bias)
        return torch.ops.mkldnn._linear_pointwise.default(x_nI, self._packed, self._bias, "none", [], "")

    def _scaled(self, x_nI: Tensor, scale_O: Tensor) -> Tensor:
        if self._packed is None:
            return int8_product(x_nI, self._weight, scale_O, self._bias)
        y_nO = torch.ops.mkldnn._linear_pointwise.default(x_nI, self._packed, None, "none", [], "").mul_(scale_O)
        return y_nO if self._bias is None else y_nO.add_(self._bias)


@dataclass(frozen=True, slots=True, eq=False)
class LinearWeight:
    """The weight of a linear layer, or rows of it. scale_O: of int8 ones."""

    weight_OI: Tensor
    scale_O: Tensor | None = None

    @staticmethod
    def of(layer: nn.Linear | Int8Linear, norm: RMSNorm | None = None) -> LinearWeight:
        """Of a layer. norm: whose weight and sqrt(I) become part of it; never of int8 weights, whose scales belong to outputs."""
        if isinstance(layer, Int8Linear):
            return LinearWeight(layer.weight.detach(), layer.weight_scale.detach())
        weight_OI = layer.weight.detach()
        if norm is None:
            return LinearWeight(weight_OI)
        return LinearWeight(weight_OI.float() * (norm.weight.detach().float() * math.sqrt(weight_OI.shape[1])))

    def rows(self, which: slice | Tensor) -> LinearWeight:
        """Some outputs."""
        return LinearWeight(self.weight_OI[which], None if self.scale_O is None else self.scale_O[which])

    def projection(self, bias: Tensor | None, dtype: torch.dtype, *, packed: bool) -> Projection:
        """As the engine computes it."""
        return Projection(self.weight_OI, bias, dtype, packed=packed, scale=self.scale_O)


def projection_of(layer: nn.Linear | Int8Linear, dtype: torch.dtype, *, packed: bool, norm: RMSNorm | None = None) -> Projection:
    """A layer as the engine computes it. norm: see `LinearWeight.of`."""
    return LinearWeight.of(layer, norm).projection(layer.bias, dtype, packed=packed)
