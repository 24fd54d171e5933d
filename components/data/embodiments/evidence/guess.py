"""What a draft says of one value: measured, with the numbers that it is founded on, or open, with a question to a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value that the data or their metadata give. evidence: from what, in numbers."""

    value: Any
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A value that they do not give. likely: None where nothing speaks for one."""

    question: str
    likely: Any = None
    evidence: str = ""


Guess: TypeAlias = Measured | Open


def fields_of(guesses: Mapping[str, Guess | None]) -> dict[str, Any]:
    """A mapping of the file: measured values as they are, their evidence beside them by name, open ones as questions. None is left out."""
    found: dict[str, Any] = {}
    evidence: dict[str, str] = {}
    for name, guess in guesses.items():
        if isinstance(guess, Open):
            found[name] = question_of(guess)
        elif guess is not None:
            found[name] = guess.value
            if guess.evidence:
                evidence[name] = guess.evidence
    return found | ({"evidence": evidence} if evidence else {})


def question_of(guess: Open) -> dict[str, Any]:
    """An open value as the file has it."""
    found: dict[str, Any] = {"confirm": guess.question}
    if guess.likely is not None:
        found["likely"] = guess.likely
    if guess.evidence:
        found["evidence"] = guess.evidence
    return found


def number(value: float) -> str:
    """A number for a person."""
    return f"{value:.4g}"
