"""The files of an adopted folder as a folder of their own, of several embodiments those of one. Needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path

from model_core.adoption.document import ADOPTION, read_adoption
from model_core.contracts import CONTRACT, chosen_contract, contract_file, read_contracts
from model_core.spec.files import atomic_write


def copy_adopted(folder: Path, embodiment: str, target: Path) -> Path:
    """Write what serving `embodiment` reads of `folder` into `target`; "" where the folder is adopted for one. Returns `target`.

    Code and pickles of a release stay behind. Weights, being large, are linked where the disk allows it. Raises `CheckpointError` where one
    of several must be named, or is not there.
    """
    name = chosen_contract(read_contracts(folder), embodiment, folder).embodiment.name
    adoption = read_adoption(folder)
    chosen = adoption.of(name)
    for file in chosen.names:
        place = target / file
        place.parent.mkdir(parents=True, exist_ok=True)
        if file in chosen.weights:
            try:
                place.hardlink_to((folder / file).resolve())  # a hub folder holds links
                continue
            except OSError:  # another disk, or one without links
                pass
        shutil.copyfile(folder / file, place)
    if adoption.embodiments:
        atomic_write(target / CONTRACT, contract_file(folder, name).read_bytes())
        atomic_write(target / ADOPTION, chosen.to_text())
    return target
