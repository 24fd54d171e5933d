"""The finished depth codebook that a recipe names, in place of one that is trained on its episodes."""

from __future__ import annotations

from pathlib import Path

from model_core.spec.errors import DatasetError
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.depth.config import DepthScaling


def given_codec(folder: Path, scaling: DepthScaling, num_codes: int) -> DepthCodec:
    """Read `annotate.codebook`. Raises `DatasetError` where it reads depth of another scaling or has another number of codes."""
    codec = DepthCodec.load(folder)
    if codec.config.scaling != scaling:
        raise DatasetError(
            f"annotate.codebook {folder}: expected one for depth that is {scaling}, got {codec.config.scaling}. "
            "Fix: name a codebook of the same depth annotator"
        )
    if codec.config.num_tokens != num_codes:
        raise DatasetError(
            f"annotate.codebook {folder}: expected {num_codes} codes (annotate.vqvae.num_codes), got {codec.config.num_tokens}. "
            f"Fix: --set annotate.vqvae.num_codes={codec.config.num_tokens}, or name another codebook"
        )
    return codec
