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
OF_A_CELL = ("agent killed", "agent's disk full", "clock two hours off")
OF_A_SERVICE = ("service killed", "service frozen")
OF_LINKS = ("links cut", "links silent", "site away")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One fault. where: number of the cell, of the policy service, or of the half of the fleet whose links it is; -1 for the controller."""

    at_s: float
    kind: str
    where: int
    lasts_s: float


def drawn(seed: int, seconds: float, cells: int, every_s: float, *, services: int | None = None) -> Sequence[Trouble]:
    """Each kind once in a random order, then any of them, until `seconds`; on average one each `every_s` where each cell has a policy
    service of its own.

    services: that the cells share, None for such of their own. A process is killed and frozen as often either way, so fewer of them have
    fewer such faults, each of which is that of all cells on it; the other kinds come as often as they do.
    """
    rng, services = np.random.default_rng(seed), services or cells
    kinds, weights = list(KINDS), np.array([often for often, _, _ in KINDS.values()], dtype=float)
    whole = weights.sum()
    weights[[kind in OF_A_SERVICE for kind in kinds]] *= services / cells
    every_s *= whole / weights.sum()
    first = list(rng.permutation(kinds))
    found: list[Trouble] = []
    at_s = 0.0
    while (at_s := at_s + float(rng.uniform(0.3, 1.7)) * every_s) < seconds:
        kind = str(first.pop()) if first else str(rng.choice(kinds, p=weights / weights.sum()))
        _, shortest_s, longest_s = KINDS[kind]
        many = next((count for of, count in ((OF_A_CELL, cells), (OF_A_SERVICE, services), (OF_LINKS, 2)) if kind in of), 0)
        where = int(rng.integers(many)) if many else -1
        found.append(Trouble(at_s=at_s, kind=kind, where=where, lasts_s=float(rng.uniform(shortest_s, longest_s))))
    return found
