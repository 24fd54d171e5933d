"""What goes wrong in a fleet, and when: drawn from a seed, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# kind -> how often beside the others, shortest and longest seconds that it lasts
KINDS: dict[str, tuple[float, float, float]] = {
    "agent killed": (4, 0.2, 6),
    "service killed": (4, 0, 0),
    "service frozen": (3, 0.5, 5),
    "controller killed": (2, 0.2, 10),
    "links cut": (3, 0, 0),
    "links silent": (2, 1, 15),
    "site away": (1, 20, 90),
    "agent's disk full": (2, 2, 20),
    "controller's disk full": (1, 2, 15),
    "clock two hours off": (2, 5, 60),
}
OF_A_CELL = ("agent killed", "service killed", "service frozen", "agent's disk full", "clock two hours off")
OF_LINKS = ("links cut", "links silent", "site away")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One fault. where: number of the cell, or of the half of the fleet whose links it is; -1 for the controller."""

    at_s: float
    kind: str
    where: int
    lasts_s: float


def drawn(seed: int, seconds: float, cells: int, every_s: float) -> Sequence[Trouble]:
    """Each kind once in a random order, then any of them, until `seconds`; on average one each `every_s`."""
    rng = np.random.default_rng(seed)
    kinds, weights = list(KINDS), np.array([often for often, _, _ in KINDS.values()])
    first = list(rng.permutation(kinds))
    found: list[Trouble] = []
    at_s = 0.0
    while (at_s := at_s + float(rng.uniform(0.3, 1.7)) * every_s) < seconds:
        kind = str(first.pop()) if first else str(rng.choice(kinds, p=weights / weights.sum()))
        _, shortest_s, longest_s = KINDS[kind]
        where = int(rng.integers(cells)) if kind in OF_A_CELL else int(rng.integers(2)) if kind in OF_LINKS else -1
        found.append(Trouble(at_s=at_s, kind=kind, where=where, lasts_s=float(rng.uniform(shortest_s, longest_s))))
    return found
