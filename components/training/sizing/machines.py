"""The accelerators that a plan is made for: how much memory a process can use, and what they multiply."""

from __future__ import annotations

from dataclasses import dataclass

from components.config.checks import one_of

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One kind of GPU. memory_bytes: what the device offers to processes. bf16_flops: dense matrix products a second, data sheet."""

    name: str
    memory_bytes: int
    bf16_flops: float


ACCELERATORS = {
    one.name: one
    for one in (
        Accelerator(name="a100", memory_bytes=int(79.1 * GIB), bf16_flops=312e12),
        Accelerator(name="h100", memory_bytes=int(79.1 * GIB), bf16_flops=989e12),
        Accelerator(name="h200", memory_bytes=int(139.8 * GIB), bf16_flops=989e12),
    )
}


def accelerator(name: str) -> Accelerator:
    """The accelerator of this name. Raises `SpecError` for one that is not known."""
    one_of("gpu", name, tuple(ACCELERATORS))
    return ACCELERATORS[name]
