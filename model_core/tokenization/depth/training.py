"""Training of the depth VQ-VAE: seconds on a laptop, the same codebook for the same seed and thread count.

Three things make it fast and keep all codes in use. The first third trains a plain autoencoder (no codebook yet), then the codebook
starts at k-means of its latents, then both go on together with running means; codes that nothing falls to are put
back onto latents that are far from their code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model_core.spec.errors import require
from model_core.tokenization.depth.codec import DepthCodec, one_thread
from model_core.tokenization.depth.config import DepthConfig
from model_core.tokenization.depth.vqvae import DepthVqvae, resize

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthTraining:
    """How long and how fast.

    warm_share: part of the steps before there is a codebook. revive_every: steps between revivals of codes whose running
    count per batch is below `dead_below`.
    """

    steps: int = 300
    batch: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    warm_share: float = 0.3
    revive_every: int = 20
    dead_below: float = 0.5

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.batch >= 1, "depth training needs steps and a batch", got=(self.steps, self.batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthReport:
    """What came out: on maps held out of training, mean absolute error in the unit of the maps, codes used, perplexity of their use."""

    steps: int
    error: float
    codes_used: int
    perplexity: float
    recon: float


def train_vqvae(
    maps: NDArray[np.number] | Sequence[NDArray[np.number]],
    config: DepthConfig,
    training: DepthTraining,
    progress: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> tuple[DepthCodec, DepthReport]:
    """Learn a codec from depth maps (N, H, W), or from several such arrays, each of one size; every 20th map is held out for the report
    when there are at least 40.
    """
    stacks = [maps] if isinstance(maps, np.ndarray) else list(maps)
    require(sum(map(len, stacks)) > 0, "no depth map to learn a codebook from")
    generator = torch.Generator().manual_seed(training.seed)
    x_N1HW = torch.cat([resize(config.scaling.apply(torch.from_numpy(np.ascontiguousarray(s))), config.image_size) for s in stacks])
    held_N = torch.arange(len(x_N1HW)) % 20 == 19 if len(x_N1HW) >= 40 else torch.zeros(len(x_N1HW), dtype=torch.bool)
    learn_N1HW = x_N1HW[~held_N]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        vqvae = DepthVqvae(config)
    with one_thread():
        _lay_out(vqvae, torch.channels_last)  # twice as fast here
        _fit(vqvae.train(), learn_N1HW, training, generator, progress)
    _lay_out(vqvae, torch.contiguous_format)
    codec = DepthCodec(vqvae)
    shown_N = held_N if bool(held_N.any()) else ~held_N
    shown = [stack[mine_N.numpy()] for stack, mine_N in zip(stacks, shown_N.split([len(stack) for stack in stacks]), strict=True)]
    return codec, _report(codec, vqvae, shown, x_N1HW[shown_N], training.steps)


def _fit(
    vqvae: DepthVqvae, x_N1HW: Tensor, training: DepthTraining, generator: torch.Generator, progress: Callable[[int, int, str], None]
) -> None:
    last = vqvae.decoder[-1]
    if isinstance(last, torch.nn.Conv2d) and last.bias is not None:
        torch.nn.init.constant_(last.bias, float(x_N1HW.mean()))  # the first steps learn shapes, not the mean distance
    optimizer = torch.optim.AdamW(vqvae.parameters(), lr=training.learning_rate, weight_decay=0.0, betas=(0.9, 0.95))
    warm = math.ceil(training.steps * training.warm_share)
    for step in range(training.steps):
        batch_N1HW = x_N1HW[torch.randint(len(x_N1HW), (training.batch,), generator=generator)].contiguous(
            memory_format=torch.channels_last
        )
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _schedule(step, training.steps)
        if step < warm:
            loss = functional.mse_loss(vqvae.decoder(vqvae.encoder(batch_N1HW)), batch_N1HW)
        else:
            if step == warm:
                _start_codebook(vqvae, x_N1HW, training, generator)
            loss = vqvae(batch_N1HW).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vqvae.parameters(), 1.0)
        optimizer.step()
        if step > warm and step % training.revive_every == 0 and step < 0.8 * training.steps:
            _revive(vqvae, batch_N1HW, training.dead_below, generator)
        if step % 10 == 9 or step == training.steps - 1:
            progress(step + 1, training.steps, f"depth codebook, loss {loss.item():.4f}")


def _lay_out(vqvae: DepthVqvae, memory_format: torch.memory_format) -> None:
    for parameter in vqvae.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def _schedule(step: int, steps: int) -> float:
    """A short warm-up, flat, then a cosine to a fiftieth over the second half."""
    share = step / steps
    late = 0.0 if share < 0.5 else (share - 0.5) / 0.5
    return min(1.0, (step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * late)))


@torch.no_grad()
def _latents(vqvae: DepthVqvae, x_N1HW: Tensor) -> Tensor:
    z_NDhw = vqvae.encoder(x_N1HW)
    return z_NDhw.permute(0, 2, 3, 1).reshape(-1, z_NDhw.shape[1])


@torch.no_grad()
def _start_codebook(vqvae: DepthVqvae, x_N1HW: Tensor, training: DepthTraining, generator: torch.Generator, rounds: int = 10) -> None:
    """k-means over the latents of some maps; random starts, empty clusters restart."""
    chosen_N1HW = x_N1HW[torch.randperm(len(x_N1HW), generator=generator)[:128]]
    z_MD = torch.cat([_latents(vqvae, part) for part in chosen_N1HW.split(32)])
    count = vqvae.config.num_tokens
    centre_VD = z_MD[torch.randint(len(z_MD), (count,), generator=generator)].clone()
    size_V = torch.zeros(count)
    for _ in range(rounds):
        code_M = ((centre_VD**2).sum(1) - 2.0 * z_MD @ centre_VD.T).argmin(1)
        size_V = torch.bincount(code_M, minlength=count).float()
        sum_VD = torch.zeros_like(centre_VD).index_add_(0, code_M, z_MD)
        restart_VD = z_MD[torch.randint(len(z_MD), (count,), generator=generator)]
        centre_VD = torch.where(size_V[:, None] > 0, sum_VD / size_V.clamp(min=1)[:, None], restart_VD)
    cells = vqvae.config.grid[0] * vqvae.config.grid[1] * training.batch
    vqvae.quantizer.install(centre_VD, (size_V / len(z_MD) * cells).clamp(min=1.0))


@torch.no_grad()
def _revive(vqvae: DepthVqvae, batch_N1HW: Tensor, dead_below: float, generator: torch.Generator) -> None:
    """Put codes that almost nothing falls to onto latents drawn in proportion to their squared distance from their code."""
    quantizer = vqvae.quantizer
    dead_K = torch.nonzero(quantizer._ema_cluster_size < dead_below)[:, 0]
    if len(dead_K) == 0:
        return
    z_MD = _latents(vqvae, batch_N1HW)
    far_M = ((z_MD - quantizer._embedding[quantizer.nearest(z_MD)]) ** 2).sum(1) + 1e-12
    picked_K = torch.multinomial(far_M, len(dead_K), replacement=len(far_M) < len(dead_K), generator=generator)
    codebook_VD, size_V = quantizer._embedding.clone(), quantizer._ema_cluster_size.clone()
    codebook_VD[dead_K], size_V[dead_K] = z_MD[picked_K], 1.0
    quantizer.install(codebook_VD, size_V)
    log.debug("revived %d of %d depth codes", len(dead_K), len(size_V))


@torch.inference_mode()
def _report(codec: DepthCodec, vqvae: DepthVqvae, maps: Sequence[NDArray[np.number]], x_N1HW: Tensor, steps: int) -> DepthReport:
    recon = torch.stack([vqvae(part).recon * len(part) for part in x_N1HW.split(64)]).sum() / len(x_N1HW)
    stacks = [stack for stack in maps if len(stack)]
    codes_NG = np.concatenate([codec.encode(stack) for stack in stacks])
    share_V = np.bincount(codes_NG.reshape(-1), minlength=codec.config.num_tokens) / (len(x_N1HW) * np.prod(codec.config.grid))
    used_V = share_V[share_V > 0]
    return DepthReport(
        steps=steps,
        error=codec.error(stacks[0]) if len(stacks) == 1 else sum(codec.error(s) * len(s) for s in stacks) / len(x_N1HW),
        codes_used=len(used_V),
        perplexity=float(np.exp(-(used_V * np.log(used_V)).sum())),
        recon=float(recon),
    )
