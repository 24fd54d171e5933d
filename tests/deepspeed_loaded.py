"""Loads DeepSpeed in the way of a rank, and torch's compiler, which its first optimiser loads: for a process whose forks are ranks."""

from __future__ import annotations

import torch._dynamo as compiler

from components.training.deepspeed_engine import _deepspeed

__all__ = ["compiler", "deepspeed"]

deepspeed = _deepspeed()
