"""Checkpoints are written while training goes on: a step waits for the copy of the state into memory, a thread writes and seals it.

Every process writes its own file. The first process's thread waits for the others' records (files, no messages between processes, so that
the thread meets no collective of the training) and writes the manifest, which makes the checkpoint complete.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.training.checkpoints import CheckpointManifest, checkpoint_name, finalize, retain
from components.training.state.pieces import Piece
from components.training.state.state_files import keyed, record_path, write_state, written_digests
from model_core.spec.errors import JobError

if TYPE_CHECKING:
    from torch import Tensor

_LOOK_S = 0.05


class StateWriter:
    """One process's part in the writing of checkpoints, one at a time. keep: complete ones that stay."""

    def __init__(self, root: Path, *, rank: int, world_size: int, keep: int) -> None:
        self._root, self._rank, self._world_size, self._keep = root, rank, world_size, keep
        self._memory: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None
        self._sealed: list[int] = []
        self._step = 0

    def prepare(self, step: int) -> None:
        """On the first process: an empty folder for the checkpoint of `step`, before any process begins."""
        self._step, folder = step, self._root / checkpoint_name(step)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            self._problem = error
            self.sealed()

    def begin(self, about: CheckpointManifest, pieces: Iterable[Piece]) -> None:
        """Copy this process's pieces and go on; the folder is there and empty, and no writing is in progress (`wait`)."""
        self._step = about.step
        tensors: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}
        for piece in pieces:
            sizes[piece.name] = piece.size
            tensors |= {key: self._copied(key, value) for key, value in keyed(piece).items() if value.numel()}
        self._memory = tensors  # the same memory is filled the next time: fresh pages would cost more than the copy
        folder = self._root / checkpoint_name(about.step)
        self._thread = threading.Thread(target=self._write, args=(folder, about, tensors, sizes), name="checkpoint", daemon=True)
        self._thread.start()

    def sealed(self) -> list[int]:
        """Steps whose checkpoints were completed since the last call. Raises `JobError` where one could not be written."""
        if self._problem is not None:
            raise JobError(
                f"the checkpoint of step {self._step} could not be written: {self._problem}. The last complete one is kept. "
                "Fix: free disk space and run again"
            ) from self._problem
        found, self._sealed = self._sealed, []
        return found

    def wait(self) -> list[int]:
        """Until what was begun is written, and sealed where this is the first process; returns and raises what `sealed` does."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self.sealed()

    def _copied(self, key: str, value: Tensor) -> Tensor:
        import torch

        kept = self._memory.get(key)
        if kept is None or kept.shape != value.shape:
            kept = torch.empty(value.shape, dtype=value.dtype, device="cpu")
        return kept.copy_(value.detach())

    def _write(self, folder: Path, about: CheckpointManifest, tensors: dict[str, Tensor], sizes: dict[str, int]) -> None:
        try:
            write_state(folder, self._rank, tensors, sizes)
            if self._rank == 0:
                self._seal(folder, about)
        except Exception as error:  # told by `sealed`: a thread's own end would be silent
            self._problem = error

    def _seal(self, folder: Path, about: CheckpointManifest) -> None:
        while (digests := written_digests(folder, self._world_size)) is None:
            time.sleep(_LOOK_S)  # a process that cannot write ends, and torchrun ends this one
        for rank in range(self._world_size):
            record_path(folder, rank).unlink()
        finalize(folder, replace(about, files=digests))
        retain(self._root, self._keep)
        self._sealed.append(about.step)
