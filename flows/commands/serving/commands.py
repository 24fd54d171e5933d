"""`actwright workcell run` and the list of serving commands: a policy on a socket, and robots that act on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.serving.fault_tools import fault_proxy, fault_server
from flows.commands.serving.probe import probe
from flows.commands.serving.serve import serve
from flows.commands.serving.service_options import CaFile, TokenFile
from flows.terminal.output import DONE, OUR_ERROR, print_line, print_result
from model_core.spec.execution.cell_options import FIRST_SEED

workcell_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Workcells: robots that act on a served policy.")


@workcell_app.command("run")
def workcell_run(
    task: Annotated[str, typer.Option(help="what the robot is to do, such as drawer-close-v3")],
    url: Annotated[str, typer.Option(help="the policy service, such as http://127.0.0.1:3000")],
    robot: Annotated[
        str,
        typer.Option(
            help="metaworld, strict (a simulated driver that forgives nothing; with --option contract=FILE it takes the body of that "
            "contract), or MODULE:FACTORY"
        ),
    ] = "metaworld",
    episodes: Annotated[int, typer.Option(help="how many attempts", min=1)] = 1,
    strategy: Annotated[
        str, typer.Option(help="how chunks are joined: sync, async, prefix or blend (default: sync; with --realtime: async)")
    ] = "",
    realtime: Annotated[bool, typer.Option("--realtime", help="the world does not wait for answers (default: the simulator does)")] = False,
    audit: Annotated[
        Path | None, typer.Option(help="keep an audit of every decision in this folder", metavar="DIR", file_okay=False)
    ] = None,
    commissioning: Annotated[Path | None, typer.Option(help="limits of this very cell, JSON", exists=True, dir_okay=False)] = None,
    watchdog: Annotated[
        Path | None, typer.Option(help="start a watchdog that shares this heartbeat file with the driver", metavar="FILE", dir_okay=False)
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="record episodes for training into this folder", metavar="DIR", file_okay=False)
    ] = None,
    steer: Annotated[
        Path | None,
        typer.Option(
            help='a drawn line, looked at all the time (with --realtime): {"points": [[x, y], ...]} in pixels; change it, and the arm '
            "is steered anew; remove it, and it is not",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    cell: Annotated[str, typer.Option(help="name of this workcell")] = "cell-1",
    first_seed: Annotated[int, typer.Option(help="episode i lays out scene first-seed + i", min=0)] = FIRST_SEED,
    deadline_ms: Annotated[float, typer.Option(help="a later answer is not used", min=1)] = 2000.0,
    result: Annotated[Path | None, typer.Option(help="write what happened to this JSON file", metavar="FILE")] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    option: Annotated[
        list[str] | None, typer.Option(help="passed to the robot's factory; may be given again", metavar="NAME=VALUE")
    ] = None,
) -> None:
    """Drive one robot with a served policy, in a process of its own that needs no torch; hold on any doubt.

    Shows live what the cell does: RUN, STRETCH or HOLD, successes so far, and how long answers take. Exits 0 when all episodes were
    run (whether or not they succeeded), 1 when the service or the robot was lost, 2 for wrong usage, 3 when the service or the cell
    refused the handshake and nothing moved, 4 after a SAFE_STOP: a person has to look before it is started again.

    Example: actwright workcell run --robot metaworld --task drawer-close-v3 --url http://127.0.0.1:3000 --episodes 10
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --strategy prefix --realtime --audit audit
    Example: actwright workcell run --task drawer-close-v3 --url http://127.0.0.1:3000 --realtime --steer line.json
    Example: actwright workcell run --robot strict --option contract=contract.json --task any --url http://127.0.0.1:3000
    """
    from components.deployment.cell_process import named_robot, run_cell
    from components.deployment.service_address import ServiceUrl
    from flows.platform.settings import load_settings
    from flows.terminal.workcell_panel import WorkcellPanel
    from model_core.spec.errors import SpecError
    from model_core.spec.execution.cell_options import CellOptions

    home = load_settings().home.resolve() / "workcell"
    try:
        factory, named = named_robot(robot)
        order = CellOptions(
            robot=factory,
            task=task,
            url=ServiceUrl.of(url, before="--url ").session,
            cell=cell,
            episodes=episodes,
            first_seed=first_seed,
            strategy=strategy,
            realtime=realtime,
            deadline_ms=deadline_ms,
            audit=None if audit is None else audit / cell,
            commissioning=commissioning,
            watchdog=watchdog,
            spool=record,
            steering_file=steer,
            token_file=token_file,
            ca_file=ca_file,
            result=(result or home / f"{cell}.json").resolve(),
            robot_options=(*named, *(option or ())),
        )
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    log = home / f"{cell}.log"
    print_line(f"{cell} loads its robot and calls {order.url}; a service that is not there yet is waited for a little (log: {log})")
    panel = WorkcellPanel(task, episodes)
    with panel.shown():
        code = run_cell(order, log=log, hear=panel.update, complain=print_line)
    told = _outcome(order.result) if code != 2 else {}
    if told:
        if told["episodes"]:
            print_line(
                f"{told['successes']} of {told['episodes']} solved, {told['decisions']} decisions, {told['holds']} holds, "
                f"answers p50 {told['p50_ms']:.0f} ms, p99 {told['p99_ms']:.0f} ms; details in {order.result}"
            )
        if audit is not None and told["episodes"]:
            print_line(f"then try  actwright audit list {audit}")
        shown = (
            "cell",
            "task",
            "episodes",
            "successes",
            "decisions",
            "refusals",
            "holds",
            "p50_ms",
            "p99_ms",
            "model_version",
            "contract_id",
        )
        print_result(**{name: told.get(name) for name in shown}, result=str(order.result), refused_to_move=told.get("refused_to_move", ""))
    if code != DONE:
        raise typer.Exit(code if code in (1, 2, 3, 4) else OUR_ERROR)


def add_serving(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.command("serve")(serve)
    app.command("probe")(probe)
    app.add_typer(workcell_app, name="workcell")
    passing = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("fault-server", context_settings=passing)(fault_server)
    app.command("fault-proxy", context_settings=passing)(fault_proxy)


def _outcome(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
