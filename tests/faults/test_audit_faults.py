"""F29: a disk that is full, slow, read-only or gone; an audit file that was tampered with."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

from components.artifacts.audit_files import read_audit
from model_core.spec.types import StopReason
from serving.workcell.audit.append_file import Disk
from serving.workcell.audit.log import AuditLog
from tests.faults.verdicts import covers
from tests.faults.world import World
from tests.loopback import wait_until


class BadDisk(Disk):
    """Takes writes until told otherwise. stuck: every write waits for this event first."""

    def __init__(self) -> None:
        self.error = 0
        self.stuck: threading.Event | None = None

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.stuck is not None:
            self.stuck.wait(20)
        if self.error:
            raise OSError(self.error, "no")
        return super().write(descriptor, data)


def slowest_step(world: World, seconds: float) -> float:
    """Run an episode; the longest real time that one control step took."""
    cell, worst = world.start(), 0.0
    plain = cell.tick

    def timed():
        nonlocal worst
        began = time.monotonic()
        found = plain()
        worst = max(worst, time.monotonic() - began)
        return found

    cell.tick = timed  # type: ignore[method-assign]
    world.run(seconds)
    return worst


@covers("F29", I6="no episode begins that could not be audited", I8="the running one is not disturbed")
def test_a_full_disk_refuses_new_episodes_and_no_other(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at(2.0, lambda: setattr(world.audit, "can_begin", False))
    world.run(6)
    assert world.breaches() == []
    assert world.moving(3.0) > 40
    count = len(world.driver_lines())
    assert world.connect()
    assert world.run(3, seed=2).stop_reason is StopReason.REFUSED
    assert len(world.driver_lines()) == count


@covers(
    "F29",
    I6="a disk that fills up or hangs in mid-episode: control goes on, the next episode is refused, nothing is claimed falsely",
    I7="what waits is bounded",
)
def test_a_real_audit_on_a_bad_disk_never_waits(tmp_path: Path) -> None:
    for name, trouble in (("full", errno.ENOSPC), ("stuck", 0), ("read-only", errno.EROFS)):
        folder = tmp_path / name
        folder.mkdir()
        disk = BadDisk()
        audit = AuditLog(folder / "audit", disk=disk, stall_s=0.2)
        try:
            world = World(folder)
            world.audit = audit  # type: ignore[assignment]

            def fail(disk: BadDisk = disk, trouble: int = trouble) -> None:
                if trouble:
                    disk.error = trouble
                else:
                    disk.stuck = threading.Event()

            world.at(1.0, fail)
            worst_s = slowest_step(world, 6.0)
            assert worst_s < 1.0  # a write that waits would have taken 20 s
            assert world.moving(2.0) > 40
            if not trouble:
                time.sleep(0.4)
            wait_until(lambda audit=audit: not audit.can_begin)
            assert audit.waiting <= 4096
        finally:
            disk.error = 0
            if disk.stuck is not None:
                disk.stuck.set()
            audit.close()


@covers("F29", I6="a file that was changed, cut or reordered is found out by its chain")
def test_a_changed_audit_is_found_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    audit = AuditLog(tmp_path / "audit")
    world.audit = audit  # type: ignore[assignment]
    world.run(3)
    audit.close()
    (path,) = sorted((tmp_path / "audit").rglob("*.mcap"))
    assert read_audit(path).is_proven
    data = path.read_bytes()
    for place in range(len(data) // 7, len(data), len(data) // 7):
        bad = bytearray(data)
        bad[place] ^= 0x10
        path.write_bytes(bytes(bad))
        assert not read_audit(path).is_proven, place
    path.write_bytes(data[: len(data) * 2 // 3])
    assert not read_audit(path).is_proven
