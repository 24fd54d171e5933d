"""Weights of one checkpoint in a network for several embodiments: each embodiment that the checkpoint knows takes its own rows along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components.config.train_config import start_folder
from components.training.start.carried_rows import slot_sources, taken
from components.training.start.comparison import check_contract
from model_core.contracts import read_contracts
from model_core.network.int8.stored import refuse_int8
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError
from model_core.tokenization.compact.vocabulary import id_sources

if TYPE_CHECKING:
    from torch import Tensor

    from model_core.embodiments import JointLayout
    from model_core.network.config import MolmoActConfig


def weights_of_joint_start(
    init_from: str,
    contracts: Sequence[PolicyContract],
    joint: JointLayout,
    config: MolmoActConfig,
    fresh: Mapping[str, Tensor],
    *,
    only_adapters: bool,
) -> dict[str, Tensor]:
    """The state of the network of `joint` that goes on from the checkpoint in `init_from`, of one embodiment or of several.

    What embodiments share is taken from it; rows of slots, words and image positions that it does not have keep their `fresh` values.
    Raises `CheckpointError` for a checkpoint of other embodiments or another network, and for fresh rows where only adapters are trained.
    """
    import torch

    from model_core.checkpoint import load_checkpoint
    from model_core.embodiments import EMBEDDING, HEAD, MARKS, POSITIONS, SLOTS

    folder = start_folder(init_from)
    known = [contract for contract in contracts if contract.embodiment.name in read_contracts(folder)]
    _check(folder, known, contracts, only_adapters=only_adapters)
    state = {name: value.detach().clone() for name, value in fresh.items()}
    base, found_words = len(state[EMBEDDING]), set[str]()
    table = torch.cat([state[EMBEDDING], state[MARKS]])
    for contract in known:
        name = contract.embodiment.name
        start = load_checkpoint(folder, embodiment=name)
        refuse_int8(start.model.config.extras, f"train.init_from {folder}", "trained")
        check_contract(folder, start.contract, contract)
        before, layout = start.model.state_dict(), joint.layouts[name]
        found_words |= set(start.layout.vocabulary.words)
        for part in before.keys() - {EMBEDDING, MARKS, HEAD, SLOTS, POSITIONS}:
            if part not in state or state[part].shape != before[part].shape:
                raise CheckpointError(
                    f"train.init_from {folder}: weights of another network: {part}. Fix: set train.network as it was there"
                )
            state[part] = before[part]
        ids_V, rows = id_sources(start.layout.vocabulary, joint.vocabulary), slot_sources(start.layout, layout)
        table = taken(table, torch.cat([before[EMBEDDING], before[MARKS]]), ids_V)
        state[HEAD] = taken(state[HEAD], before[HEAD], ids_V[: len(state[HEAD])])
        mine = torch.from_numpy(joint.slot_rows[name])
        state[SLOTS][mine] = taken(state[SLOTS][mine], before[SLOTS], rows)
        state[POSITIONS][config.vit.position_rows(*start.model.config.vit.image_default_input_size)] = before[POSITIONS]
    if only_adapters and (new := sorted(set(joint.vocabulary.words) - found_words)):
        raise CheckpointError(
            f"train.init_from {folder} does not know the words {new}, and train.lora_rank trains no rows of words. Fix: set lora_rank 0"
        )
    return state | {EMBEDDING: table[:base], MARKS: table[base:]}


def _check(folder: object, known: Sequence[PolicyContract], contracts: Sequence[PolicyContract], *, only_adapters: bool) -> None:
    names = [contract.embodiment.name for contract in contracts]
    if not known:
        raise CheckpointError(
            f"train.init_from {folder} knows none of the embodiments {', '.join(names)}. Fix: name a checkpoint that was trained for one "
            "of them, or train without train.init_from"
        )
    missing = [name for name in names if name not in {contract.embodiment.name for contract in known}]
    if missing and only_adapters:
        raise CheckpointError(
            f"train.init_from {folder} does not know the embodiment {missing[0]!r}, and train.lora_rank trains none of its rows: they "
            "would stay random. Fix: set lora_rank 0"
        )
