"""The vision backbone as the engine runs it: on a CPU its projections and convolutions by packed kernels, where this torch can.

The same modules and the same weights; only the leaves that multiply are exchanged. Image features are the same for plain decoding
and for blocks, so nothing here can make the two differ.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from model_core.engine.kernels.projection import can_pack, projection_of
from model_core.network.int8.linear import Int8Linear
from model_core.network.vision import VisionBackbone


def packed_vision_backbone(backbone: VisionBackbone, dtype: torch.dtype) -> VisionBackbone:
    """`backbone` with packed leaves that compute in `dtype`, its weights shared; `backbone` itself where packing is not possible."""
    if not can_pack(backbone, dtype):
        return backbone
    shared = {id(tensor): tensor for tensor in [*backbone.parameters(), *backbone.buffers()]}
    packed = deepcopy(backbone, shared)
    for parent in list(packed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | Int8Linear):
                parent.add_module(name, _Linear(child, dtype))
            elif isinstance(child, nn.Conv2d):
                parent.add_module(name, _Convolution(child, dtype))
    return packed


class _Linear(nn.Module):
    def __init__(self, linear: nn.Linear | Int8Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.project = dtype, projection_of(linear, dtype, packed=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x.to(self.dtype).flatten(0, -2)).view(*x.shape[:-1], -1)


class _Convolution(nn.Module):
    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.weight = dtype, conv.weight
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._packed: dict[torch.Size, Tensor] = {}  # the layout depends on the image's size

    def forward(self, x: Tensor) -> Tensor:
        weight = self._packed.get(x.shape)
        if weight is None:
            wide = self.weight.detach().to(self.dtype)
            weight = self._packed[x.shape] = torch.ops.mkldnn._reorder_convolution_weight(wide, *self.geometry, x.shape)
        return torch.ops.mkldnn._convolution_pointwise.default(x.to(self.dtype), weight, self.bias, *self.geometry, "none", [], "")
