"""How a faulty link behaves, and the actions that change it while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.spec.errors import SpecError

ACTIONS = ("half-open", "heal", "cut", "refuse", "kill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the link is now. rate_kbps: 0 is unlimited. loss: chance that a segment (16 KiB) stalls for stall_ms.

    flip: chance that a segment has one bit flipped. direction: "both", "up" (to the server) or "down" is affected.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_kbps: float = 0.0
    loss: float = 0.0
    stall_ms: float = 200.0
    flip: float = 0.0
    direction: str = "both"

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("latency_ms", "jitter_ms", "rate_kbps", "stall_ms")}
        wrong = next((name for name, value in numbers.items() if not 0 <= value < 1e9), None)
        if wrong:
            raise SpecError(f"{wrong} must be 0..1e9, got {numbers[wrong]}")
        for name in ("loss", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} is a chance, 0..1, got {getattr(self, name)}")
        if self.direction not in {"both", "up", "down"}:
            raise SpecError(f"direction is both, up or down, got {self.direction!r}")

    def affects(self, direction: str) -> bool:
        """Whether bytes in this direction ("up" or "down") meet these conditions."""
        return self.direction in {"both", direction}

    def transfer_s(self, count: int, direction: str) -> float:
        """How long `count` bytes occupy the link."""
        return 0.0 if self.rate_kbps <= 0 or not self.affects(direction) else 8e-3 * count / self.rate_kbps


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAction:
    """What happens to the link `at_s` seconds after the proxy began."""

    at_s: float
    action: str

    def __post_init__(self) -> None:
        if self.action not in ACTIONS or not 0 <= self.at_s < 1e9:
            raise SpecError(f"an action is one of {', '.join(ACTIONS)} at 0 or more seconds, got {self.action!r} at {self.at_s}")
