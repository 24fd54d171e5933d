"""The depth codebook of a labelling: trained on evenly spaced frames of all episodes, given by the recipe, or found from a killed run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import AnnotateConfig, VqvaeConfig
from components.data.annotators.codebook import given_codec
from model_core.spec.errors import DatasetError
from model_core.spec.files import atomic_write
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.depth.config import DepthConfig, DepthScaling
from model_core.tokenization.depth.training import DepthTraining, train_vqvae


@dataclass(frozen=True, slots=True, kw_only=True)
class CodebookFolder:
    """<out>/vqvae. made_for: digest of what decides the codebook; one that was made for something else is not used."""

    folder: Path
    made_for: str

    def found(self) -> tuple[DepthCodec, Mapping[str, Any]] | None:
        """The codebook that a killed run finished, and its note: "report" and "rejected" (episode id -> reason)."""
        note = self.folder / "training.json"
        if not note.is_file():
            return None
        found = json.loads(note.read_text(encoding="utf-8"))
        if found["made_for"] != self.made_for:
            return None
        return DepthCodec.load(self.folder, expected_digest=found["digest"]), found

    def keep(self, codec: DepthCodec, report: Mapping[str, Any], rejected: Mapping[str, str]) -> None:
        """Write the codebook, then the note by which a later attempt knows it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        codec.save(self.folder)
        note = {"made_for": self.made_for, "report": report, "rejected": rejected, "digest": codec.digest}
        atomic_write(self.folder / "training.json", json.dumps(note, indent=1, sort_keys=True) + "\n")


def spaced(maps: Iterable[tuple[NDArray[np.number] | None, int]], stride: int) -> Iterator[NDArray[np.number]]:
    """Every `stride`-th depth map, counted over all episodes. maps: those of an episode (None: it has none), and its frames."""
    seen = 0
    for depth_THW, length in maps:
        if depth_THW is not None:
            yield np.array(depth_THW[(-seen) % stride :: stride])
        seen += length


def make_codebook(
    cfg: AnnotateConfig, scaling: DepthScaling, maps: list[NDArray[np.number]], progress: Callable[[int, int, str], None]
) -> tuple[DepthCodec, dict[str, Any]]:
    """The recipe's codebook, or one trained on `maps`; and what is reported of it."""
    if cfg.codebook:
        codec = given_codec(Path(cfg.codebook), scaling, cfg.vqvae.num_codes)
        return codec, {"given": codec.digest}
    depth_config, training = _settings(cfg.vqvae)
    depth_config = DepthConfig(**{**depth_config, "scaling": scaling})
    sizes = dict.fromkeys(depth_THW.shape[1:] for depth_THW in maps)  # cameras of several embodiments differ
    stacks = [np.concatenate([depth_THW for depth_THW in maps if depth_THW.shape[1:] == size]) for size in sizes]
    codec, report = train_vqvae(stacks, depth_config, training, progress)
    unit = 1000.0 if depth_config.scaling.kind == "inverse" else 1.0
    return codec, {
        "error_mm" if unit > 1 else "error": round(report.error * unit, 3),
        "codes_used": report.codes_used,
        "perplexity": round(report.perplexity, 2),
        "recon": round(report.recon, 8),
        "maps": sum(map(len, maps)),
    }


def check_depth(depth_THW: NDArray[np.number], length: int, kind: str) -> None:
    """Raise `DatasetError` unless there is a usable depth map per frame."""
    if depth_THW.ndim != 3 or len(depth_THW) != length:
        raise DatasetError(f"expected a depth map for each of {length} frames, got an array of {depth_THW.shape}")
    bad_T = ~np.isfinite(depth_THW).all(axis=(1, 2))
    if kind == "inverse":
        bad_T |= (depth_THW <= 0).any(axis=(1, 2))
    if bad_T.any():
        raise DatasetError(f"frame {int(np.argmax(bad_T))}: the depth map holds NaN, inf or a distance that is not positive")


def _settings(cfg: VqvaeConfig) -> tuple[dict[str, Any], DepthTraining]:
    sizes = {
        "image_size": cfg.input_size,
        "downsample_ratio": cfg.input_size // 10,
        "num_tokens": cfg.num_codes,
        "codebook_dim": cfg.code_dim,
        "hidden_dim": cfg.hidden,
        "num_resnet_blocks": 1,
        "commitment_cost": cfg.commitment,
        "decay": cfg.ema_decay,
    }
    return sizes, DepthTraining(steps=cfg.steps, batch=cfg.batch, learning_rate=cfg.lr, seed=cfg.seed)
