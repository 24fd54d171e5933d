"""What integration tests share: an undisturbed run of the smallest loop, and the process whose forks run single commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fork_server import ForkServer
from tests.integration.loop_runs import RUN, Home, kill_tree
from tests.training_rank import rank_server

LOOP = ("flows.commands.main", "flows.commands.runs.commands", "flows.platform.wiring", "torch", "mlflow", "great_expectations")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which the smallest loop ran to its end: one command, in a fork of a process that has loaded what it needs."""
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    home.prepare()
    with ForkServer(imported=LOOP) as server:
        done = server.run(*RUN, under=home.root, **home.settings)
    assert done.code == 0, done.told[-4000:]
    yield home
    for left in home.processes():
        kill_tree(left.pid)


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Runs commands in forked children; started once for all tests of the group "forked"."""
    with ForkServer() as running:
        yield running


@pytest.fixture(scope="session")
def ranks() -> Iterator[ForkServer]:
    """Runs ranks of trainings, and commands, in forks of a process that has loaded torch, DeepSpeed and MLflow; for the group "ranks"."""
    with rank_server() as running:
        yield running
