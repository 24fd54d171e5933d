"""Sizes and input scaling of the depth VQ-VAE, as its config.json holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from model_core.spec.documents import Number, from_document
from model_core.spec.errors import CheckpointError, SpecError, require

if TYPE_CHECKING:
    from torch import Tensor

# Keys of the published constructor that have one value or no effect.
_INERT = frozenset({"num_channels", "channels", "max_value", "use_norm", "straight_through", "kl_div_loss_weight", "vqvae_type", "use_ema"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthScaling:
    """What a pixel of the input means; frozen with the codebook.

    kind: "inverse": metres -> 1 at `near_m`, 0 at `far_m`, linear in 1/distance, clipped. "relative": 8-bit relative
    disparity (0..255, brighter is nearer) / 255, as published. "none": numbers are used as they are.
    """

    kind: Literal["inverse", "relative", "none"] = "relative"
    near_m: Number = 0.4
    far_m: Number = 3.0

    def __post_init__(self) -> None:
        require(self.kind in ("inverse", "relative", "none"), "depth scaling must be inverse, relative or none", got=self.kind)
        require(0 < self.near_m < self.far_m, "depth scaling needs 0 < near_m < far_m", got=(self.near_m, self.far_m))

    def apply(self, maps: Tensor) -> Tensor:
        """Depth maps -> network numbers. Raises `SpecError` on NaN, inf, or a distance that is not positive."""
        maps = maps.float()
        if not bool(maps.isfinite().all()):
            raise SpecError("a depth map holds NaN or inf; reject the frame, there is no depth to learn from it")
        if self.kind == "relative":
            return maps / 255.0
        if self.kind == "none":
            return maps
        if not bool((maps > 0).all()):
            raise SpecError(f"metric depth must be above 0 m, got a minimum of {float(maps.min()):.4g}")
        return (1.0 / maps.clamp(self.near_m, self.far_m) - 1.0 / self.far_m) / (1.0 / self.near_m - 1.0 / self.far_m)

    def undo(self, numbers: Tensor) -> Tensor:
        """Network numbers -> depth maps, clipped to the range that `apply` can give."""
        if self.kind == "none":
            return numbers
        numbers = numbers.clamp(0.0, 1.0)
        if self.kind == "relative":
            return numbers * 255.0
        return 1.0 / (numbers * (1.0 / self.near_m - 1.0 / self.far_m) + 1.0 / self.far_m)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthConfig:
    """Sizes of the network, under the published names, and its input scaling. Defaults are the published model's."""

    image_size: int = 320
    num_tokens: int = 128
    codebook_dim: int = 512
    hidden_dim: int = 16
    num_resnet_blocks: int = 2
    downsample_ratio: int = 32
    commitment_cost: Number = 0.25
    decay: Number = 0.99
    epsilon: Number = 1e-5
    scaling: DepthScaling = field(default_factory=DepthScaling)

    def __post_init__(self) -> None:
        stages = self.num_stages
        require(
            stages >= 1 and 2**stages == self.downsample_ratio, "downsample_ratio must be a power of two above 1", got=self.downsample_ratio
        )
        require(
            self.image_size % self.downsample_ratio == 0,
            f"image_size {self.image_size} must be a multiple of downsample_ratio",
            got=self.downsample_ratio,
        )

    @property
    def num_stages(self) -> int:
        """Stride-2 convolutions of the encoder."""
        return self.downsample_ratio.bit_length() - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        side = self.image_size // self.downsample_ratio
        return side, side

    def to_json(self) -> dict[str, Any]:
        """A plain document; `from_json` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> DepthConfig:
        """Read ours or a published constructor dictionary; raises `CheckpointError` naming a key that is unknown or wrong."""
        values = {name: value for name, value in document.items() if name not in _INERT}
        try:
            return from_document(DepthConfig, values, where="depth VQ-VAE config")
        except SpecError as error:
            raise CheckpointError(str(error)) from error


def compact_depth(**changes: Any) -> DepthConfig:
    """Sizes for small metric depth maps, seen at 40 pixels: trained on one laptop core in ten seconds."""
    sizes = {"image_size": 40, "downsample_ratio": 4, "hidden_dim": 16, "codebook_dim": 16, "num_resnet_blocks": 1}
    return DepthConfig(**{**sizes, "scaling": DepthScaling(kind="inverse"), **changes})
