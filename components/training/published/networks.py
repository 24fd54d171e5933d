"""The network that a training of the published layout begins with: read from its folder, or small with fresh weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.config.published.networks import PRESETS
from components.config.train_config import TrainConfig
from components.training.published.shapes import NetworkShape, network_shape
from model_core.network.checkpoints.hub import load_pretrained, resolve
from model_core.network.int8.stored import refuse_int8
from model_core.port.published import LEVELS
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, require

if TYPE_CHECKING:
    from model_core.network.model import MolmoAct


def open_network(train: TrainConfig) -> tuple[NetworkShape, MolmoAct]:
    """The shape that `train.network` names and its weights in float32. Raises `CheckpointError` where weights are needed and not here."""
    import torch

    shape = network_shape(train, fetch=True)
    refuse_int8(shape.config.extras, f"train.network {shape.folder}", "trained")
    folder = shape.folder if shape.folder is not None else _folder_of_preset(shape, train)
    if folder is not None:
        model = load_pretrained(folder, dtype=torch.float32)
        return replace(shape, folder=folder, config=model.config), model.train()
    return shape, fresh_network(shape, train.seed)


def fresh_network(shape: NetworkShape, seed: int) -> MolmoAct:
    """A network of this shape with random weights; the head begins near zero, so that all ids are about equally likely."""
    import torch

    from model_core.network.model import MolmoAct

    model = MolmoAct(shape.config)
    model.init_weights(seed, std=0.1)
    with torch.no_grad():
        torch.nn.init.normal_(model.lm_head.weight, std=0.02, generator=torch.Generator().manual_seed(seed + 1))
    return model


def published_contract(contract: PolicyContract, shape: NetworkShape) -> PolicyContract:
    """The contract of the data for a policy that reads and writes published sentences: its instructions are free text, its answers whole.

    Raises `SpecError` where the depth codes of the data are more than the network has ids for.
    """
    special = shape.tokenizer.special
    codes = contract.reasoning.depth_codes
    require(
        codes <= special.num_depth, f"the network has ids for {special.num_depth} depth codes, the data set was made with more", got=codes
    )
    return replace(contract, words=(), reasoning=replace(contract.reasoning, spelling="published", levels=LEVELS))


def _folder_of_preset(shape: NetworkShape, train: TrainConfig) -> Path | None:
    """Where the weights of a preset lie on this machine; None for one that begins with random weights."""
    hub_id = PRESETS[shape.preset]
    if not hub_id:
        return None
    try:
        return resolve(hub_id, revision=train.published.revision or None, fetch=False)
    except CheckpointError as error:
        raise CheckpointError(
            f"train.network {shape.preset!r} names the shapes of {hub_id}, and no weights of it are on this machine. Fix: download a "
            "checkpoint in the published layout and name its folder: --set train.network=FOLDER"
        ) from error
