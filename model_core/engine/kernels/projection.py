"""Linear layers as the engine runs them: on a CPU with weights packed once for the kernel library, where this torch can.

Why: torch hands float32 products to a library that repacks the weights at every call, and chooses another kernel for one, two or
three rows. The packed kernels (oneDNN's, which inductor uses too) take half the time from 16 rows on, and a row's sums are the same
bit for bit whatever stands beside it. `engine.numerics` checks that and does not rely on it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    """x @ weight.T + bias in `dtype`. packed: by the packed kernel, which also serves one row; never for gradients."""

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, packed: bool) -> None:
        self._weight = weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous(), _TYPICAL_ROWS) if packed else None
        if packed and dtype is not weight.dtype:
            self._weight = self._weight.new_empty(0)  # not a view: that would keep the cast copy, which is never read

    def __call__(self, x_nD: Tensor) -> Tensor:
        """(n, in) -> (n, out), a fresh tensor."""
        if self._packed is None:
            return F.linear(x_nD, self._weight, self._bias)
        return torch.ops.mkldnn._linear_pointwise.default(x_nD, self._packed, self._bias, "none", [], "")
