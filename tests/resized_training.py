"""Models whose trainings are stopped and taken up by other numbers of processes: each notes which samples it was given, by id.

`plan.json` beside the frozen folder: "stop_at" (the step at which all ranks are asked to stop), "attempt" (what is not trained is built
anew from it, so that it is right only where it was restored). `ids` beside it: a file a rank, one line a micro batch.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.config.train_config import TrainConfig
from components.training.published.model import PublishedArm
from tests.toy_model import ToyModel


class Joined(nn.Module):
    """Matrices of many sizes, one of them frozen, norms, a scalar, and a buffer."""

    def __init__(self, built: torch.Generator) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(16, 33), nn.LayerNorm(33), nn.Linear(33, 4)
        self.frozen = nn.Linear(33, 33)
        self.gain = nn.Parameter(torch.ones(1))
        self.register_buffer("scale", torch.rand(33, generator=built) + 0.5)
        with torch.no_grad():
            self.frozen.weight.copy_(torch.randn(33, 33, generator=built) / 6)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.first(x)) * self.scale)
        return self.last(hidden + self.gain * torch.tanh(self.frozen(hidden)))


class Noting:
    """A trainable model that notes its samples, and asks its process to stop at the planned step."""

    def __init__(self, inner: Any, frozen: Path) -> None:
        self._inner, self._beside = inner, frozen.parent
        self._plan = json.loads((self._beside / "plan.json").read_text())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def batch(self, indices_B: np.ndarray, *, seed: int, step: int, micro: int) -> Any:
        with (self._beside / "ids" / f"{self._plan['attempt']}_{os.environ['RANK']}").open("a") as notes:
            notes.write(json.dumps({"step": step, "micro": micro, "ids": indices_B.tolist()}) + "\n")
        if step == self._plan["stop_at"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return self._inner.batch(indices_B, seed=seed, step=step, micro=micro)


class JoinedModel(ToyModel):
    """The toy with parts that no step changes."""

    def __init__(self, config: TrainConfig, frozen: Path) -> None:
        super().__init__(config, frozen)
        attempt = json.loads((frozen.parent / "plan.json").read_text())["attempt"]
        self.module = Joined(torch.Generator().manual_seed(attempt))  # type: ignore[assignment]

    def loss(self, module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        return super().loss(module, batch)


def make_joined(config: TrainConfig, frozen: Path) -> Noting:
    torch.manual_seed(config.seed)
    return Noting(JoinedModel(config, frozen), frozen)


def make_published(config: TrainConfig, frozen: Path) -> Noting:
    return Noting(PublishedArm(config, frozen), frozen)


def noted(folder: Path) -> dict[int, list[int]]:
    """Step -> the ids of its samples in order of micro batches, of all ranks and attempts; each micro batch was taken once."""
    found: dict[int, dict[int, list[int]]] = {}
    for path in sorted((folder / "ids").iterdir()):
        for line in path.read_text().splitlines():
            note = json.loads(line)
            micros = found.setdefault(note["step"], {})
            assert note["micro"] not in micros, f"{path.name} repeats micro batch {note['micro']} of step {note['step']}"
            micros[note["micro"]] = note["ids"]
    return {step: [one for micro in sorted(micros) for one in micros[micro]] for step, micros in sorted(found.items())}
