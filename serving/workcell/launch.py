"""From a command line to running episodes: the link, the limits, the audit and the watchdog are put together here."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, ContractError, NotReady
from model_core.spec.execution.cell_options import STRATEGIES, CellExit, CellOptions
from model_core.spec.types import StopReason
from serving.workcell.audit.interface import Audit, NullAudit, refusal_of
from serving.workcell.audit.live_view import LiveView
from serving.workcell.control.order_files import OrderedCell, OrderFiles, operator_file
from serving.workcell.control.realtime_cell import RealtimeCell, RealtimeSettings
from serving.workcell.control.results import EpisodeResult
from serving.workcell.control.steering_file import SteeringFile
from serving.workcell.link.credentials import checked_credentials
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.waiting_link import SimulatedClock, WaitingLink
from serving.workcell.link.websocket_link import AsyncLink
from serving.workcell.motion.commissioning import read
from serving.workcell.motion.limits import Limits, tightened, unbounded, widest_limits
from serving.workcell.motion.motion_state import MotionState
from serving.workcell.report import cell_report, write_report
from serving.workcell.robot.episode_recorder import Recorder, recording_into
from serving.workcell.robot.interface import Robot
from serving.workcell.updates import EpisodeWindow, window_of
from serving.workcell.watchdog.watchdog import WatchLimits, WatchPost

logger = logging.getLogger(__name__)

BROKEN = {StopReason.ENV_ERROR, StopReason.SERVICE_LOST}
SIMULATED_HEARTBEAT_S = 10.0  # at least: a simulator may keep its process busy for seconds


def work(options: CellOptions, robot: Robot) -> int:
    """Run the episodes that the arguments ask for; returns the exit code."""
    window = window_of(options)
    try:
        url = window.first_url()
    except NotReady as error:
        sys.stderr.write(f"{options.cell}: does not move: {error}\n")
        return CellExit.LOST
    audit = _audit(options)
    link = AsyncLink(url, _link_settings(options, robot), credentials=checked_credentials(url, options.token_file, options.ca_file))
    diary = _Diary(options, link)
    link.start()
    try:
        try:
            cell = _made(options, robot, audit, link)
        except ActwrightError as error:
            return diary.stops(error)
        diary.cell = cell
        with contextlib.closing(cell):
            return _episodes(window, robot, audit, cell, diary)
    finally:
        link.close()
        audit.close()


def _link_settings(options: CellOptions, robot: Robot) -> LinkSettings:
    return LinkSettings(
        cell=options.cell,
        embodiment=robot.embodiment,
        deadline_s=options.deadline_ms / 1e3,
        heartbeat_s=options.heartbeat_s if options.realtime else max(options.heartbeat_s, SIMULATED_HEARTBEAT_S),
        connect_timeout_s=options.connect_timeout_s,
        strategies=STRATEGIES,
        accepts_parts=options.live,  # with a live display the answer is shown before it is executed
        replan_hz=options.reserve_hz,
        world_waits=not options.realtime,
    )


def _made(options: CellOptions, robot: Robot, audit: Audit, link: AsyncLink) -> RealtimeCell:
    """The cell, once the service has been met. Raises ActwrightError when nothing may move."""
    wait_until_up(link, options.patience_s)
    limits, digest = limits_in_force(options.commissioning, options.cell, _ready_contract(link.ready), robot)
    watch: WatchPost | None = None
    if options.watchdog is not None:
        limits_s = WatchLimits(command_s=options.watchdog_command_ms / 1e3, heartbeat_s=options.watchdog_heartbeat_ms / 1e3)
        watch = WatchPost(options.watchdog, limits_s)
        watch.start()
    world = SimulatedClock()
    return RealtimeCell(
        robot,
        link if options.realtime else WaitingLink(link, world),
        RealtimeSettings(
            cell=options.cell,
            strategy=options.strategy or ("async" if options.realtime else "sync"),
            execute_horizon=options.execute_horizon,
            level=options.level,
            operator=None if options.operator_file is None else operator_file(options.operator_file),
            operator_wait_s=options.operator_wait_s,
        ),
        limits,
        recorder=Recorder(options.spool, robot, options.cell) if options.spool else None,
        audit=audit,
        watch=watch,
        clock=time.monotonic if options.realtime else world,
        sleep=time.sleep if options.realtime else world.sleep,
        commissioning_digest=digest,
        limits_of=lambda contract: limits_in_force(options.commissioning, options.cell, contract, robot),
    )


def _episodes(window: EpisodeWindow, robot: Robot, audit: Audit, cell: RealtimeCell, diary: _Diary) -> int:
    options, link = diary.options, diary.link
    with contextlib.ExitStack() as stack:
        if options.spool is not None:
            stack.enter_context(recording_into(options.spool, options.cell))
        camera = _ready_contract(link.ready).reasoning.trace_camera
        if options.steering_file is not None:
            drawn = stack.enter_context(contextlib.closing(SteeringFile(options.steering_file, robot.embodiment, camera, cell.steer)))
            drawn.start()
        if options.console is not None and isinstance(audit, LiveView):
            ordered = OrderedCell(cell=cell, body=robot.embodiment, camera=camera, is_realtime=options.realtime)
            stack.enter_context(OrderFiles(options.console, ordered, audit.answered))
        try:
            window.takes_over(cell.envelope.limits.digest)
            for seed in range(options.first_seed, options.first_seed + options.episodes):
                with window.episode(cell, link) as note:
                    _await_room(audit, options.patience_s)
                    note(result := cell.run_episode(seed))
                diary.note(result)
                if cell.machine.mode is MotionState.SAFE_STOP:
                    if options.realtime or cell.is_killed or cell.robot_stop:
                        return diary.is_stopped(cell.machine.reason)
                    cell.resume("a new simulated world")  # whatever stood in the way is gone with the old one
        except ActwrightError as error:
            return diary.stops(error)
    return diary.code


@dataclass(slots=True)
class _Diary:
    """What is written and said after every episode."""

    options: CellOptions
    link: AsyncLink
    cell: RealtimeCell | None = None
    code: int = 0
    results: list[EpisodeResult] = field(default_factory=list)

    def note(self, result: EpisodeResult) -> None:
        self.results.append(result)
        self.code = int(all(r.stop_reason in BROKEN for r in self.results))
        self._write("")
        line = {
            "cell": self.options.cell,
            "done": len(self.results),
            "total": self.options.episodes,
            "success": result.success,
            "stop_reason": result.stop_reason,
            "steps": result.steps,
            "detail": result.detail,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def stops(self, error: ActwrightError) -> int:
        when = "does not move" if self.cell is None else f"stops after {len(self.results)} episodes"
        sys.stderr.write(f"{self.options.cell}: {when}: {error}\n")
        self._write(str(error))
        return CellExit.REFUSED if isinstance(error, ContractError) else CellExit.LOST

    def is_stopped(self, reason: str) -> int:
        sys.stderr.write(f"{self.options.cell}: SAFE_STOP after {len(self.results)} episodes: {reason}; a person has to look\n")
        return CellExit.STOPPED

    def _write(self, refused: str) -> None:
        report = cell_report(self.options.cell, self.options.task, self.results, self.link, refused_to_move=refused, cell_now=self.cell)
        write_report(self.options.result, report)


def limits_in_force(path: Path | None, cell: str, contract: PolicyContract, robot: Robot) -> tuple[Limits, str]:
    """The limits of this cell under this contract, and the digest of where they come from. Raises ContractError or SpecError."""
    if path is not None:
        commissioning = read(path)
        if not commissioning.commissioned_by:
            logger.warning("commissioning.unsigned file=%s: no person has put a name to these limits", path)
        limits, digest = commissioning.limits_for(cell, contract, robot.embodiment), commissioning.digest
    else:
        logger.warning("commissioning.none cell=%s: the limits are the embodiment's own ranges; no person has narrowed them", cell)
        limits = tightened(widest_limits(robot.embodiment), robot.embodiment, contract.embodiment)
        digest = limits.digest
    for sentence in unbounded(limits, robot.embodiment):
        logger.warning("commissioning.unbounded cell=%s: %s", cell, sentence)
    return limits, digest


def _await_room(audit: Audit, patience_s: float) -> None:
    """An audit that makes room, or catches up, gets `patience_s`; raises NotReady when it still takes no episode then."""
    give_up_at = time.monotonic() + patience_s
    while not audit.can_begin:
        if time.monotonic() > give_up_at:
            raise NotReady(refusal_of(audit))
        time.sleep(0.1)


def _ready_contract(ready: object) -> PolicyContract:
    contract = getattr(ready, "contract", None)
    if not isinstance(contract, PolicyContract):
        raise NotReady("the service was lost again before anything began")
    return contract


def _audit(options: CellOptions) -> Audit:
    audit: Audit = NullAudit()
    if options.audit is not None:
        from serving.workcell.audit.log import AuditLog  # needs mcap and pyarrow: only who asks for it

        audit = AuditLog(options.audit)
    if options.live:
        from serving.workcell.audit.live_feed import LiveAudit

        def write(line: str) -> None:
            os.write(sys.stdout.fileno(), line.encode())  # one call, so that lines of two threads never mix

        audit = LiveAudit(audit, write)
    return audit if options.console is None else LiveView(audit, options.console, options.cell)
