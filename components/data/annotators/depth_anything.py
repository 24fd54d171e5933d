"""Depth Anything V2 through the depth-estimation classes of transformers: relative disparity, 8 bits, as MolmoAct was labelled.

Each answer is stretched to its own minimum and maximum, 0..255, brighter is nearer. Weights come from a local folder or,
where the hub can be reached, from a repository id; safetensors only, no remote code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig
from components.data.annotators.interface import DepthAnnotator, Frames, ImageAnswers
from components.data.annotators.weights import load_pretrained, weights_digest
from model_core.spec.errors import DatasetError, require
from model_core.tokenization.depth.config import DepthScaling

PATCH = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthAnything:
    """A loaded model. size: side of the image that the network takes (518 as published, a multiple of 14)."""

    model: Any
    processor: Any
    name: str
    digest: str
    size: int = 518
    batch_size: int = 8

    def __post_init__(self) -> None:
        require(self.size >= PATCH and self.size % PATCH == 0, f"size must be a multiple of {PATCH}", got=self.size)

    @staticmethod
    def load(source: str, *, size: int = 518, batch_size: int = 8, device: str = "") -> DepthAnything:
        """Read a folder or hub id. Raises `CheckpointError` naming what is missing."""
        # by their own modules: the type checker needs 20 s for the package's own file
        from transformers.models.auto.image_processing_auto import AutoImageProcessor
        from transformers.models.auto.modeling_auto import AutoModelForDepthEstimation

        model, processor = load_pretrained(source, AutoModelForDepthEstimation, AutoImageProcessor, device=device)
        return DepthAnything(
            model=model,
            processor=processor,
            name=source.rstrip("/").split("/")[-1],
            digest=weights_digest(model),
            size=size,
            batch_size=batch_size,
        )

    @property
    def version(self) -> str:
        """Weights and size; the batch size changes no answer."""
        return f"depth-anything/1:{self.name}:{self.digest}?size={self.size}"

    @property
    def provenance(self) -> dict[str, object]:
        """What each label says of where it came from."""
        return {"model": self.name, "weights": self.digest, "size": self.size}

    @property
    def scaling(self) -> DepthScaling:
        """8-bit relative disparity."""
        return DepthScaling(kind="relative")

    @property
    def needs_images(self) -> bool:
        """It needs images."""
        return True

    def annotate(self, frames: Frames) -> NDArray[np.number]:
        """(T, H, W) uint8, at the size of the images. Raises `DatasetError` for a frame without any depth in it."""
        if len(frames.images_THW3) != frames.count or frames.count == 0:
            raise DatasetError(f"expected {frames.count} images, got {len(frames.images_THW3)}")
        answers = self.answer_images(frames.images_THW3)
        for frame, reason in answers.errors.items():
            raise DatasetError(f"frame {frame}: {reason}")
        return answers.columns["depth"]

    def answer_images(self, images_NHW3: NDArray[np.uint8]) -> ImageAnswers:
        """(N, H, W) uint8 under "depth"; an image without any depth in it is an error."""
        import torch

        size = images_NHW3.shape[1:3]
        depth_NHW, errors = np.zeros((len(images_NHW3), *size), np.uint8), dict[int, str]()
        for start in range(0, len(images_NHW3), self.batch_size):
            part = images_NHW3[start : start + self.batch_size]
            inputs = self.processor(images=list(part), size={"height": self.size, "width": self.size}, return_tensors="pt")
            with torch.inference_mode():
                # the number format is that of the checkpoint's config, which need not be float32
                pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
                predicted_NHW = self.model(pixel_values=pixels).predicted_depth.float()
            resized = torch.nn.functional.interpolate(predicted_NHW[:, None], size, mode="bicubic", align_corners=False)[:, 0]
            for place, map_HW in enumerate(resized.cpu().numpy(), start):
                try:
                    depth_NHW[place] = _stretched(map_HW)
                except DatasetError as error:
                    errors[place] = str(error)
        return ImageAnswers(columns={"depth": depth_NHW}, errors=errors)


def open_depth(cfg: AnnotateConfig) -> DepthAnnotator:
    """The model that the recipe names."""
    return DepthAnything.load(cfg.depth_model, batch_size=cfg.batch_size)


def _stretched(map_HW: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = float(map_HW.min()), float(map_HW.max())
    if not (np.isfinite([low, high]).all() and high > low):
        raise DatasetError(f"the depth network gave a flat or non-finite map ({low:.4g}..{high:.4g})")
    return np.rint((map_HW - low) / (high - low) * 255.0).astype(np.uint8)
