"""Does our arithmetic equal the published implementation's? Compare with recorded inputs and outputs, in numbers.

A recording was made by running the published code: `config.json`, `model.safetensors` and `io.safetensors` (network
and VQ-VAE), or an `.npz` of frames and what its image processor made of them. Nothing here judges by eye: every
report holds the differences and one verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.engine.cache import StaticCache
from model_core.network.checkpoints.hub import load_pretrained
from model_core.network.images import ImageProcessor
from model_core.network.model import MolmoAct, default_position_ids
from model_core.spec.errors import CheckpointError

LOGIT_TOLERANCE = 1e-4
IMAGE_TOLERANCE = 1e-5
DEPTH_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParity:
    """Network against recording. Differences are the largest absolute ones; logits only where a token is valid."""

    folder: str
    max_abs_logit_diff: float
    max_abs_feature_diff: float
    generated_equal: bool
    tolerance: float
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageParity:
    """Image processor (published mode) against recording."""

    file: str
    max_abs_image_diff: float
    pooled_patches_idx_equal: bool
    image_masks_equal: bool
    image_grids_equal: bool
    tolerance: float
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VqvaeParity:
    """Depth VQ-VAE against recording.

    codes_tied: cells whose computed and recorded codes differ but are equally near within float32 rounding: the published
    distance |z|^2 + |e|^2 - 2 z.e loses about eps |z|^2, so there the machine's order of additions chose. codes_equal: every
    other cell is identical.
    """

    folder: str
    codes: int
    codes_tied: int
    codes_equal: bool
    max_abs_decoded_diff: float
    recon_loss_diff: float
    tolerance: float
    equal: bool


def model_parity(folder: Path, *, tolerance: float = LOGIT_TOLERANCE) -> ModelParity:
    """Run a recorded batch through the network in float32. Raises CheckpointError for a folder that holds no recording."""
    io = _recorded(folder, ("input_ids", "logits", "generated"))
    model = load_pretrained(folder, dtype=torch.float32, attention="eager")
    ids = io["input_ids"]
    mask = io.get("attention_mask", torch.ones_like(ids))
    positions = io.get("position_ids", default_position_ids(ids, mask))
    with torch.no_grad():
        features = model.encode_images(io["images"], io["pooled_patches_idx"]) if "images" in io else None
        logits = model.logits(model.trunk(model.embed(ids, features), positions, mask))
        generated = greedy(model, ids, features, mask, positions, steps=io["generated"].shape[1])
    valid = mask.bool()
    logit_diff = largest(logits[valid], io["logits"][valid])
    feature_diff = largest(features, io["image_features"]) if features is not None and "image_features" in io else 0.0
    same = bool(torch.equal(generated, io["generated"]))
    return ModelParity(
        folder=str(folder),
        max_abs_logit_diff=logit_diff,
        max_abs_feature_diff=feature_diff,
        generated_equal=same,
        tolerance=tolerance,
        equal=same and logit_diff <= tolerance and feature_diff <= tolerance,
    )


@torch.no_grad()
def greedy(
    model: MolmoAct, input_ids_BL: Tensor, features: Tensor | None, mask_BL: Tensor, position_ids_BL: Tensor, *, steps: int
) -> Tensor:
    """The most likely continuation, `steps` tokens, no stop token: prefill once, then one token a step through a cache."""
    batch, length = input_ids_BL.shape
    cache = StaticCache(model.config.llm, batch=batch, max_length=length + steps, dtype=model.lm_head.weight.dtype)
    h_BLD = model.trunk(model.embed(input_ids_BL, features), position_ids_BL, mask_BL, cache)
    written: list[Tensor] = []
    for _ in range(steps):
        token_B1 = model.logits(h_BLD[:, -1:]).argmax(-1)
        written.append(token_B1)
        mask_BL = torch.cat([mask_BL, torch.ones_like(token_B1)], dim=1)
        position_ids_BL = position_ids_BL[:, -1:] + 1
        h_BLD = model.trunk(model.embed(token_B1), position_ids_BL, mask_BL, cache)
    return torch.cat(written, dim=1)


def image_parity(
    file: Path, processor: ImageProcessor | Mapping[str, Any] | str | Path | None = None, *, tolerance: float = IMAGE_TOLERANCE
) -> ImageParity:
    """Run recorded frames (`in0`, `in1`, ...) through the processor in published mode.

    processor: its settings; default the `.json` beside `file`, else the published defaults.
    """
    if not isinstance(processor, ImageProcessor):
        beside = file.with_suffix(".json")
        processor = ImageProcessor.from_json(processor if processor is not None else beside if beside.is_file() else {})
    recorded = _arrays(file)
    views = [recorded[f"in{number}"] for number in range(len(recorded)) if f"in{number}" in recorded]
    if not views or "pooled_patches_idx" not in recorded:
        raise CheckpointError(f"{file} is no image recording: expected in0, ... and pooled_patches_idx, got {sorted(recorded)}")
    made = processor.as_published()(views)
    images = made.images_CPD[None]
    compared = {
        "images": images,
        "images_patch_mean": images.mean(-1),
        "images_patch_std": images.std(-1),
        "images_first_patch": images[:, :, 0],
    }
    difference = max((largest_of(value, recorded[name]) for name, value in compared.items() if name in recorded), default=float("inf"))
    same = {
        "pooled_patches_idx_equal": np.array_equal(made.pooled_patches_idx_N4[None], recorded["pooled_patches_idx"]),
        "image_masks_equal": np.array_equal(made.image_masks_CP[None], recorded["image_masks"]),
        "image_grids_equal": np.array_equal(made.image_grids_G2[None], recorded["image_grids"]),
    }
    equal = all(same.values()) and difference <= tolerance
    return ImageParity(file=str(file), max_abs_image_diff=difference, **same, tolerance=tolerance, equal=equal)


def vqvae_parity(folder: Path, *, tolerance: float = DEPTH_TOLERANCE) -> VqvaeParity:
    """Encode recorded depth maps, decode the recorded codes."""
    from model_core.tokenization.depth.codec import DepthCodec
    from model_core.tokenization.depth.config import DepthScaling

    io = _recorded(folder, ("depth", "indices", "decoded"))
    codec = DepthCodec.load(folder, scaling=DepthScaling(kind="none"))  # recorded maps are network numbers already
    depth = io["depth"].float()
    indices = io["indices"].flatten(1).numpy()
    agreement = codec.agreement(depth[:, 0].numpy(), indices)
    decoded = torch.from_numpy(codec.decode(indices))
    decoded_diff = largest(decoded, io["decoded"][:, 0])
    recon_diff = abs(float(torch.mean((decoded - depth[:, 0]) ** 2)) - float(io["recon_loss"])) if "recon_loss" in io else 0.0
    return VqvaeParity(
        folder=str(folder),
        codes=indices.size,
        codes_tied=agreement.tied,
        codes_equal=agreement.different == 0,
        max_abs_decoded_diff=decoded_diff,
        recon_loss_diff=recon_diff,
        tolerance=tolerance,
        equal=agreement.different == 0 and decoded_diff <= tolerance and recon_diff <= tolerance,
    )


def report_line(report: ModelParity | ImageParity | VqvaeParity) -> str:
    """The report as one line of JSON."""
    return json.dumps(asdict(report), sort_keys=False)


def largest(made: Tensor, recorded: Tensor) -> float:
    """Largest absolute difference; infinite when shapes differ or a number is not finite."""
    return largest_of(made.double().numpy(), recorded.double().numpy())


def largest_of(made: NDArray[Any], recorded: NDArray[Any]) -> float:
    """`largest` for arrays."""
    if made.shape != recorded.shape or not np.isfinite(made).all():
        return float("inf")
    return float(np.abs(made.astype(np.float64) - recorded.astype(np.float64)).max()) if made.size else 0.0


def _recorded(folder: Path, needed: tuple[str, ...]) -> dict[str, Tensor]:
    from model_core.network.checkpoints.weights import read_header

    path = folder / "io.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no recording at {path}; expected config.json, model.safetensors and io.safetensors in one folder")
    tensors = {key: stored.load() for key, stored in read_header(path)}
    missing = sorted(set(needed) - tensors.keys())
    if missing:
        raise CheckpointError(f"{path} lacks {missing}; it holds {sorted(tensors)}")
    return tensors


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is not an .npz recording that we can read: {error}") from error
