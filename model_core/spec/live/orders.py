"""What a person orders a running cell to do: one small file each, taken by the cell once and answered in its view.

trace    follow a drawn path, 1 to 5 points          clear    follow it no longer
edit     continue from an edited depth or trace       instruct another sentence
hold     stay where it is                             go       a person's hold is over
stop     SAFE_STOP                                    resume   a person ends a SAFE_STOP
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from model_core.spec.errors import SpecError, require
from model_core.spec.settings import text

ORDERS = "orders"  # the folder, beside the view
MAX_ORDER_BYTES = 16_384
TOO_OLD_S = 3.0  # an order that waited longer was given for another situation
Kind = Literal["trace", "clear", "edit", "instruct", "hold", "go", "stop", "resume"]
_ID = re.compile(r"^[0-9a-f]{8,64}$")
_MOST_POINTS, _MOST_CODES, _LONGEST_SENTENCE = 5, 400, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. author: the person. given_at: seconds since 1970. camera, points: a drawn path in pixels of that camera ("": the one on
    which the policy takes traces); ttl_ms: how long it may steer. trace: an edited trace in 0..trace_range; depth: edited codes.
    sentence: the instruction, or why. Raises SpecError for what no cell could carry out.
    """

    order_id: str
    kind: Kind
    author: str
    given_at: float
    camera: str = ""
    points: tuple[tuple[float, float], ...] = ()
    ttl_ms: float = 60_000.0
    trace: tuple[tuple[int, int], ...] = ()
    depth: tuple[int, ...] = ()
    sentence: str = ""

    def __post_init__(self) -> None:
        require(bool(_ID.match(self.order_id)), "order_id: expected 8..64 hex digits", got=self.order_id[:80])
        text("author", self.author, longest=100)
        require(math.isfinite(self.given_at), "given_at: expected seconds since 1970", got=self.given_at)
        if self.kind == "trace":
            _check_points("points", self.points)
            require(0 < self.ttl_ms <= 3_600_000, "ttl_ms: expected above 0 and at most an hour", got=self.ttl_ms)
        if self.kind == "edit":
            require(bool(self.trace or self.depth), "edit: expected a trace, depth codes or both")
            if self.trace:
                _check_points("trace", self.trace)
            require(len(self.depth) <= _MOST_CODES, f"depth: at most {_MOST_CODES} codes", got=len(self.depth))
        if self.kind in ("instruct", "stop"):
            text("sentence", self.sentence, longest=_LONGEST_SENTENCE)
        elif len(self.sentence) > _LONGEST_SENTENCE:
            raise SpecError(f"sentence: at most {_LONGEST_SENTENCE} characters, got {len(self.sentence)}")


def _check_points(name: str, points: tuple[tuple[float, float], ...]) -> None:
    require(1 <= len(points) <= _MOST_POINTS, f"{name}: expected 1 to {_MOST_POINTS} points", got=len(points))
    require(all(math.isfinite(value) for point in points for value in point), f"{name}: expected finite numbers", got=points)
