"""The options of the commands that edit a data set, one frozen dataclass a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from flows.commands.data.edit_options import Name, SetName, Who, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectOptions:
    """Which episodes are kept."""

    data_set: SetName
    name: Name
    why: Why
    episodes: Annotated[
        list[str] | None, typer.Option("--episodes", help="a number, a range without its end (0:50) or an id; again for more")
    ] = None
    task: Annotated[list[str] | None, typer.Option("--task", help="an instruction or the name of a task; again for more")] = None
    outcome: Annotated[str, typer.Option("--outcome", help="solved, failed or unknown")] = ""
    intervened: Annotated[
        str, typer.Option("--intervened", help="whether a person acted in any of its frames: yes, no, or unknown where it does not say")
    ] = ""
    min_frames: Annotated[int, typer.Option("--min-frames", min=0, help="at least so many frames")] = 0
    max_frames: Annotated[int, typer.Option("--max-frames", min=0, help="at most so many frames; 0: any number")] = 0
    leave_out: Annotated[bool, typer.Option("--leave-out", help="leave these episodes out and keep all others")] = False
    who: Who = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """How episodes are divided."""

    data_set: SetName
    name: Name
    why: Why
    share: Annotated[list[str], typer.Option("--share", help="PART=SHARE; again for every part, together 1", metavar="PART=SHARE")]
    by: Annotated[str, typer.Option("--by", help="what stays together: episode, task, cell or producer")] = "episode"
    seed: Annotated[int, typer.Option("--seed", help="another number gives another division")] = 0
    who: Who = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimOptions:
    """Which frames are cut."""

    data_set: SetName
    name: Name
    why: Why
    head: Annotated[int, typer.Option("--head", min=0, help="frames to cut from the start of every episode")] = 0
    tail: Annotated[int, typer.Option("--tail", min=0, help="frames to cut from the end of every episode")] = 0
    keep: Annotated[list[str] | None, typer.Option("--keep", help="of one episode, keep these frames only", metavar="ID=FIRST:END")] = None
    idle: Annotated[
        int, typer.Option("--idle", min=-1, help="cut ends in which nothing moves, but keep so many frames of them; -1: off")
    ] = -1
    intervened: Annotated[
        bool, typer.Option("--intervened", help="keep the frames from the first to the last one in which a person acted")
    ] = False
    who: Who = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelOptions:
    """What is stated otherwise."""

    data_set: SetName
    name: Name
    why: Why
    instruction: Annotated[list[str] | None, typer.Option("--instruction", help="of every episode that has OLD", metavar="OLD=NEW")] = None
    episode: Annotated[list[str] | None, typer.Option("--episode", help="the instruction of one episode", metavar="ID=NEW")] = None
    task: Annotated[list[str] | None, typer.Option("--task", help="the name of one episode's task", metavar="ID=NEW")] = None
    outcome: Annotated[
        list[str] | None, typer.Option("--outcome", help="solved, failed or unknown, of one episode", metavar="ID=OUTCOME")
    ] = None
    who: Who = ""
