"""The contracts of a checkpoint folder: one, or one for each embodiment that its network acts for. Needs no torch.

contract.json           of the only embodiment, or of the first of several
contracts/<name>.json   of each embodiment, where there are several
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, CheckpointError, SpecError

CONTRACT, CONTRACTS = "contract.json", "contracts"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_names(names: Iterable[str]) -> None:
    """Refuse embodiment names that cannot stand beside each other as names of files and metrics. Raises `SpecError`."""
    seen: dict[str, str] = {}
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise SpecError(
                f"embodiment {name!r}: one of several needs a name of letters, digits, '_', '.' and '-' that begins with a letter or digit "
                "(at most 100). Fix: change `name` in its file"
            )
        if (first := seen.setdefault(name.lower(), name)) is not name:
            raise SpecError(f"embodiments {first!r} and {name!r} differ in capital letters only. Fix: change `name` in one of their files")


def read_contracts(folder: Path) -> dict[str, PolicyContract]:
    """Embodiment -> its contract; the one of contract.json is the first. Raises `CheckpointError` for one that cannot be read."""
    first = _read(folder / CONTRACT)
    found = {first.embodiment.name: first}
    for path in sorted((folder / CONTRACTS).glob("*.json")):
        contract = _read(path)
        name = contract.embodiment.name
        if path.stem != name or found.setdefault(name, contract) != contract:
            raise CheckpointError(f"{path} is the contract of {name!r}, and not the one that the folder promises. Fix: fetch it again")
    return found


def contract_file(folder: Path, embodiment: str) -> Path:
    """Where the contract of `embodiment` lies: with others beside it in `contracts`, else as the folder's only one."""
    several = folder / CONTRACTS / f"{embodiment}.json"
    return several if several.is_file() else folder / CONTRACT


def chosen_contract(contracts: Mapping[str, PolicyContract], embodiment: str, where: object) -> PolicyContract:
    """The contract of `embodiment`; the only one where none is named.

    where: what holds them, for the message. Raises `CheckpointError` for an embodiment that is not there, and where one of several must
    be named.
    """
    known = ", ".join(contracts)
    if not embodiment and len(contracts) > 1:
        raise CheckpointError(
            f"{where} acts for {len(contracts)} embodiments ({known}); a policy serves one. Fix: name it, with package.embodiment in the "
            "recipe or --embodiment"
        )
    if embodiment and embodiment not in contracts:
        raise CheckpointError(f"{where} is not trained for embodiment {embodiment!r}; it acts for {known}. Fix: name one of these")
    return contracts[embodiment] if embodiment else next(iter(contracts.values()))


def _read(path: Path) -> PolicyContract:
    try:
        return PolicyContract.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ActwrightError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
