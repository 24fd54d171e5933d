"""Networks to int8 weights and back to float ones: which weights are rounded, and the float network that an int8 one equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from model_core.network.config import MolmoActConfig
from model_core.network.int8.linear import Int8Linear, rounded
from model_core.network.int8.stored import INT8, KEY, SCALE
from model_core.network.model import MolmoAct


def int8_config(config: MolmoActConfig) -> MolmoActConfig:
    """The same network with int8 weights."""
    return replace(config, extras={**config.extras, KEY: dict(INT8)})


def linear_weights(config: MolmoActConfig) -> frozenset[str]:
    """Keys of the weights of all linear layers of a float network; it is built on the meta device, so this costs no memory."""
    with torch.device("meta"):
        model = MolmoAct(config)
    return frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear))


def scale_key(weight: str) -> str:
    """The key of the scales of a weight."""
    return weight.removesuffix("weight") + SCALE


def int8_state(state: Mapping[str, Tensor], config: MolmoActConfig) -> dict[str, Tensor]:
    """The weights of a float network as those of its int8 one. Raises `CheckpointError` for weights that are not finite."""
    linear = linear_weights(config)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in linear:
            found[name], found[scale_key(name)] = rounded(value, name)
        else:
            found[name] = value
    return found


@torch.no_grad()
def float_network(model: MolmoAct) -> MolmoAct:
    """A float32 network whose weights are q * scale, for programs that read weights; `model` itself where it has no int8 weights.

    It computes what the int8 network does, up to rounding: there the scale is applied to the sum.
    """
    if KEY not in model.config.extras:
        return model
    extras = {name: value for name, value in model.config.extras.items() if name != KEY}
    plain = MolmoAct(replace(model.config, extras=extras))
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(SCALE)}
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            state[f"{name}.weight"] = module.weight.float() * module.weight_scale[:, None]
    plain.load_state_dict(state)
    return plain.train(model.training)
