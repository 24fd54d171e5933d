"""Everything at once, at random, seeded: every kind of fault in one run, minutes of virtual time, all invariants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.fault_injection.catalog import BYTES, MEANING
from serving.fault_injection.script import Latency, Rule, Script
from serving.workcell.motion.motion_state import MotionSettings
from tests.fakes import make_embodiment
from tests.faults.world import World, absolute_body

DELIVERED = ("drop", "delay", "duplicate", "reorder", "replay", "reject", "half-open", "close")
LASTING = {"version", "contract"}  # would end the episode


@pytest.mark.parametrize(
    ("seed", "strategy"),
    [
        (1, "async"),
        # short: the one above, which shares the decisions of the others except for how chunks are joined
        *(pytest.param(1, strategy, marks=pytest.mark.soak) for strategy in ("sync", "prefix", "blend")),
        *(pytest.param(2, strategy, marks=pytest.mark.soak) for strategy in ("async", "prefix", "blend", "sync")),
    ],
)
def test_random_trouble_breaks_no_invariant(tmp_path: Path, seed: int, strategy: str) -> None:
    rng = np.random.default_rng(seed)
    names = [*DELIVERED, *BYTES, *(name for name in MEANING if name not in LASTING)]
    rules = tuple(Rule(fault=name, chance=0.004, ms=600.0, text="OVERLOAD") for name in names)
    script = Script(seed=seed, latency=Latency(kind="bimodal", ms=20, to_ms=250, share=0.1, jitter_ms=30), faults=rules)
    world = World(
        tmp_path,
        script,
        body=absolute_body() if seed % 2 else make_embodiment(),
        strategy=strategy,
        motion=MotionSettings(safe_stop_after_s=1e6),
        operator=lambda: "anna",
        operator_wait_s=1e6,
        link_options={"max_backoff_s": 0.5, "connect_timeout_s": 1.0},
    )
    for at_s in np.cumsum(rng.uniform(4, 9, 7)):
        deed = rng.integers(5)
        if deed == 0:
            world.at(at_s, world.kill_service)
            world.at(at_s + 1.5, world.revive_service)
        elif deed == 1:
            world.at(at_s, world.half_open)
            world.at(at_s + 2.0, world.heal)
        elif deed == 2:
            world.at(at_s, lambda: world.freeze_service(1.0))
        elif deed == 3:
            world.at(at_s, lambda: world.clock.sleep(0.4))
        else:
            world.at(at_s, lambda: world.driver.ages.update({"front": 700.0}))
            world.at(at_s + 1.0, world.driver.ages.clear)
    world.run(55)
    assert world.breaches() == []
    assert world.driver.breaches == []
    assert world.moving() > 100
