"""`python -m serving.fleet.agent --config FILE`: the agent of one cell, until it is ended. Needs no torch.

Exit codes: 0 ended by a signal, 2 wrong settings, 3 another agent of this cell runs.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from model_core.spec.errors import SpecError
from serving.cell_files.boot_clock import moment
from serving.fleet.agent.agent import Agent, Clock
from serving.fleet.agent.make import make_agent
from serving.fleet.agent.settings import AgentSettings, read_settings
from serving.lifeline import end_on_signal

logger = logging.getLogger(__name__)

_LOOK_S = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = read_settings(args.config)
        held = _alone(settings)
        if held is None:
            sys.stderr.write(f"{settings.home}: another agent of cell {settings.cell} runs\n")
            return 3
        clock = Clock(moment=moment, sleep=_waiting(end_on_signal()))
        run(make_agent(settings, clock), clock)
    except SpecError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except _Ended:
        return 0
    return 0


def run(agent: Agent, clock: Clock) -> None:
    """Turn after turn, until the clock's sleep raises."""
    while True:
        try:
            wait_s = agent.turn()
        except _Ended:
            raise
        except Exception:  # whatever one turn met, the next one begins from what is on the disk
            logger.exception("agent.turn_failed")
            wait_s = 5.0
        clock.sleep(wait_s)


class _Ended(BaseException):
    """A signal came."""


def _waiting(is_over: Callable[[], bool]) -> Callable[[float], None]:
    """A sleep that ends the agent when a signal came."""
    import time

    def sleep(seconds: float) -> None:
        give_up_at = time.monotonic() + seconds
        while True:
            if is_over():
                raise _Ended
            left = give_up_at - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LOOK_S))

    return sleep


def _alone(settings: AgentSettings) -> int | None:
    """Keep the agent's own lock for as long as the process lives; None where another has it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.home / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.fleet.agent",
        description="Keep one cell's policy service on the release that its controller proposes and its site is offered.",
        epilog="Example: python -m serving.fleet.agent --config /etc/actwright/cell-1.json",
    )
    parser.add_argument("--config", type=Path, required=True, help="settings, JSON: serving/fleet/agent/settings.py")
    return parser


if __name__ == "__main__":
    sys.exit(main())
