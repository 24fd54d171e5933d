"""The sharded network of a plan, really built: on meta tensors, in a process group that stands for all GPUs and sends nothing.

ZeRO stage 3 has the partition of FSDP2's `fully_shard` (each parameter cut along its first dimension, unit by unit), so that is applied to
the real modules, and what rank 0 would hold is counted tensor by tensor. Stages 0 to 2 hold whole weights; their gradients and optimiser
state are one flat row that is cut into equal pieces, which is computed from the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from components.training.sizing.plan import TrainingPlan
from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What was built. did: a sentence for a person. parameters: of the whole network, adapters included. held: of them, what rank 0 keeps
    of the weights; trained_held: of the trained ones, what it keeps of each moment of the optimiser. units: modules that are gathered one
    by one; largest_unit: parameters of the largest."""

    did: str
    parameters: int
    held: int
    trained_held: int
    units: int
    largest_unit: int


def dry_run(plan: TrainingPlan) -> DryRun:
    """Build the network of a plan on meta tensors and spread it as its ZeRO stage does. Raises `SpecError` inside a process group."""
    import torch

    from model_core.network.finetuning.lora import LoraSettings, add_lora
    from model_core.network.model import MolmoAct

    train = plan.train
    with torch.device("meta"):
        model = MolmoAct(plan.network.config)
        if train.lora_rank:
            add_lora(model, LoraSettings(rank=train.lora_rank, alpha=train.published.lora_alpha))
    parameters = sum(one.numel() for one in model.parameters())
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    if train.zero_stage == 3:
        with _stand_in_group(train.world_size):
            units = _shard(model, train.world_size)
            local = {name: one.to_local().numel() for name, one in model.named_parameters()}  # type: ignore[attr-defined]
            wanted = {name for name, one in model.named_parameters() if one.requires_grad}
        did = (
            f"built {parameters / 1e9:.3f} B parameters on meta tensors and spread them with FSDP2 fully_shard over a process group of "
            f"{train.world_size} that sends nothing: {len(units)} units, rank 0 holds {sum(local.values()):,} parameters"
        )
        held, trained_held = sum(local.values()), sum(size for name, size in local.items() if name in wanted)
        return DryRun(did=did, parameters=parameters, held=held, trained_held=trained_held, units=len(units), largest_unit=max(units))
    share = math.ceil(trained / train.world_size) if train.zero_stage else trained
    did = (
        f"built {parameters / 1e9:.3f} B parameters on meta tensors; ZeRO stage {train.zero_stage} keeps them whole on each GPU, and its "
        f"optimiser state is computed from the shapes: {share:,} of {trained:,} trained parameters on rank 0 (no group was made)"
    )
    return DryRun(did=did, parameters=parameters, held=parameters, trained_held=share, units=1, largest_unit=parameters)


def _shard(model: object, world: int) -> list[int]:
    """Spread every block, the tables and the head over `world` processes; the parameters of each unit, before it is cut."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from model_core.network.model import MolmoAct

    assert isinstance(model, MolmoAct)
    mesh = init_device_mesh("cpu", (world,))
    transformer, vision = model.model.transformer, model.model.vision_backbone
    units = [*transformer.blocks, *vision.image_vit.transformer["resblocks"], vision.image_projector, transformer.wte, model.lm_head]  # type: ignore[misc]
    sizes = [sum(one.numel() for one in unit.parameters()) for unit in units]
    rest = sum(one.numel() for one in model.parameters()) - sum(sizes)
    for unit in (*units, model):
        fully_shard(unit, mesh=mesh)
    return [*sizes, rest]


@contextmanager
def _stand_in_group(world: int) -> Iterator[None]:
    """A process group of `world` ranks of which this process is the first; its collectives do nothing."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise SpecError(
            "a dry run makes a process group of its own, and this process is in one already. Fix: run it in a process of its own"
        )
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
