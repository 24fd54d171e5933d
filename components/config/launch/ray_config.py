"""Where labelling runs on a Ray cluster, and how much of it: a section of a recipe that changes no label."""

from __future__ import annotations

import re
from dataclasses import dataclass

from components.config.checks import positive
from model_core.spec.errors import require

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """Which cluster, and how work is cut.

    address: "local" (a Ray of our own on this machine, ended afterwards), "auto" (the cluster that this machine belongs to) or HOST:PORT.
    actors: processes that each open the annotator, with gpus_per_actor GPUs each; images are decoded by other processes, on the CPUs that
    are left. block_rows, block_mib: frames that are decoded, labelled and written together, at most; what is written is not done again.
    batch_mib: images of one forward pass, at most (and at most annotate.batch_size). cpu_hour_cost, gpu_hour_cost: prices, for the cost
    that is printed (0: only hours are).
    """

    address: str = LOCAL
    actors: int = 1
    gpus_per_actor: float = 0.0
    block_rows: int = 256
    block_mib: int = 64
    batch_mib: int = 256
    cpu_hour_cost: float = 0.0
    gpu_hour_cost: float = 0.0

    def __post_init__(self) -> None:
        fits = self.address in (LOCAL, "auto") or re.fullmatch(r"[^\s/:]+:\d+", self.address) is not None
        require(
            fits, "annotate.ray.address: expected 'local', 'auto' or HOST:PORT (no ray://: its client has no Ray Data)", got=self.address
        )
        positive(self, "actors", "block_rows", "block_mib", "batch_mib")
        for name in ("gpus_per_actor", "cpu_hour_cost", "gpu_hour_cost"):
            require(getattr(self, name) >= 0, f"annotate.ray.{name} must not be below 0", got=getattr(self, name))

    def rows_per_block(self, row_bytes: int) -> int:
        """How many rows of `row_bytes` stand in a block."""
        return max(1, min(self.block_rows, self.block_mib * _MIB // max(row_bytes, 1)))

    def rows_per_batch(self, row_bytes: int, most: int) -> int:
        """How many rows of `row_bytes` a forward pass takes, at most `most`."""
        return max(1, min(most, self.batch_mib * _MIB // max(row_bytes, 1)))
