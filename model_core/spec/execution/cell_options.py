"""The options of a workcell process, declared once: its command line is written from here and read from here."""

from __future__ import annotations

import argparse
import enum
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from model_core.spec.errors import SpecError

FIRST_SEED = 950_000  # of episodes in workcells: no scene of the training or the test set is among them
STRATEGIES = ("sync", "async", "prefix", "blend", "ensemble")


class CellExit(enum.IntEnum):
    """How a workcell process ended."""

    DONE = 0
    LOST = 1
    USAGE = 2
    REFUSED = 3
    STOPPED = 4


def _help(text: str, **how: Any) -> dict[str, Any]:
    """Of an option. metavar, choices, name (on the command line): as argparse takes them; may_be_zero: of a number."""
    return {"help": text, **how}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """All options of one workcell process. The help of each field is that of its option.

    Raises SpecError for options that do not go together.
    """

    robot: str = field(metadata=_help("called with (task, seed, **options)", metavar="MODULE:FACTORY"))
    task: str = field(metadata=_help("the robot's task"))
    cell: str = field(metadata=_help("name of this workcell"))
    result: Path = field(metadata=_help("write what happened to this JSON file"))
    url: str = field(default="", metadata=_help("the policy service, such as ws://127.0.0.1:3000/v1/session"))
    agent: Path | None = field(
        default=None, metadata=_help("instead of --url: the cell's files of an agent, which names the service", metavar="FOLDER")
    )
    robot_options: tuple[str, ...] = field(
        default=(), metadata=_help("passed to the factory; may be repeated", name="robot-option", metavar="NAME=VALUE")
    )
    episodes: int = field(default=1, metadata=_help("number of attempts"))
    first_seed: int = field(default=FIRST_SEED, metadata=_help("episode i uses this seed + i"))
    execute_horizon: int = field(default=0, metadata=_help("actions executed per chunk before the next request (0: the contract's)"))
    deadline_ms: float = field(default=2000.0, metadata=_help("a later answer is not used"))
    patience_s: float = field(default=30.0, metadata=_help("how long to wait for a service that is not ready"))
    spool: Path | None = field(default=None, metadata=_help("record episodes into this folder (default: do not record)"))
    realtime: bool = field(default=False, metadata=_help("the world does not wait for answers: one step per 1/control_hz seconds"))
    strategy: str = field(
        default="", metadata=_help("how chunks are joined; all but sync need --realtime (default there: async)", choices=STRATEGIES)
    )
    reserve_hz: float = field(
        default=0.0, metadata=_help("answers per second that the service must keep free for this cell", may_be_zero=True)
    )
    level: str = field(default="", metadata=_help("reasoning level to request (default: the service's choice)"))
    commissioning: Path | None = field(default=None, metadata=_help("limits of this cell (default: the robot's own)", metavar="FILE"))
    audit: Path | None = field(default=None, metadata=_help("keep an audit of every decision in this folder", metavar="FOLDER"))
    token_file: Path | None = field(default=None, metadata=_help("bearer token (default: ACTWRIGHT_TOKEN, if set)", metavar="FILE"))
    ca_file: Path | None = field(default=None, metadata=_help("authorities that may sign the service's certificate (wss)", metavar="FILE"))
    watchdog: Path | None = field(default=None, metadata=_help("start a watchdog that shares this heartbeat file", metavar="FILE"))
    watchdog_command_ms: float = field(default=250.0, metadata=_help("the watchdog demands a hold after this long without a command"))
    watchdog_heartbeat_ms: float = field(default=1000.0, metadata=_help("the watchdog demands a stop after this long without a heartbeat"))
    heartbeat_s: float = field(default=2.0, metadata=_help("a service that is silent for 1.5 times this is dead"))
    connect_timeout_s: float = field(default=5.0, metadata=_help("dial again when there is no READY after this long"))
    operator_file: Path | None = field(default=None, metadata=_help("a name written there ends a SAFE_STOP", metavar="FILE"))
    steering_file: Path | None = field(
        default=None, metadata=_help('a drawn line for the gripper, with or without --realtime: {"points": [[x, y], ...]}', metavar="FILE")
    )
    operator_wait_s: float = field(default=0.0, metadata=_help("how long a SAFE_STOP waits for that name", may_be_zero=True))
    console: Path | None = field(
        default=None, metadata=_help("show in this folder what the cell does, and take orders of people from it", metavar="FOLDER")
    )
    live: bool = field(default=False, metadata=_help("also report on standard output what is done, as JSON lines"))
    parent: int = field(default=0, metadata=_help("end when this process, which must be the parent, dies (Linux)", metavar="PID"))

    def __post_init__(self) -> None:
        if bool(self.url) == (self.agent is not None):
            raise SpecError("a cell needs --url, or --agent with the files of the agent that names the service; give one of them")
        if self.strategy and self.strategy not in STRATEGIES:
            raise SpecError(f"--strategy {self.strategy}: there are {', '.join(STRATEGIES)}")
        if self.strategy not in ("", "sync") and not self.realtime:
            raise SpecError(f"--strategy {self.strategy} needs --realtime: without it the simulated world waits for every answer")
        if self.watchdog is not None and not self.realtime:
            raise SpecError("--watchdog needs --realtime: without it nothing moves while the cell is silent")
        for name, is_given in (("--operator-file", self.operator_file is not None), ("--operator-wait-s", self.operator_wait_s != 0)):
            if is_given and not self.realtime:
                raise SpecError(
                    f"{name} needs --realtime: a simulated world waits for no person, its next episode begins anew; "
                    f"leave {name} out, or add --realtime"
                )
        if self.console is not None and self.steering_file is not None:
            raise SpecError("--console and --steering-file both steer: give one of them; a person draws in the console")
        if self.episodes < 1:
            raise SpecError(f"--episodes {self.episodes}: there is nothing to run; give 1 or more")

    def arguments(self) -> list[str]:
        """The command line that `read` reads back; what has its default is left out."""
        words: list[str] = []
        for one in fields(self):
            value, name = getattr(self, one.name), _flag(one)
            if value == one.default:
                continue
            if value is True:
                words.append(name)
                continue
            for item in typing.cast(tuple[object, ...], value) if isinstance(value, tuple) else (value,):
                text = str(item.resolve() if isinstance(item, Path) else item)
                words += [f"{name}={text}"] if text.startswith("-") else [name, text]  # "-x" alone would be read as an option
        return words

    @staticmethod
    def read(arguments: list[str] | None = None, *, prog: str, description: str, epilog: str) -> CellOptions:
        """Read a command line (None: this process's); wrong usage ends the process as argparse does."""
        parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog)
        kinds = typing.get_type_hints(CellOptions)
        clock = parser.add_mutually_exclusive_group()
        clock.add_argument("--lockstep", action="store_true", help="the simulated world waits for an answer, up to the deadline (default)")
        for one in fields(CellOptions):
            where = clock if one.name == "realtime" else parser
            where.add_argument(
                _flag(one), dest=one.name, help=_shown(one), required=one.default is MISSING, **_reading(one, kinds[one.name])
            )
        given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None and name != "lockstep"}
        options: dict[str, Any] = {**given, "robot_options": tuple(given.get("robot_options", ()))}
        try:
            return CellOptions(**options)
        except SpecError as error:
            parser.error(str(error))


def _flag(one: Field[Any]) -> str:
    return "--" + str(one.metadata.get("name", one.name.replace("_", "-")))


def _shown(one: Field[Any]) -> str:
    shown = one.metadata["help"]
    return f"{shown} (default {one.default:g})" if type(one.default) in (int, float) and one.default else shown


def _reading(one: Field[Any], kind: Any) -> dict[str, Any]:
    """How argparse reads a field of this type; an option that is not given is None there, and has its default here."""
    if kind is bool:
        return {"action": "store_true", "default": None}
    how = {name: one.metadata[name] for name in ("metavar", "choices") if name in one.metadata}
    if kind == tuple[str, ...]:
        return {**how, "action": "append"}
    readers: dict[Any, Callable[[str], object]] = {
        str: str,
        int: _whole,
        float: _zero_or_more if one.metadata.get("may_be_zero") else _positive,
    }
    return {**how, "type": readers.get(kind, Path)}


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _zero_or_more(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or above, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # inside no range


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, got {text!r}")
    return int(text)
