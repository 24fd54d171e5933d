"""Checks for what a person configured. Nothing is coerced: 2.7 is no whole number, "4" and true are no numbers at all.

Every failure is a `SpecError` that names the field, what was expected and what was got.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.narrowing import is_mapping


def whole(name: str, value: object, *, low: int = 0, high: int = 2**31) -> int:
    """`value` as a whole number low..high; a float, a text or a boolean is refused."""
    if type(value) is not int or not low <= value <= high:
        raise SpecError(f"{name}: expected a whole number {low}..{high}, got {_shown(value)}")
    return value


def real(name: str, value: object, *, low: float = 0.0, high: float = 1e9, above: float | None = None) -> float:
    """`value` as a finite number low..high (and greater than `above`); NaN, inf, texts and booleans are refused."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.inf  # a long integer does not fit a float
        if math.isfinite(number) and low <= number <= high and (above is None or number > above):
            return number
    bound = f"{low:g}..{high:g}" if above is None else f"above {above:g}, at most {high:g}"
    raise SpecError(f"{name}: expected a finite number {bound}, got {_shown(value)}")


def text(name: str, value: object, *, longest: int = 4096) -> str:
    """`value` as a text that is not empty."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise SpecError(f"{name}: expected a text of 1..{longest} characters, got {_shown(value)}")
    return value


def digest(name: str, value: object) -> str:
    """`value` as a SHA-256 in lower-case hex."""
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise SpecError(f"{name}: expected a whole digest, 64 lower-case hex digits, got {_shown(value)}")
    return value


def known_keys(name: str, document: object, allowed: Iterable[str]) -> Mapping[str, Any]:
    """`document` as a mapping with none but the `allowed` keys."""
    names = sorted(allowed)
    if not is_mapping(document):
        raise SpecError(f"{name}: expected a map of {', '.join(names)}, got {_shown(document)}")
    unknown = sorted(str(key) for key in document if key not in names)
    if unknown:
        raise SpecError(f"{name}: there is no setting {unknown[0]!r}; there are {', '.join(names)}")
    return document


def _shown(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})"
