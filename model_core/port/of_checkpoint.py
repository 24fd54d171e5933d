"""The port to a checkpoint: the only place that looks at which language it holds."""

from __future__ import annotations

from model_core.adoption.loading import PublishedParts
from model_core.checkpoint import Checkpoint
from model_core.port.compact import CompactPort
from model_core.port.interface import ModelPort
from model_core.port.published import PublishedPort


def port_of(checkpoint: Checkpoint) -> ModelPort:
    """The port to a checkpoint that was read. Raises `CheckpointError` where its parts cannot work together."""
    if isinstance(checkpoint.language, PublishedParts):
        return PublishedPort(checkpoint.language, checkpoint.contract)
    return CompactPort(checkpoint.language, checkpoint.contract)
