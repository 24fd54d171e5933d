"""Answers of costly annotators, kept per episode: by what was asked (annotator version) and what was looked at (digest).

Exchanging the pointer leaves every depth answer in place. Answered batches of episodes that are not whole yet lie beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_core.spec.files import atomic_write

Answer = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCache:
    """Files FOLDER/<version digest>/<frames digest>.safetensors, and batches in FOLDER/<version digest>/parts/.

    A torn file is impossible: it appears whole or not at all.
    """

    folder: Path

    def fetch(self, version: str, frames_digest: str, make: Callable[[], Answer]) -> Answer:
        """The kept answer, or a new one, which is kept."""
        if not self.holds(version, frames_digest):
            self.keep(version, frames_digest, make())
        return self.kept(version, frames_digest)

    def holds(self, version: str, frames_digest: str) -> bool:
        """Whether there is an answer."""
        return self._path(version, frames_digest).is_file()

    def kept(self, version: str, frames_digest: str) -> Answer:
        """The answer that is there."""
        from safetensors.numpy import load_file

        return load_file(self._path(version, frames_digest))

    def keep(self, version: str, frames_digest: str, answer: Answer) -> None:
        """Keep an answer about a whole episode."""
        _write(self._path(version, frames_digest), answer)

    def keep_part(self, version: str, name: str, answer: Answer) -> Path:
        """Keep an answered batch until its episodes are whole; gives its file. name: tells it from others of this version."""
        path = self._folder(version) / "parts" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
        _write(path, answer)
        return path

    def parts(self, version: str) -> Iterator[tuple[Path, Answer]]:
        """The kept batches of a version, without those that another process removes meanwhile: their episodes are whole."""
        from safetensors.numpy import load_file

        for path in sorted((self._folder(version) / "parts").glob("*.safetensors")):
            try:
                answer = load_file(path)
            except FileNotFoundError:
                continue
            yield path, answer

    def _folder(self, version: str) -> Path:
        return self.folder / hashlib.sha256(version.encode()).hexdigest()[:16]

    def _path(self, version: str, frames_digest: str) -> Path:
        return self._folder(version) / f"{frames_digest[:32]}.safetensors"


def _write(path: Path, answer: Answer) -> None:
    from safetensors.numpy import save

    atomic_write(path, save({name: np.ascontiguousarray(array) for name, array in answer.items()}), durable=False)
