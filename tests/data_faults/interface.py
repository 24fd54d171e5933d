"""How a fault is injected, and where faults are found whose authors have not seen the rules of the inspection.

Write one fault per module `tests/data_faults/blind_<name>.py`:

    # the module's own docstring: one sentence, the fault, and who reported one like it (repository#number), if anybody did
    def inject(folder: Path, seed: int) -> str:
        ...

`folder` is a sound LeRobot v3.0 data set (a copy that belongs to the fault; see `clean_sets.py` for the five kinds), which `inject` damages
in place as a recorder, a converter or a person would: it returns one sentence that says what was damaged and where. The same seed gives the
same damage. A fault that a set cannot have (no second camera, one episode only) raises `NotApplicable` and leaves the folder as it was.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Inject = Callable[[Path, int], str]


class NotApplicable(Exception):
    """This set cannot have this fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindFault:
    """One fault of an author who has not seen the rules. name: of its module, without the prefix. meaning: its first line."""

    name: str
    meaning: str
    inject: Inject


def blind_faults(folder: Path = Path(__file__).parent) -> tuple[BlindFault, ...]:
    """Every fault of `blind_*.py`, by name. Raises `AttributeError` for a module without `inject`."""
    names = sorted(path.stem for path in folder.glob("blind_*.py"))
    modules = {name: importlib.import_module(f"tests.data_faults.{name}") for name in names}
    return tuple(
        BlindFault(name=name.removeprefix("blind_"), meaning=(module.__doc__ or "").strip().split("\n")[0], inject=module.inject)
        for name, module in modules.items()
    )
