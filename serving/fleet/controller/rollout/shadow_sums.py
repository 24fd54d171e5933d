"""What cells found of a candidate in shadow, summed over tasks, cells and starts of their policy services. Pure.

A service counts from 0 when it is started again, so what it had told until then is kept and added to what it tells from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from model_core.spec.fleet.documents import ShadowComparison
from model_core.spec.fleet.rollout_plan import REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSum:
    """compared: decisions of both. asked: observations that the running release answered; refused: of these, by the candidate. distances:
    measure -> mean over what was compared."""

    compared: int = 0
    asked: int = 0
    refused: int = 0
    distances: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """Of one cell and task. before: of the services that ended. last: what the present one told last."""

    before: ShadowSum = field(default_factory=ShadowSum)
    last: ShadowSum = field(default_factory=ShadowSum)

    def told(self, found: ShadowComparison) -> Shadowed:
        """After a further report."""
        now = ShadowSum(compared=found.count, asked=found.asked, refused=found.refused, distances=found.distances)
        started_again = now.compared < self.last.compared or now.asked < self.last.asked
        return Shadowed(before=total([self.before, self.last]), last=now) if started_again else replace(self, last=now)


def total(sums: Iterable[ShadowSum]) -> ShadowSum:
    """All together; a mean by the decisions behind it, the share of refusals by the observations."""
    parts = list(sums)
    weights: dict[str, tuple[float, float]] = {}
    for one in parts:
        for name, mean in one.distances.items():
            weight = one.asked or one.compared if name == REFUSED else one.compared
            so_far, count = weights.get(name, (0.0, 0.0))
            weights[name] = (so_far + weight * mean, count + weight)
    return ShadowSum(
        compared=sum(one.compared for one in parts),
        asked=sum(one.asked for one in parts),
        refused=sum(one.refused for one in parts),
        distances={name: summed / count for name, (summed, count) in weights.items() if count},
    )
