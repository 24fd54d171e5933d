"""`python -m serving.workcell`: one workcell as a process of its own. Needs no torch.

Exit codes: 0 all episodes were run (whether or not they succeeded), 1 the service was lost or the robot failed
in every one of them,
2 wrong usage, 3 the service or the cell refused the handshake and nothing moved.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from model_core.spec.errors import ActwrightError, ContractError, NotReady, SpecError
from model_core.spec.types import StopReason
from serving.lifeline import end_with_parent
from serving.workcell.agent import Cell, CellSettings, EpisodeResult
from serving.workcell.client import PolicyClient
from serving.workcell.recorder import Recorder
from serving.workcell.report import cell_report, write_report
from serving.workcell.robot import Robot, load_robot

logger = logging.getLogger("serving.workcell")

BROKEN = {StopReason.ENV_ERROR, StopReason.SERVICE_LOST}
EXIT_LOST, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3


def main(argv: list[str] | None = None) -> int:
    """Run the episodes that the arguments ask for; returns the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
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
        return _work(args, robot)
    finally:
        robot.close()


def _work(args: argparse.Namespace, robot: Robot) -> int:
    client = PolicyClient(args.url, cell=args.cell, embodiment=robot.embodiment, deadline_s=args.deadline_ms / 1e3)
    results: list[EpisodeResult] = []
    try:
        _connect(client, args.patience_s)
    except ActwrightError as error:
        # Nothing has moved, and nothing will.
        sys.stderr.write(f"{args.cell}: does not move: {error}\n")
        write_report(args.result, cell_report(args.cell, args.task, results, client, refused_to_move=str(error)))
        return EXIT_REFUSED if isinstance(error, ContractError) else EXIT_LOST
    recorder = Recorder(args.spool, robot, args.cell) if args.spool else None
    settings = CellSettings(
        cell=args.cell,
        execute_horizon=args.execute_horizon,
        deadline_s=args.deadline_ms / 1e3,
        is_realtime=args.realtime,
    )
    cell = Cell(robot, client, settings, recorder)
    code = 0
    try:
        for seed in range(args.first_seed, args.first_seed + args.episodes):
            if not client.is_connected:
                _connect(client, args.patience_s)
            results.append(cell.run_episode(seed))
            code = int(all(r.stop_reason in BROKEN for r in results))
            write_report(args.result, cell_report(args.cell, args.task, results, client))
            _tell(args, results)
    except ActwrightError as error:
        sys.stderr.write(f"{args.cell}: stops after {len(results)} episodes: {error}\n")
        code = EXIT_REFUSED if isinstance(error, ContractError) else EXIT_LOST
        write_report(args.result, cell_report(args.cell, args.task, results, client, refused_to_move=str(error)))
    finally:
        cell.close()
    return code


def _connect(client: PolicyClient, patience_s: float) -> None:
    """Shake hands; a service that is not there yet gets `patience_s`, one that refuses the contract none."""
    give_up_at = time.monotonic() + patience_s
    while True:
        try:
            client.connect()
        except NotReady:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.5)
        else:
            return


def _tell(args: argparse.Namespace, results: list[EpisodeResult]) -> None:
    last = results[-1]
    line = {
        "cell": args.cell,
        "done": len(results),
        "total": args.episodes,
        "success": last.success,
        "stop_reason": last.stop_reason,
        "steps": last.steps,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


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


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, got {text!r}")
    return int(text)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # unwinds through every finally


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.workcell", description="Drive one robot with a served policy; hold on any doubt."
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
        "--parent", type=_whole, default=0, metavar="PID", help="end when this process, which must be the parent, dies (Linux)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
