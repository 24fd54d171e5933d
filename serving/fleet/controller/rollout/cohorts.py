"""Which cells run the new version in a stage: by a hash of rollout and name, so that any controller chooses the same, and stable: a cell
that was chosen stays chosen, and one that joins the fleet moves no other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_core.spec.fleet.rollout_plan import Stage, carries


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """What a rollout has to know of a cell, as the cell last reported it. running: digest of the release that answers its episodes.
    refused: why the cell does not take the new release, "" where nothing is wrong. is_offered: whether its site's update metadata list the
    new release. seen_at_s: by the controller's clock."""

    name: str
    site: str = ""
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    running: str = ""
    refused: str = ""
    is_offered: bool = True
    seen_at_s: float = 0.0


def members_of(stage: Stage, cells: Sequence[CellView], former: Sequence[str], salt: str) -> tuple[str, ...]:
    """The cells of a stage, by name: those of the stage before, and further ones in the order of their hash. salt: of this rollout.

    At least one cell, and `hold_out` of all, stay on the old version, unless there is only one.
    """
    there = {cell.name: cell for cell in cells}
    kept = [name for name in former if name in there]
    if stage.labels:
        return tuple(sorted({*kept, *(cell.name for cell in cells if carries(cell.labels, stage.labels))}))
    wanted = stage.cells if stage.cells is not None else math.ceil((stage.share or 0.0) * len(cells) - 1e-9)
    held = max(1, math.ceil(stage.hold_out * len(cells) - 1e-9)) if len(cells) > 1 else 0
    missing = max(0, min(wanted, len(cells) - held) - len(kept))
    if not missing:
        return tuple(sorted(kept))
    further = sorted(there.keys() - set(kept), key=lambda name: _place(salt, name))
    return tuple(sorted({*kept, *further[:missing]}))


def _place(salt: str, name: str) -> bytes:
    return hashlib.sha256(f"{salt}/{name}".encode()).digest()
