"""LIBERO's tasks, and fresh layouts of them. The benchmark's official initial states are for evaluation: nothing here reads them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from components.simulation.mujoco_renderer import import_mujoco
from model_core.spec.errors import SimulatorError

SUITES = {"libero_spatial": 220, "libero_object": 280}  # the suites that the expert can do, and the official horizon of each
TRIES = 100  # to draw a layout in which nothing overlaps


@cache
def libero_tasks() -> dict[str, tuple[int, Any]]:
    """Task -> the horizon of its suite, and LIBERO's description. Raises `SimulatorError` where LIBERO is not installed."""
    import_mujoco()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from libero.libero.benchmark import get_benchmark  # pyright: ignore[reportMissingImports]

            suites = {name: get_benchmark(name)() for name in SUITES}
    except ImportError as error:
        raise SimulatorError(f"LIBERO is not installed here ({error}). Fix: pip install 'actwright[libero]'") from error
    return {task.name: (SUITES[name], task) for name, suite in suites.items() for task in suite.tasks}


def open_environment(task: Any, sees: Mapping[str, Any]) -> Any:
    """The environment of a task that LIBERO describes. It never ends by itself: horizons are counted by who steps it.

    sees: its options of rendering.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        from libero.libero import get_libero_path  # pyright: ignore[reportMissingImports]
        from libero.libero.envs.env_wrapper import ControlEnv  # pyright: ignore[reportMissingImports]

        file = f"{get_libero_path('bddl_files')}/{task.problem_folder}/{task.bddl_file}"
        return ControlEnv(bddl_file_name=file, ignore_done=True, **sees)


def draw_layout(inner: Any, task: str, seed: int) -> None:
    """Reset the environment inside of `ControlEnv` (whose own reset swallows every exception) to the layout that follows from `seed`.

    Raises `SimulatorError` where no layout without overlaps is found.
    """
    from robosuite.utils.errors import RandomizationError  # pyright: ignore[reportMissingImports]

    with _numpy_seed(seed):
        for _ in range(TRIES):
            try:
                inner.reset()
            except RandomizationError:
                continue
            return
    raise SimulatorError(f"LIBERO found no layout of {task!r} without overlaps from seed {seed}. Fix: leave this seed out")


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """numpy's global generator, seeded for a while: the only one from which the environment draws."""
    kept = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept)
