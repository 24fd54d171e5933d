"""What changes once within a set and stays so: the robot, or what records it, was changed between two sessions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

LEAST = 3  # episodes on either side of a change: less may be like each other by chance


def steady_change(values: Sequence[object]) -> int | None:
    """The place from which on a value is another one, where it is one value in all episodes before and one in all from there on."""
    places = [place + 1 for place, (one, other) in enumerate(pairwise(values)) if one != other]
    return places[0] if len(places) == 1 and LEAST <= places[0] <= len(values) - LEAST else None
