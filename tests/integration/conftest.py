"""What integration tests share: an undisturbed run of the smallest loop, and the process whose forks run single commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fork_server import ForkServer
from tests.integration.loop_runs import RUN, Home, kill_tree
from tests.training_rank import rank_server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which the smallest loop ran to its end."""
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    done = home.actwright(*RUN, timeout_s=600)
    assert done.returncode == 0, done.stderr[-4000:]
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
