"""`python -m serving.workcell`: one workcell as a process of its own. Needs no torch.

Exit codes: 0 all episodes were run (whether or not they succeeded), 1 the service was lost or the robot failed
in every one of them, 2 wrong usage, 3 the service or the cell refused the handshake and nothing moved, 4 SAFE_STOP:
a person has to look before it is started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from model_core.spec.errors import ActwrightError, SpecError
from serving.lifeline import end_with_parent
from serving.workcell.launch import EXIT_LOST, EXIT_USAGE, work
from serving.workcell.motion.scheduler import STRATEGIES
from serving.workcell.robot.interface import load_robot


def main(argv: list[str] | None = None) -> int:
    """Run the episodes that the arguments ask for; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.strategy not in ("", "sync") and not args.realtime:
        parser.error(f"--strategy {args.strategy} needs --realtime: in lock step the world waits for every answer")
    if args.watchdog is not None and not args.realtime:
        parser.error("--watchdog needs --realtime: in lock step nothing moves while the cell is silent")
    if args.steering_file is not None and not args.realtime:
        parser.error("--steering-file needs --realtime: in lock step there is no time in which somebody could draw")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)  # its debug lines would hold headers
    if args.parent:
        end_with_parent(args.parent)
    signal.signal(signal.SIGTERM, _stop)
    try:
        robot = load_robot(args.robot)(args.task, args.first_seed, **_options(args.robot_option))
    except (SpecError, TypeError) as error:  # a wrong name, or options that the factory does not take
        sys.stderr.write(f"{args.robot}: {error}\n")
        return EXIT_USAGE
    except ActwrightError as error:
        sys.stderr.write(f"{args.robot}: {error}\n")
        return EXIT_LOST
    try:
        return work(args, robot)
    except SpecError as error:  # a file that an option names
        sys.stderr.write(f"{args.cell}: {error}\n")
        return EXIT_USAGE
    finally:
        robot.close()


def _options(pairs: list[str]) -> dict[str, object]:
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


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _seconds(text: str) -> float:
    return 0.0 if text.strip() in {"0", "0.0"} else _positive(text)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, got {text!r}")
    return int(text)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # unwinds through every finally


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.workcell",
        description="Drive one robot with a served policy; hold on any doubt.",
        epilog="Example: python -m serving.workcell --robot serving.workcell.robot.strict_driver:make_robot --task button --cell cell-01 "
        "--url ws://127.0.0.1:3000/v1/session --realtime --strategy prefix --result cell-01.json",
    )
    parser.add_argument("--robot", required=True, metavar="MODULE:FACTORY", help="called with (task, seed, **options)")
    parser.add_argument("--robot-option", action="append", default=[], metavar="NAME=VALUE", help="passed to the factory; may be repeated")
    parser.add_argument("--task", required=True, help="what the robot is to do")
    parser.add_argument("--url", required=True, help="the policy service, such as ws://127.0.0.1:3000/v1/session")
    parser.add_argument("--cell", required=True, help="name of this workcell")
    parser.add_argument("--episodes", type=_whole, default=1, help="how many attempts (default 1)")
    parser.add_argument("--first-seed", type=_whole, default=950_000, help="episode i uses this seed + i (default 950000)")
    parser.add_argument("--execute-horizon", type=_whole, default=0, help="control steps before asking again (default: the contract's)")
    parser.add_argument("--deadline-ms", type=_positive, default=2000.0, help="a later answer is not used (default 2000)")
    parser.add_argument("--patience-s", type=_positive, default=30.0, help="wait so long for a service that is not ready (default 30)")
    parser.add_argument("--spool", type=Path, default=None, help="record episodes into this folder (default: do not record)")
    parser.add_argument("--result", type=Path, required=True, help="write what happened to this JSON file")
    clock = parser.add_mutually_exclusive_group()
    clock.add_argument("--realtime", action="store_true", help="the world does not wait for answers: one step per 1/control_hz seconds")
    clock.add_argument("--lockstep", action="store_true", help="the simulated world waits for an answer, up to the deadline (default)")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, default="", help="how chunks are joined; all but sync need --realtime (default there: async)"
    )
    parser.add_argument(
        "--reserve-hz", type=_positive, default=0.0, help="answers a second that the service must keep free for this cell (default 0)"
    )
    parser.add_argument("--level", default="", help="reasoning level to ask for (default: the service's choice; with --realtime)")
    parser.add_argument("--commissioning", type=Path, default=None, metavar="FILE", help="limits of this cell (default: the body's own)")
    parser.add_argument("--audit", type=Path, default=None, metavar="FOLDER", help="keep an audit of every decision there")
    parser.add_argument("--token-file", type=Path, default=None, metavar="FILE", help="bearer token (default: ACTWRIGHT_TOKEN, if set)")
    parser.add_argument("--ca-file", type=Path, default=None, metavar="FILE", help="who may sign the service's certificate (wss)")
    parser.add_argument("--watchdog", type=Path, default=None, metavar="FILE", help="start a watchdog that shares this heartbeat file")
    parser.add_argument("--watchdog-command-ms", type=_positive, default=250.0, help="it demands a hold after (default 250)")
    parser.add_argument("--watchdog-heartbeat-ms", type=_positive, default=1000.0, help="it demands a stop after (default 1000)")
    parser.add_argument("--heartbeat-s", type=_positive, default=2.0, help="a service silent for 1.5 of it is dead (default 2)")
    parser.add_argument("--connect-timeout-s", type=_positive, default=5.0, help="no READY after so long: dial again (default 5)")
    parser.add_argument("--operator-file", type=Path, default=None, metavar="FILE", help="a name written there ends a SAFE_STOP")
    parser.add_argument(
        "--steering-file", type=Path, default=None, metavar="FILE", help='a drawn line for the gripper: {"points": [[x, y], ...]}'
    )
    parser.add_argument("--operator-wait-s", type=_seconds, default=0.0, help="how long a SAFE_STOP waits for that name (default 0)")
    parser.add_argument("--live", action="store_true", help="also say on standard output what is being done, as JSON lines")
    parser.add_argument(
        "--parent", type=_whole, default=0, metavar="PID", help="end when this process, which must be the parent, dies (Linux)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
