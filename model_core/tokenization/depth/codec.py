"""The frozen depth codec: numpy maps in, codes out and back, in one folder with its digest.

    FOLDER/config.json          sizes and input scaling
    FOLDER/model.safetensors    weights under the published keys

The published file ``vae-final.pt`` is read too, by torch's weights-only loader; a pickle with anything else in it is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from model_core.spec.contract import canonical_json
from model_core.spec.errors import CheckpointError, require
from model_core.spec.files import atomic_write
from model_core.spec.types import DEPTH_CELLS, DepthTokens
from model_core.tokenization.depth.config import DepthConfig, DepthScaling
from model_core.tokenization.depth.vqvae import DepthVqvae, distance_rounding, resize, to_image

_CHUNK = 256  # maps a forward pass: bounds memory, does not change a code


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeAgreement:
    """How computed codes compare with expected ones: equal, tied (both nearest within fp32 rounding), or really different."""

    equal: int
    tied: int
    different: int


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Maps are small: one thread is faster than two, and sums have one order, so codes do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class DepthCodec:
    """A trained VQ-VAE that never changes: depth maps <-> `DepthTokens`."""

    def __init__(self, vqvae: DepthVqvae) -> None:
        self._vqvae = vqvae.float().eval().requires_grad_(False)

    @property
    def config(self) -> DepthConfig:
        """Sizes and input scaling."""
        return self._vqvae.config

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the saved weights file, whose metadata holds the config: the `codebook_digest` of a contract."""
        return hashlib.sha256(self._file()).hexdigest()

    def _file(self) -> bytes:
        # one metadata key only: the order of several is not fixed, and equal codecs must be equal bytes
        tensors = {name: tensor.contiguous() for name, tensor in self._vqvae.state_dict().items()}
        return save(tensors, metadata={"config": canonical_json(self.config.to_json())})

    @torch.inference_mode()
    @one_thread()
    def encode(self, maps_NHW: NDArray[np.number]) -> NDArray[np.uint8]:
        """Depth maps (N, H, W), in the unit of the config's scaling -> codes (N, cells), row-major.

        Raises `SpecError` on NaN, inf, or a distance that is not positive.
        """
        require(maps_NHW.ndim == 3, "depth maps must be (N, H, W)", got=maps_NHW.shape)
        found = [
            self._vqvae.codes(self._scaled(part)).flatten(1) for part in torch.from_numpy(np.ascontiguousarray(maps_NHW)).split(_CHUNK)
        ]
        rows, columns = self.config.grid
        return torch.cat(found).to(torch.uint8).numpy() if found else np.zeros((0, rows * columns), np.uint8)

    @torch.inference_mode()
    @one_thread()
    def decode(self, codes_NG: NDArray[np.integer]) -> NDArray[np.float32]:
        """Codes (N, cells) -> maps (N, size, size), in the unit of the config's scaling."""
        rows, columns = self.config.grid
        require(
            codes_NG.ndim == 2 and codes_NG.shape[1] == rows * columns, f"depth codes must be (N, {rows * columns})", got=codes_NG.shape
        )
        codes = torch.from_numpy(codes_NG.astype(np.int64)).view(-1, rows, columns)
        return torch.cat([self.config.scaling.undo(self._vqvae.decode(part)[:, 0]) for part in codes.split(_CHUNK)]).numpy()

    def tokens(self, map_HW: NDArray[np.number]) -> DepthTokens:
        """One map -> the 100 codes that a model predicts."""
        require(int(np.prod(self.config.grid)) == DEPTH_CELLS, f"depth tokens need {DEPTH_CELLS} cells", got=self.config.grid)
        return DepthTokens(codes_G=self.encode(map_HW[None])[0].astype(np.int64), num_codes=self.config.num_tokens)

    @torch.inference_mode()
    def image(self, tokens: DepthTokens) -> NDArray[np.uint8]:
        """What the model predicted, for people: uint8 (size, size), brighter is nearer, its own minimum and maximum stretched."""
        rows, columns = self.config.grid
        codes = torch.from_numpy(tokens.codes_G.astype(np.int64)).view(1, rows, columns)
        return to_image(self._vqvae.decode(codes)[0, 0].numpy())

    @torch.inference_mode()
    @one_thread()
    def error(self, maps_NHW: NDArray[np.number]) -> float:
        """Mean absolute difference between maps (clipped and resized as for coding) and what their codes decode to."""
        total = 0.0
        for part in torch.from_numpy(np.ascontiguousarray(maps_NHW)).split(_CHUNK):
            x_N1HW, undo = self._scaled(part), self.config.scaling.undo
            total += float((undo(self._vqvae.decode(self._vqvae.codes(x_N1HW))) - undo(x_N1HW)).abs().mean(dim=(1, 2, 3)).sum())
        return total / max(len(maps_NHW), 1)

    @torch.inference_mode()
    def agreement(self, maps_NHW: NDArray[np.number], expected_NG: NDArray[np.integer]) -> CodeAgreement:
        """Compare with codes that another implementation or machine computed."""
        x_N1HW = self._scaled(torch.from_numpy(np.ascontiguousarray(maps_NHW)))
        z_NDhw = self._vqvae.encoder(x_N1HW)
        z_MD, codebook_VD = z_NDhw.permute(0, 2, 3, 1).reshape(-1, z_NDhw.shape[1]), self._vqvae.quantizer._embedding
        ours_M, theirs_M = self._vqvae.quantizer.nearest(z_MD), torch.from_numpy(expected_NG.astype(np.int64)).reshape(-1)
        gap_M = _distance(z_MD, codebook_VD[theirs_M]) - _distance(z_MD, codebook_VD[ours_M])
        equal_M = ours_M == theirs_M
        tied_M = ~equal_M & (gap_M.abs() <= distance_rounding(z_MD, codebook_VD))
        return CodeAgreement(equal=int(equal_M.sum()), tied=int(tied_M.sum()), different=int((~equal_M & ~tied_M).sum()))

    def _scaled(self, maps_NHW: Tensor) -> Tensor:
        return resize(self.config.scaling.apply(maps_NHW), self.config.image_size)

    def save(self, folder: Path) -> None:
        """Write the artefact; the config comes last, so that a truncated folder is never taken for a whole one."""
        atomic_write(folder / "model.safetensors", self._file(), durable=False)
        atomic_write(folder / "config.json", json.dumps(self.config.to_json(), indent=2, sort_keys=True) + "\n", durable=False)

    @staticmethod
    def load(folder: Path, *, expected_digest: str = "", scaling: DepthScaling | None = None) -> DepthCodec:
        """Read a folder; raises `CheckpointError` on missing files, keys, shapes or another digest than expected.

        scaling: replaces the one of the config, for published folders that have none.
        """
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no depth VQ-VAE here (config.json is missing)")
        config = DepthConfig.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        config = config if scaling is None else replace(config, scaling=scaling)
        if (folder / "model.safetensors").is_file() and (folder / "vae-final.pt").is_file():
            raise CheckpointError(
                f"{folder} holds model.safetensors and vae-final.pt, two depth codebooks. Fix: keep the one that is meant"
            )
        if (folder / "model.safetensors").is_file():
            weights = load_file(folder / "model.safetensors")
        elif (folder / "vae-final.pt").is_file():
            weights = _published_weights(folder / "vae-final.pt")
        else:
            raise CheckpointError(f"{folder}: expected model.safetensors or vae-final.pt, found neither")
        codec = DepthCodec(_with_weights(config, weights, folder))
        if expected_digest and codec.digest != expected_digest:
            raise CheckpointError(f"{folder}: depth codebook has digest {codec.digest[:16]}, the contract names {expected_digest[:16]}")
        return codec

    @staticmethod
    def load_published(file: Path) -> DepthCodec:
        """The codebook of a release, its file `vae-final.pt`, at the published sizes. Raises `CheckpointError` for another size."""
        return DepthCodec(_with_weights(DepthConfig(), _published_weights(file), file))


def _distance(a_MD: Tensor, b_MD: Tensor) -> Tensor:
    return ((a_MD.double() - b_MD.double()) ** 2).sum(1)


def _published_weights(path: Path) -> dict[str, Tensor]:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    weights = loaded.get("weights", loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict):
        raise CheckpointError(f'{path}: expected {{"weights": ...}}, got {type(loaded).__name__}')
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}


def _with_weights(config: DepthConfig, weights: dict[str, Tensor], where: Path) -> DepthVqvae:
    with torch.device("meta"):
        vqvae = DepthVqvae(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in vqvae.state_dict().items()}
    offered = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name}: expected {wanted.get(name, 'nothing')}, got {offered.get(name, 'nothing')}"
        for name in sorted(wanted.keys() | offered.keys())
        if wanted.get(name) != offered.get(name)
    ]
    if wrong:
        raise CheckpointError(f"{where}: depth VQ-VAE weights do not fit the config: {'; '.join(wrong)}")
    if any(not bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise CheckpointError(f"{where}: depth VQ-VAE weights hold NaN or inf")
    vqvae.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return vqvae
