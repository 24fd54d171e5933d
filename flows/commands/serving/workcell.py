"""`actwright workcell run`: one robot on a served policy, as a process of its own, watched live."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import from_options
from flows.commands.serving.service_options import CaFile, TokenFile
from flows.terminal.output import OUR_ERROR, print_line, print_result
from model_core.spec.execution.cell_options import STRATEGIES, CellExit, CellOptions
from model_core.spec.live.view import CELLS

workcell_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Workcells: robots that act on a served policy.")

_CELL = {one.name: one for one in fields(CellOptions)}
_SHOWN = (
    *("cell", "task", "episodes", "successes", "decisions", "refusals", "holds", "p50_ms", "p99_ms", "flags"),
    *("model_version", "contract_id"),
)


def _of_cell(name: str, **how: Any) -> Any:
    """An option that stands for this field of `CellOptions`, with its help text."""
    return typer.Option(help=_CELL[name].metadata["help"], **how)


def _default(name: str) -> Any:
    return _CELL[name].default


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkcellOptions:
    """What a person gives of `CellOptions`; fields of the same name are handed on as they are."""

    task: Annotated[str, typer.Option(help="the robot's task, such as drawer-close-v3")]
    robot: Annotated[
        str,
        typer.Option(
            help="metaworld, strict (a strict simulated driver that rejects every limit or protocol violation; with --option contract=FILE "
            "it takes that contract's embodiment; it asks for --task, or for --option instruction=TEXT), or MODULE:FACTORY"
        ),
    ] = "metaworld"
    url: Annotated[str, typer.Option(help="the policy service, such as http://127.0.0.1:3000")] = ""
    agent: Annotated[Path | None, _of_cell("agent", metavar="FOLDER", file_okay=False)] = None
    episodes: Annotated[int, _of_cell("episodes", min=1)] = _default("episodes")
    strategy: Annotated[
        str, typer.Option(help=f"how chunks are joined: {', '.join(STRATEGIES)}; all but sync need --realtime (default there: async)")
    ] = _default("strategy")
    realtime: Annotated[bool, typer.Option("--realtime", help="the world does not wait for answers (default: the simulator does)")] = False
    audit: Annotated[Path | None, _of_cell("audit", metavar="DIR", file_okay=False)] = None
    commissioning: Annotated[Path | None, _of_cell("commissioning", exists=True, dir_okay=False)] = None
    watchdog: Annotated[Path | None, _of_cell("watchdog", metavar="FILE", dir_okay=False)] = None
    record: Annotated[Path | None, _of_cell("spool", metavar="DIR", file_okay=False)] = None
    steer: Annotated[Path | None, _of_cell("steering_file", metavar="FILE", dir_okay=False)] = None
    cell: Annotated[str, _of_cell("cell")] = "cell-1"
    first_seed: Annotated[int, _of_cell("first_seed", min=0)] = _default("first_seed")
    deadline_ms: Annotated[float, _of_cell("deadline_ms", min=1)] = _default("deadline_ms")
    result: Annotated[Path | None, _of_cell("result", metavar="FILE")] = None
    token_file: TokenFile = None
    ca_file: CaFile = None
    console: Annotated[
        bool, typer.Option("--console/--no-console", help="show the cell in `actwright console`, and take orders of people from there")
    ] = True
    operator_wait_s: Annotated[float, _of_cell("operator_wait_s", min=0)] = _default("operator_wait_s")
    option: Annotated[list[str] | None, _of_cell("robot_options", metavar="NAME=VALUE")] = None

    def of_cell(self, home: Path) -> CellOptions:
        """The options of the cell's process; raises `SpecError` for what does not go together. home: folder of results."""
        from components.deployment.cell_process import named_robot
        from components.deployment.service_address import ServiceUrl

        factory, named = named_robot(self.robot)
        same = {one.name: getattr(self, one.name) for one in fields(self) if one.name in _CELL and one.name != "console"}
        other = {
            "robot": factory,
            "url": ServiceUrl.of(self.url, before="--url ").session if self.url else "",
            "audit": None if self.audit is None else self.audit / self.cell,
            "spool": self.record,
            "steering_file": self.steer,
            "console": home.parent / CELLS / self.cell if self.console and self.steer is None else None,
            "robot_options": (*named, *(self.option or ())),
            "result": (self.result or home / f"{self.cell}.json").resolve(),
        }
        return CellOptions(**{**same, **other})


@workcell_app.command("run")
@from_options(WorkcellOptions)
def workcell_run(options: WorkcellOptions) -> None:
    """Drive one robot with a served policy, in a process of its own that needs no torch; hold on any doubt.

    Shows live what the cell does: RUN, STRETCH or HOLD, successes so far, and how long answers take. Exits 0 when all episodes were
    run (whether or not they succeeded), 1 when the service or the robot was lost, 2 for wrong usage, 3 when the service or the cell
    refused the handshake and nothing moved, 4 after a SAFE_STOP: a person has to look before it is started again.

    Example: actwright workcell run --robot metaworld --task drawer-close-v3 --url http://127.0.0.1:3000 --episodes 10
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --strategy prefix --realtime --audit audit
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --steer line.json
    Example: actwright workcell run --task drawer-close-v3 --agent /var/lib/actwright/cell
    Example: actwright workcell run --robot strict --option contract=contract.json --task "pick up the cup" --url http://127.0.0.1:3000
    """
    from components.deployment.cell_process import run_cell
    from flows.platform.settings import load_settings
    from flows.terminal.workcell_panel import WorkcellPanel
    from model_core.spec.errors import SpecError

    home = load_settings().home.resolve() / "workcell"
    try:
        cell = options.of_cell(home)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    log = home / f"{options.cell}.log"
    print_line(f"{options.cell} loads its robot and calls {cell.url}; it waits up to {cell.patience_s:g} s for the service (log: {log})")
    panel = WorkcellPanel(options.task, options.episodes)
    with panel.shown():
        code = run_cell(cell, log=log, hear=panel.update, complain=print_line)
    if code != CellExit.USAGE:
        _print_outcome(_outcome(cell.result), options, cell.result)
    if code != CellExit.DONE:
        raise typer.Exit(code if code in set(CellExit) else OUR_ERROR)


def _outcome(result: Path) -> dict[str, Any]:
    try:
        return json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _print_outcome(outcome: Mapping[str, Any], options: WorkcellOptions, result: Path) -> None:
    if not outcome:
        return
    if outcome["episodes"]:
        times = f"answers p50 {outcome['p50_ms']:.0f} ms, p99 {outcome['p99_ms']:.0f} ms" if outcome["p99_ms"] else "no answer in time"
        counted = f"{outcome['decisions']} decisions, {outcome['holds']} holds"
        print_line(f"{outcome['successes']} of {outcome['episodes']} solved, {counted}, {times}; details in {result}")
        if flags := outcome.get("flags"):
            print_line(f"noticed in answers: {', '.join(f'{flag} ({count})' for flag, count in flags.items())}")
        if options.audit is not None:
            print_line(f"then try  actwright audit list {options.audit}")
    shown = {name: outcome.get(name) for name in _SHOWN}
    print_result(**shown, result=str(result), refused_to_move=outcome.get("refused_to_move", ""))
