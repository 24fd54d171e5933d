"""The depth VQ-VAE: a map of distances <-> 100 codes over a 10x10 grid. The published network, any size.

    metres --DepthScaling--> 0..1 --resize--> encoder (stride-2 stages, residual blocks) --nearest of 128 codes--> codes
    metres <--DepthScaling-- 0..1 <--------- decoder (transposed stages)                <---- codebook vectors ----'

Published: 320 pixels, 5 stages (32 pixels a cell), hidden 16, codebook 128x512, on relative disparity of Depth Anything V2.
Compact: 40 pixels, 2 stages (4 pixels a cell) on clipped inverse metres. Keys of the weights are those of the release
(`scripts/vqvae.py`): ``encoder.N``, ``decoder.N``, ``_vq_vae._embedding``, ``_vq_vae._ema_cluster_size``, ``_vq_vae._ema_w``.
Training is `depth.training`; files and numpy are `depth.codec`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_core.spec.errors import SpecError
from model_core.tokenization.depth.config import DepthConfig


class ResidualBlock(nn.Module):
    """conv3, ReLU, conv3, ReLU, conv1, plus the input ("v1" of the release)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Same shape."""
        return self.net(x_NCHW) + x_NCHW


class Quantized(NamedTuple):
    """vectors_NDhw: nearest codebook vectors (straight-through). codes_Nhw: int64. commitment: mean squared distance to them."""

    vectors_NDhw: Tensor
    codes_Nhw: Tensor
    commitment: Tensor


class EmaQuantizer(nn.Module):
    """Nearest codebook vector by squared distance; the codebook follows running means of what fell to each code."""

    _embedding: Tensor
    _ema_cluster_size: Tensor
    _ema_w: Tensor

    def __init__(self, num_tokens: int, dim: int, *, decay: float, epsilon: float) -> None:
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        codebook = torch.empty(num_tokens, dim)
        if not codebook.is_meta:  # a draw without values loads torch's symbolic shapes: 1 s of the start of every service
            codebook.normal_()
        self.register_buffer("_embedding", codebook)
        self.register_buffer("_ema_cluster_size", torch.zeros(num_tokens))
        self.register_buffer("_ema_w", codebook.clone())

    def nearest(self, z_MD: Tensor) -> Tensor:
        """Codes (M,) of latents (M, D).

        The expanded square is the published formula, kept for equal rounding: in fp32 it loses about eps * |z|^2, so
        codes whose distances differ by less than that are chosen by the rounding of the machine (`distance_rounding`).
        """
        distance_MV = (z_MD**2).sum(1, keepdim=True) + (self._embedding**2).sum(1) - 2.0 * z_MD @ self._embedding.T
        return distance_MV.argmin(1)

    def forward(self, z_NDhw: Tensor, codes_Nhw: Tensor | None = None) -> Quantized:
        """Quantise a grid (to the given codes, if any); in training mode also move the codebook."""
        z_NhwD = z_NDhw.permute(0, 2, 3, 1)
        z_MD = z_NhwD.reshape(-1, z_NhwD.shape[-1])
        codes_M = self.nearest(z_MD) if codes_Nhw is None else codes_Nhw.reshape(-1)
        if self.training:
            self._follow(z_MD.detach(), codes_M)
        chosen_NhwD = self._embedding[codes_M].view(z_NhwD.shape)
        commitment = functional.mse_loss(z_NhwD, chosen_NhwD.detach())
        straight_NhwD = z_NhwD + (chosen_NhwD - z_NhwD).detach()
        return Quantized(straight_NhwD.permute(0, 3, 1, 2), codes_M.view(z_NhwD.shape[:3]), commitment)

    @torch.no_grad()
    def _follow(self, z_MD: Tensor, codes_M: Tensor) -> None:
        count_V = torch.bincount(codes_M, minlength=len(self._embedding)).to(z_MD.dtype)
        sum_VD = torch.zeros_like(self._ema_w).index_add_(0, codes_M, z_MD)
        self._ema_cluster_size.mul_(self.decay).add_(count_V, alpha=1 - self.decay)
        self._ema_w.mul_(self.decay).add_(sum_VD, alpha=1 - self.decay)
        total = self._ema_cluster_size.sum()
        smooth_V = (self._ema_cluster_size + self.epsilon) / (total + len(count_V) * self.epsilon) * total
        self._embedding.copy_(self._ema_w / smooth_V[:, None])

    @torch.no_grad()
    def install(self, codebook_VD: Tensor, cluster_size_V: Tensor) -> None:
        """Set codebook and running statistics together, consistently."""
        self._embedding.copy_(codebook_VD)
        self._ema_cluster_size.copy_(cluster_size_V)
        self._ema_w.copy_(codebook_VD * cluster_size_V[:, None])


class DepthLoss(NamedTuple):
    """One pass with its losses: total = recon (mean squared error) + commitment_cost * commitment."""

    decoded_N1HW: Tensor
    codes_Nhw: Tensor
    recon: Tensor
    total: Tensor


class DepthVqvae(nn.Module):
    """The network, on numbers that are already scaled and resized."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.hidden_dim * 2**stage for stage in range(config.num_stages)]
        top, ins = widths[-1], [1, *widths[:-1]]
        down: list[nn.Module] = []
        for width_in, width_out in zip(ins, widths, strict=True):
            down += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), nn.ReLU()]
        blocks = [ResidualBlock(top) for _ in range(2 * config.num_resnet_blocks)]
        self.encoder = nn.Sequential(*down, *blocks[: config.num_resnet_blocks], nn.Conv2d(top, config.codebook_dim, 1))
        up: list[nn.Module] = []
        for width_in, width_out in zip([top, *widths[:0:-1]], widths[::-1], strict=True):
            up += [nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1), nn.ReLU()]
        self.decoder = nn.Sequential(
            nn.Conv2d(config.codebook_dim, top, 1), nn.ReLU(), *blocks[config.num_resnet_blocks :], *up, nn.Conv2d(widths[0], 1, 1)
        )
        self._vq_vae = EmaQuantizer(config.num_tokens, config.codebook_dim, decay=config.decay, epsilon=config.epsilon)

    @property
    def quantizer(self) -> EmaQuantizer:
        """The codebook."""
        return self._vq_vae

    def codes(self, x_N1HW: Tensor) -> Tensor:
        """Scaled maps -> codes (N, h, w)."""
        z_NDhw = self.encoder(x_N1HW)
        return self._vq_vae.nearest(z_NDhw.permute(0, 2, 3, 1).reshape(-1, z_NDhw.shape[1])).view(len(x_N1HW), *z_NDhw.shape[2:])

    def decode(self, codes_Nhw: Tensor) -> Tensor:
        """Codes (N, h, w) -> scaled maps (N, 1, H, W). Raises `SpecError` on a code outside the codebook."""
        if codes_Nhw.numel() and not 0 <= int(codes_Nhw.min()) <= int(codes_Nhw.max()) < self.config.num_tokens:
            raise SpecError(f"depth codes must be 0..{self.config.num_tokens - 1}, got {int(codes_Nhw.min())}..{int(codes_Nhw.max())}")
        return self.decoder(self._vq_vae._embedding[codes_Nhw].permute(0, 3, 1, 2))

    def forward(self, x_N1HW: Tensor, codes_Nhw: Tensor | None = None) -> DepthLoss:
        """Through the codebook (at given codes, if any) and back, with the published losses."""
        quantized = self._vq_vae(self.encoder(x_N1HW), codes_Nhw)
        decoded_N1HW = self.decoder(quantized.vectors_NDhw)
        recon = functional.mse_loss(decoded_N1HW, x_N1HW)
        return DepthLoss(decoded_N1HW, quantized.codes_Nhw, recon, recon + self.config.commitment_cost * quantized.commitment)


def resize(maps_NHW: Tensor, size: int) -> Tensor:
    """Maps (N, H, W) -> (N, 1, size, size), bilinear with antialias as Pillow does it, aspect ignored."""
    x_N1HW = maps_NHW[:, None].float()
    if x_N1HW.shape[-2:] == (size, size):
        return x_N1HW
    return functional.interpolate(x_N1HW, (size, size), mode="bilinear", antialias=True, align_corners=False)


def distance_rounding(z_MD: Tensor, codebook_VD: Tensor) -> Tensor:
    """How far two squared distances (M,) may lie apart, in exact arithmetic, and still swap places in fp32."""
    largest = torch.maximum((z_MD.double() ** 2).sum(1), (codebook_VD.double() ** 2).sum(1).max())
    return 8.0 * torch.finfo(torch.float32).eps * largest


def to_image(map_HW: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Any map -> uint8 (H, W) for display, its own minimum black and maximum white (as published); a flat map is black."""
    low, high = float(np.min(map_HW)), float(np.max(map_HW))
    scaled = (np.asarray(map_HW, np.float64) - low) / (high - low) if high > low else np.zeros_like(map_HW, np.float64)
    return np.rint(scaled * 255.0).astype(np.uint8)
