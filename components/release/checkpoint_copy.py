"""What is packed of a checkpoint: all of an ordinary one, one part of one for several embodiments, what is read of an adopted one."""

from __future__ import annotations

import shutil
from pathlib import Path

from model_core.adoption.document import is_adopted
from model_core.adoption.one_embodiment import copy_adopted
from model_core.contracts import chosen_contract, read_contracts


def copy_checkpoint(checkpoint: Path, embodiment: str, target: Path, frozen: Path | None) -> Path | None:
    """Copy what is packed of `checkpoint` to `target`; returns the frozen data set of the embodiment that is packed.

    Raises `CheckpointError` where one of several embodiments must be named, or is not there.
    """
    contracts = read_contracts(checkpoint)
    chosen = chosen_contract(contracts, embodiment, checkpoint)
    if is_adopted(checkpoint):
        copy_adopted(checkpoint, chosen.embodiment.name, target)
        return frozen if len(contracts) == 1 else _frozen_of(frozen, chosen.embodiment.name)
    if len(contracts) == 1:
        shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns("*.part", "*.tmp"))
        return frozen
    from model_core.checkpoint import write_part

    target.parent.mkdir(parents=True, exist_ok=True)
    write_part(checkpoint, chosen.embodiment.name, target)
    return _frozen_of(frozen, chosen.embodiment.name)


def _frozen_of(frozen: Path | None, embodiment: str) -> Path | None:
    from components.data.frozen_members import open_frozen

    return None if frozen is None else open_frozen(frozen).folder_of(embodiment)
