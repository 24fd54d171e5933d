"""A trainable model small enough to be trained hundreds of steps a second: what the engine tests train."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from components.config.train_config import TrainConfig
from components.training.job import TrainingTask

# Steps at which something happens are put into the frozen folder's toy.json:
# {"digest", "samples", "nan_at", "sleep_s", "stop_at", "spikes"}


class ToyModel:
    """Fits a random teacher; dropout-like noise is drawn from (seed, step, micro)."""

    def __init__(self, config: TrainConfig, frozen: Path) -> None:
        self._plan = json.loads((frozen / "toy.json").read_text())
        self.num_samples = self._plan.get("samples", 100)
        self.data_digest = self._plan.get("digest", "d" * 64)
        torch.manual_seed(config.seed)
        self.module = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 4))
        rng = np.random.default_rng(0)
        self._x = torch.from_numpy(rng.normal(size=(self.num_samples, 16)).astype(np.float32))
        self._y = torch.from_numpy(rng.normal(size=(self.num_samples, 4)).astype(np.float32))

    def batch(self, indices_B: np.ndarray, *, seed: int, step: int, micro: int) -> Mapping[str, Tensor]:
        if self._plan.get("sleep_s"):
            import time

            time.sleep(self._plan["sleep_s"])
        if step == self._plan.get("stop_at", -1):
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does when it is stopped
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step * 101 + micro)
        x = self._x[indices_B]
        x = x + 0.01 * torch.randn(x.shape, generator=generator)
        y = self._y[indices_B] * (100.0 if step in self._plan.get("spikes", ()) else 1.0)
        return {"x": x * float("nan") if step == self._plan.get("nan_at", -1) else x, "y": y}

    def loss(self, module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        error = (module(batch["x"]).float() - batch["y"]).square()
        return error.mean(), {"loss_first": error[:, 0].mean()}

    def flops_at(self, step: int) -> float:
        return 6.0 * 16 * 32

    def validate(self, module: nn.Module) -> Mapping[str, float]:
        return {"validation_loss": float((module(self._x).float() - self._y).square().mean())}

    def export(self, state: Mapping[str, Tensor], folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
        libraries = {"deepspeed", "mlflow", "prefect", "torch", "torch._inductor.compile_fx"}
        (folder / "libraries.json").write_text(json.dumps(sorted(libraries & sys.modules.keys())))


def make(config: TrainConfig, frozen: Path) -> ToyModel:
    return ToyModel(config, frozen)


def toy_task(config: TrainConfig, frozen: Path, out: Path) -> TrainingTask:
    """Train the toy model on the plan in `frozen`."""
    return TrainingTask(config=config, frozen=frozen, out=out, model="tests.toy_model:make")
