"""`python -m serving.workcell`: one workcell as a process of its own. Needs no torch.

Exit codes: 0 all episodes were run (whether or not they succeeded), 1 the service was lost or the robot failed
in every one of them, 2 wrong usage, 3 the service or the cell refused the handshake and nothing moved, 4 SAFE_STOP:
a person has to look before it is started again.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from types import FrameType

from model_core.spec.errors import ActwrightError, SpecError
from model_core.spec.execution.cell_options import CellExit, CellOptions
from serving.lifeline import end_with_parent
from serving.workcell.launch import work
from serving.workcell.robot.interface import load_robot


def main(argv: list[str] | None = None) -> int:
    """Run the episodes that the arguments ask for; returns the exit code."""
    options = CellOptions.read(
        argv,
        prog="python -m serving.workcell",
        description="Drive one robot with a served policy; hold on any doubt.",
        epilog="Example: python -m serving.workcell --robot serving.workcell.robot.strict_driver:make_robot --task button --cell cell-01 "
        "--url ws://127.0.0.1:3000/v1/session --realtime --strategy prefix --result cell-01.json",
    )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)  # its debug lines would hold headers
    if options.parent:
        end_with_parent(options.parent)
    signal.signal(signal.SIGTERM, _stop)
    try:
        robot = load_robot(options.robot)(options.task, options.first_seed, **_factory_options(options.robot_options))
    except (SpecError, TypeError) as error:  # a wrong name, or options that the factory does not take
        sys.stderr.write(f"{options.robot}: {error}\n")
        return CellExit.USAGE
    except ActwrightError as error:
        sys.stderr.write(f"{options.robot}: {error}\n")
        return CellExit.LOST
    try:
        return work(options, robot)
    except SpecError as error:  # a file that an option names
        sys.stderr.write(f"{options.cell}: {error}\n")
        return CellExit.USAGE
    finally:
        robot.close()


def _factory_options(pairs: tuple[str, ...]) -> dict[str, object]:
    """ "name=value" pairs for the robot's factory; a value is JSON where it can be, else text."""
    options: dict[str, object] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name.isidentifier():
            raise SpecError(f"--robot-option needs name=value, got {pair!r}; for example --robot-option horizon_sim_steps=200")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # unwinds through every finally


if __name__ == "__main__":
    sys.exit(main())
