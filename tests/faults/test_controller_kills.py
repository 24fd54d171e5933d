"""A controller that is killed before each of its writes, in reports, a rollout, its rollback and a kill: the next one goes on.

What cells and people had not been answered they send again, word for word; nothing is lost, counted twice, or proposed by halves.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event, text

from model_core.spec.fleet.documents import CellReport
from model_core.spec.fleet.order_log import first_problem
from model_core.spec.fleet.rollout_plan import RolloutPlan, Stage
from model_core.spec.fleet.signatures import opened, trusted
from serving.fleet.controller.store import fleet, kills, looks, operator_log
from serving.fleet.controller.store.database import Database
from serving.fleet.controller.store.operator_log import Actor
from serving.fleet.controller.store.releases import Offer, offer
from serving.fleet.controller.store.reports import Received, ingest
from serving.fleet.controller.store.rollouts import rollouts
from tests.scale.fleet_controller import assert_consistent
from tests.simulated_fleet import SimulatedCell

NEW, OLD = "a" * 64, "b" * 64
BO, START_S, ROUNDS = Actor(subject="bo", role="admin"), 1_000_000.0, 12
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
PLAN = RolloutPlan(name="to-a", release=NEW, stages=(Stage(name="one", cells=1, minimum_episodes=1_000),))


class Course:
    """Everything that is sent to a controller, the same each time: two cells, one of which runs the new release and fails."""

    def __init__(self, path: Path) -> None:
        self.database, self.known = Database(f"sqlite:///{path}"), fleet.KnownCells()
        self.cells = [SimulatedCell(name=f"cell-{n}", running=OLD, key=key, rates={OLD: 1.0}) for n, key in enumerate(KEYS)]

    def run(self) -> None:
        do, rng = self.database.transaction, np.random.default_rng(0)
        for cell in self.cells:
            do(lambda db, cell=cell: fleet.enrol(db, cell.name, "lab", "PEM", BO, START_S))
            self.report(cell, START_S)
        do(lambda db: offer(db, Offer(digest=NEW, model_version="pick/2", allowed_by="the gate"), BO, START_S))
        if not do(rollouts):
            do(lambda db: looks.start(db, PLAN, BO, START_S, baseline=OLD, known=looks.Known(cells=self.known)))
        chosen = do(rollouts)[0].state.members
        for number in range(1, ROUNDS + 1):
            now_s = START_S + 60.0 * number
            for cell in self.cells:
                cell.running = NEW if cell.name in chosen else OLD
                cell.episode(now_s, rng)
                self.report(cell, now_s)
            do(lambda db, now_s=now_s: looks.look(db, 1, looks.Known(cells=self.known), now_s))
        if not do(kills.kills):
            do(lambda db: kills.add_kill(db, kills.KillOrder(scope="digest", target=NEW, reason="r"), BO, START_S + 1e4))

    def report(self, cell: SimulatedCell, now_s: float) -> None:
        received = Received(report=opened(cell.report(now_s), CellReport, trusted(cell.key.public_key())), at_s=now_s)
        (ingested,) = self.database.transaction(lambda db: ingest(db, [received], report_every_s=60.0))
        assert set(ingested.answer.acknowledged) == {one.id for one in cell.waiting}
        cell.waiting = []

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return self.database.transaction(lambda db: [tuple(row) for row in db.execute(text(query))])


def writes_of(path: Path, kill_at: int) -> tuple[int, int]:
    """(exit status, writes) of a process that runs the course and is killed before write number `kill_at`; 0 for never."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 9
        try:
            course, count = Course(path), 0

            def writes(*_: object) -> None:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(course.database._engine, "commit", writes)
            event.listen(
                course.database._engine,
                "before_cursor_execute",
                lambda c, u, said, *_: writes() if said.startswith(("INSERT", "UPDATE")) else 0,
            )
            course.run()
            os.write(writing, str(count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        count = int(told.read() or 0)
    return os.waitpid(child, 0)[1], count


@pytest.mark.parametrize("places", [2, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_a_controller_that_is_killed_before_any_of_its_writes(tmp_path, places, record_property) -> None:
    status, writes = writes_of(tmp_path / "whole.db", 0)
    assert status == 0
    assert writes > 100
    every = max(writes // places, 1)
    moments = range(1 + every // 2, writes + 1, every)
    for at in moments:
        path = tmp_path / f"killed-{at}.db"
        assert writes_of(path, at)[0] == signal.SIGKILL
        after = Course(path)
        assert_consistent(after.rows)
        after.run()
        assert_consistent(after.rows)
        assert after.rows("select count(*), count(distinct cell || id) from actwright_fleet_episodes") == [(2 * ROUNDS, 2 * ROUNDS)]
        assert (
            after.rows("select count(*) from actwright_fleet_rollouts")
            == after.rows("select count(*) from actwright_fleet_kills")
            == [(1,)]
        )
        (rollout,) = after.database.transaction(rollouts)
        assert rollout.state.status.value == "rolled back"
        assert {cell.proposal["release"] for cell in after.database.transaction(after.known.read)} == {OLD}
        assert first_problem(after.database.transaction(operator_log.entries)) == ""
        after.database.close()
        path.unlink()
    record_property("kills", f"{len(moments)} of {writes} writes")
