"""What a policy can be asked for that is trained on these labels, read from the folder that annotate made."""

from __future__ import annotations

import json
from pathlib import Path

from components.config.data_config import levels_taught
from model_core.spec.contract import EmbodimentSpec, ReasoningSpec
from model_core.spec.errors import DatasetError


def annotators_of(labels: Path) -> dict[str, str]:
    """Kind of label -> version of what labelled it, "none" where there is no label. Raises `DatasetError` where the folder does not say."""
    path = labels / "annotators.json"
    if not path.is_file():
        raise DatasetError(f"{labels} does not name the annotators that labelled it ({path.name} is missing); run annotate first")
    return {str(kind): str(version) for kind, version in json.loads(path.read_text(encoding="utf-8")).items()}


def reasoning_of(labels: Path, embodiment: EmbodimentSpec) -> ReasoningSpec:
    """The levels that these labels teach: without labels only actions, without depth no depth tokens and no codebook.

    Raises `CheckpointError` where the codebook of depth labels is missing or damaged.
    """
    who = annotators_of(labels)
    levels = levels_taught(who.get("depth", ""), who.get("points", ""))
    if "trace+action" not in levels:
        return ReasoningSpec(levels=levels, steering=False)
    camera = embodiment.cameras[0].name
    if "full" not in levels:
        return ReasoningSpec(levels=levels, trace_camera=camera)
    return ReasoningSpec(codebook_digest=_codebook_digest(labels / "vqvae"), trace_camera=camera)


def _codebook_digest(folder: Path) -> str:
    from model_core.tokenization.depth.codec import DepthCodec

    return DepthCodec.load(folder).digest
