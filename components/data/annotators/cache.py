"""Answers of costly annotators, kept per episode: by what was asked (annotator version) and what was looked at (digest).

Exchanging the pointer leaves every depth answer in place, and a killed run loses one episode at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.files import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCache:
    """Files FOLDER/<version digest>/<frames digest>.safetensors."""

    folder: Path

    def fetch(
        self, version: str, frames_digest: str, make: Callable[[], Mapping[str, NDArray[np.generic]]]
    ) -> Mapping[str, NDArray[np.generic]]:
        """The kept answer, or a new one. A torn file is impossible: it appears whole or not at all."""
        from safetensors.numpy import load_file, save

        path = self.folder / hashlib.sha256(version.encode()).hexdigest()[:16] / f"{frames_digest[:32]}.safetensors"
        if path.is_file():
            return load_file(path)
        answer = {name: np.ascontiguousarray(array) for name, array in make().items()}
        atomic_write(path, save(answer), durable=False)
        return answer
