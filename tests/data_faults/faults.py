"""The injected faults whose rule is known: what is done, to which kinds of sets, which rules may name it, and who reported one like it.

A fault either changes the set before it is written (films, rows and statistics then belong together, as a recorder leaves them), or
damages the folder (as a crash, a tool or a person would).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.data_faults.made_set import MadeSet

Change = Callable[[MadeSet, np.random.Generator], MadeSet]
Damage = Callable[[Path, np.random.Generator], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """One fault. expected: the rules of which one must name it. report: the public report that it follows, "" for none.

    kinds: of the clean sets that can have it. Exactly one of change and damage is given.
    """

    name: str
    family: str
    expected: tuple[str, ...]
    kinds: tuple[str, ...]
    report: str = ""
    change: Change | None = None
    damage: Damage | None = None


FAULTS: dict[str, InjectedFault] = {}
ALL = ("delta_arm", "leader_follower", "bimanual", "with_outcome", "ours")
PLAIN = ("delta_arm", "leader_follower", "bimanual", "with_outcome")
POSITION = ("leader_follower", "bimanual")


def changed(*expected: str, kinds: tuple[str, ...] = ("delta_arm", "leader_follower"), report: str = "") -> Callable[[Change], Change]:
    """Register the function below as a fault of the set before it is written; its family is its module's."""

    def register(change: Change) -> Change:
        _add(InjectedFault(name=change.__name__, family=_family(change), expected=expected, kinds=kinds, report=report, change=change))
        return change

    return register


def damaged(*expected: str, kinds: tuple[str, ...] = ("delta_arm", "leader_follower"), report: str = "") -> Callable[[Damage], Damage]:
    """Register the function below as a damage of the folder."""

    def register(damage: Damage) -> Damage:
        _add(InjectedFault(name=damage.__name__, family=_family(damage), expected=expected, kinds=kinds, report=report, damage=damage))
        return damage

    return register


def _family(function: Callable[..., object]) -> str:
    return function.__module__.rpartition("faults_of_")[2]


def _add(fault: InjectedFault) -> None:
    if fault.name in FAULTS:
        raise ValueError(f"two faults are named {fault.name}")
    FAULTS[fault.name] = fault


def all_faults() -> tuple[InjectedFault, ...]:
    """Every fault of every family."""
    from tests.data_faults import faults_of_meaning, faults_of_numbers, faults_of_pictures, faults_of_structure, faults_of_time

    _ = (faults_of_meaning, faults_of_numbers, faults_of_pictures, faults_of_structure, faults_of_time)
    return tuple(FAULTS.values())
