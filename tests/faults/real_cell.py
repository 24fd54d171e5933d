"""A whole workcell on real sockets and a real clock: link thread, control loop, strict driver, audit files.

with real_cell(tmp_path, url) as cell:
    cell.begin()                 # an episode, in a thread
    cell.after(20)               # control steps
    cell.lose(); proxy.do("cut")
    result = cell.finish()
assert cell.breaches() == []
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_core.spec.contract import EmbodimentSpec
from serving.gateway.inference.stub_policy import stub_contract
from serving.workcell.audit.log import AuditLog
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.control.results import EpisodeResult
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.limits import widest_limits
from serving.workcell.robot.strict_driver import StrictDriver
from tests.faults.audit_notes import Note, read_notes
from tests.faults.checker import Breach, Evidence, Line, check, read_driver_log
from tests.faults.world import bounds_of
from tests.loopback import wait_until

# The machine that runs the tests may stop anybody for so long; what the cell promises does not include it.
SLACK_S = 0.4


class RealCell:
    """One cell and one episode at a time."""

    def __init__(
        self, folder: Path, url: str, *, steps: int, strategy: str, body: EmbodimentSpec, link: dict[str, Any], driver: dict[str, Any]
    ) -> None:
        self.folder, self.body = folder, body
        self.log = folder / "driver.jsonl"
        self.audit_folder = folder / "audit"
        self.driver = StrictDriver(body, steps=steps, log=self.log, **driver)
        self.audit = AuditLog(self.audit_folder)
        settings = {"deadline_s": 0.4, "heartbeat_s": 0.6, "connect_timeout_s": 1.5, "max_backoff_s": 0.3, **link}
        self.link = AsyncLink(url, LinkSettings(cell="cell-r", embodiment=body, **settings))
        self.strategy = strategy
        self.cell: RealtimeCell | None = None
        self.result: EpisodeResult | None = None
        self.lost: list[tuple[float, float]] = []
        self._thread: threading.Thread | None = None

    def connect(self, timeout_s: float = 15.0) -> RealtimeCell:
        """Wait for the link; build the cell once it was up."""
        if self.cell is None:
            self.link.start()
        wait_until(lambda: self.link.is_up, timeout_s)
        if self.cell is None:
            settings = RealtimeSettings(cell="cell-r", strategy=self.strategy, max_steps=10**6)
            self.cell = RealtimeCell(self.driver, self.link, settings, widest_limits(self.body), audit=self.audit)
        return self.cell

    def begin(self, seed: int = 1) -> None:
        """Run an episode in a thread of its own."""
        cell = self.connect()

        def work() -> None:
            self.result = cell.run_episode(seed)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def after(self, steps: int) -> None:
        """Wait until the driver has taken so many commands of this run."""
        wait_until(lambda: len(self.driver.executed) >= steps or self.result is not None, 30.0)

    def moved_after(self, moment_s: float, count: int, timeout_s: float = 20.0) -> None:
        """Wait until `count` commands of a chunk went out after a moment."""
        wait_until(
            lambda: self.result is not None or sum(bool(x["chunk_id"]) for x in self.lines() if x["t"] > moment_s) >= count, timeout_s
        )

    def lose(self) -> float:
        """From this moment nothing can come; until `found`."""
        self.lost.append((time.monotonic(), float("inf")))
        return self.lost[-1][0]

    def found(self) -> None:
        """What was lost is there again."""
        self.lost[-1] = (self.lost[-1][0], time.monotonic())

    def finish(self, timeout_s: float = 60.0) -> EpisodeResult:
        """Wait for the end of the episode."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        assert self.result is not None, "the control loop does not end"
        return self.result

    def close(self) -> None:
        if self.cell is not None:
            self.cell.close()
        else:
            self.link.close()
        if self._thread is not None:
            self._thread.join(30)
        self.driver.close()
        self.audit.close()

    # --- judgement ------------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        return read_driver_log(self.log) if self.log.exists() else []

    def notes(self) -> list[Note]:
        """Of the one episode that was run."""
        (path,) = sorted(self.audit_folder.rglob("*.mcap"))
        return read_notes(path, self.lines())

    @property
    def t_hold_s(self) -> float:
        """A chunk's own life is the longest that anything is executed without news."""
        return 8 / self.body.control_hz + 1 / self.body.control_hz + SLACK_S

    def breaches(self) -> list[Breach]:
        """After `close`: what the judge says of driver log and audit file."""
        evidence = Evidence(
            driver=self.lines(), notes=self.notes(), bounds=bounds_of(self.body), t_hold_s=self.t_hold_s, lost=self.lost, clock_s=0.02
        )
        return check(evidence)


@contextlib.contextmanager
def real_cell(
    folder: Path,
    url: str,
    *,
    steps: int = 60,
    strategy: str = "async",
    body: EmbodimentSpec | None = None,
    driver: dict[str, Any] | None = None,
    **link: Any,
) -> Iterator[RealCell]:
    """A cell that is closed at the end; call `breaches` afterwards."""
    cell = RealCell(folder, url, steps=steps, strategy=strategy, body=body or stub_contract().embodiment, link=link, driver=driver or {})
    try:
        yield cell
    finally:
        cell.close()


def until(claim: Callable[[], object], timeout_s: float = 20.0) -> None:
    """As `wait_until`, for tests that import only this."""
    wait_until(claim, timeout_s)
