"""What holds for every test."""

from __future__ import annotations

import gc
import logging
import os
import signal

import hypothesis
import pytest

# A property holds or not; how long one example takes is a matter of the machine (200 ms by default). Examples are the same in each run.
hypothesis.settings.register_profile("same examples", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same examples")

# A shell starts what it puts into the background with SIGINT ignored, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads of torch sleep while they wait for each other, as in our own processes (`flows.platform.settings`): those that spin
# keep the awaited one off its core. Read when torch is loaded; 150 small steps on two busy cores: 10.8 s of processor time, so 1.2 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Great Expectations reads it when it is loaded, which is before a command of ours says the same (`flows.platform.settings`).
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

# What is loaded and compiled for a whole run are millions of objects that stay: with the usual thresholds the collector looks them through
# again and again meanwhile (collecting the tests of a fresh clone took 38 s of processor time, and takes 22).
gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """What a module leaves for good (libraries, parsed sources) is looked through by no later collection of garbage: that took most of the
    time of some tests, one collection of a worker's millions of objects a second and more."""
    try:
        return (yield)
    finally:
        if (nextitem is None or nextitem.path != item.path) and len(gc.get_objects()) > 200_000:
            gc.collect()
            gc.freeze()


@pytest.fixture(autouse=True)
def _loggers_as_before():
    """A command that runs in the test's process takes our log lines for its own stderr; the next test reads them with `caplog`."""
    rooms = [logging.getLogger(room) for room in ("components", "flows", "model_core", "serving")]
    before = [(room.handlers, room.propagate, room.level) for room in rooms]
    yield
    for room, (handlers, propagate, level) in zip(rooms, before, strict=True):
        room.handlers, room.propagate = handlers, propagate
        room.setLevel(level)


@pytest.fixture(autouse=True)
def _ordinary_process():
    """A test that leaves its process a real-time one (as an AV1 encoder does) would make every other process wait."""
    yield
    if hasattr(os, "sched_getscheduler"):
        policy = os.sched_getscheduler(0)
        if policy != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        assert policy == os.SCHED_OTHER, f"this test left its process with scheduling policy {policy}"
