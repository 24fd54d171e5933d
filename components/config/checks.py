"""Checks that several sections of a recipe share: each error says what to use instead."""

from __future__ import annotations

import difflib

from model_core.spec.errors import SpecError, require


def positive(config: object, *names: str) -> None:
    """Raise `SpecError` unless every named field is above 0."""
    for name in names:
        require(getattr(config, name) > 0, f"{type(config).__name__}.{name} must be above 0", got=getattr(config, name))


def one_of(where: str, got: str, known: tuple[str, ...]) -> None:
    """Raise `SpecError`, with the nearest known name, unless `got` is one of `known`."""
    if got not in known:
        near = difflib.get_close_matches(got, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"set {where} to one of them"
        raise SpecError(f"{where}: expected one of {', '.join(known)}, got {got!r}; {hint}")


def fraction(config: object, *names: str) -> None:
    """Raise `SpecError` unless every named field lies in 0..1."""
    for name in names:
        require(0 <= getattr(config, name) <= 1, f"{type(config).__name__}.{name} must be 0..1", got=getattr(config, name))
