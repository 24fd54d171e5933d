"""`actwright fleet requests ...`: versions that MLflow's alias asks for, what persons decide of them, and the flow that rolls them out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked, ordered
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.deployment.service_address import ServiceCredentials
    from flows.pipeline.rollouts.desk import Desk
    from flows.platform.child_process import Child
    from flows.platform.settings import Settings

_HELP = "Versions that MLflow's alias asks for: approved or declined by a person, rolled out by Prefect."
requests_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
_LOOK_S, _GONE_S = 2.0, 60.0


@requests_app.command("list")
@from_options(ControllerOptions)
def list_command(options: ControllerOptions) -> None:
    """List what was asked for, who decided what of it, and the rollout that was started.

    Example: actwright fleet requests list
    """
    found = asked(options, "/v1/requests")
    for one in found:
        what = {"approved": f"approved by {one['decided_by']}", "declined": f"declined by {one['decided_by']}: {one['reason']}"}
        offered = ", ".join(release[:16] for release in one["releases"]) or "none offered"
        started = f", rollout {one['rollout']}" if one["rollout"] is not None else ""
        print_line(f"{one['model']}/{one['version']} by {one['alias']}  {what.get(one['decision'], 'open')}{started}  releases: {offered}")
    print_result(requests=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveOptions(ControllerOptions):
    """Which version, with which release."""

    version: Annotated[str, typer.Argument(help="the version that was asked for", metavar="MODEL/VERSION")]
    release: Annotated[str, typer.Option(help="digest of its release (default: the only one that was offered)", metavar="DIGEST")] = ""
    reason: Annotated[str, typer.Option(help="why; it stays in the log")] = ""


@requests_app.command("approve")
@from_options(ApproveOptions)
def approve_command(options: ApproveOptions) -> None:
    """Let the rollout of a requested version begin; the flow that `actwright fleet requests serve` runs then starts it once.

    Example: actwright fleet requests approve actwright/4
    """
    model, version = _split(options.version)
    release = options.release or _only_release(options, model, version)
    body = {"model": model, "version": version, "release": release, "reason": options.reason}
    print_result(version=options.version, release=release, **_done(ordered(options, "/v1/requests/approve", body)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineOptions(ControllerOptions):
    """Which version, and why not."""

    version: Annotated[str, typer.Argument(help="the version that was asked for", metavar="MODEL/VERSION")]
    reason: Annotated[str, typer.Option(help="why; it stays in the log")]


@requests_app.command("decline")
@from_options(DeclineOptions)
def decline_command(options: DeclineOptions) -> None:
    """Let nothing be rolled out for a requested version.

    Example: actwright fleet requests decline actwright/4 --reason "recorded with the old gripper"
    """
    model, version = _split(options.version)
    body = {"model": model, "version": version, "reason": options.reason}
    print_result(version=options.version, **_done(ordered(options, "/v1/requests/decline", body)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(ControllerOptions):
    """By which plan."""

    plan: Annotated[Path, typer.Argument(help="plan of a rollout, YAML or JSON; its release is the one that is approved", metavar="PLAN")]
    baseline: Annotated[str, typer.Option(help="digest of the old release (default: the one that all cells run)", metavar="DIGEST")] = ""


@requests_app.command("serve")
@from_options(ServeOptions)
def serve_command(options: ServeOptions) -> None:
    """Run Prefect's flow for each version that is asked for, until Ctrl-C: it waits for a person, starts the rollout once, and follows it.

    Runs survive a restart of this command, of Prefect and of the controller. The flow uses the server at ACTWRIGHT_PREFECT_API_URL, that of
    `actwright up`, or one that lives as long as this command.

    Example: actwright fleet requests serve careful.yaml
    """
    from flows.commands.fleet.rollout import read_plan
    from flows.commands.operations.up import asked_to_stop, prefect_page
    from flows.commands.serving.service_options import credentials_of
    from flows.pipeline.rollouts.desk import DEPLOYMENT, Desk
    from flows.platform.settings import point_prefect_at
    from flows.platform.wiring import open_platform
    from model_core.spec.documents import to_document

    checked = to_document(read_plan(options.plan, "0" * 64))
    plan = {name: value for name, value in checked.items() if name != "release"}  # it comes with the approval
    shown = credentials_of(options.token_file, options.ca_file, 10.0)
    platform, stop = open_platform(), asked_to_stop()
    with prefect_page(platform) as page:
        point_prefect_at(f"{page}/api")
        desk = Desk(api=f"{page}/api", url=options.url, shown=shown, plan=plan, baseline=options.baseline)
        runner = Runner(platform.settings, options.url, shown)
        try:
            print_line(f"requests of {options.url} are rolled out by {options.plan} once a person approves them; Ctrl-C stops this")
            print_line(f"prefect  {page}/deployments")
            print_result(deployment=f"{DEPLOYMENT}/{DEPLOYMENT}", prefect=page, controller=options.url)
            _attend(desk, runner, stop.wait)
        finally:
            runner.stop()
    print_line("stopped; what waits goes on when this is started again")


class Runner:
    """The process that runs the flow, started again where it ends. url, shown: of the controller."""

    def __init__(self, settings: Settings, url: str, shown: ServiceCredentials) -> None:
        ca_file = str(shown.ca_file) if shown.ca_file else ""
        self._log = settings.prefect_home / "rollouts.log"
        self._told = {"ACTWRIGHT_TOKEN": shown.token, "ACTWRIGHT_FLEET_URL": url, "ACTWRIGHT_FLEET_CA_FILE": ca_file}
        self._child: Child | None = None

    def keep(self) -> bool:
        """Let it run; whether it was started now, so that no flow is running."""
        if self._child is not None and self._child.process.poll() is None:
            return False
        from flows.platform.child_process import Child

        if self._child is not None:
            print_line(f"the process that runs flows ended with code {self._child.process.returncode} and is started again")
            self._child.stop()  # what it left in its group
        command = [sys.executable, "-m", "flows.pipeline.rollouts.flow"]
        self._child = Child("the rollouts' flows", command, log=self._log, env=self._told)
        return True

    def stop(self) -> None:
        """End it with its flows."""
        if self._child is not None:
            self._child.stop(grace_s=10.0)


def _attend(desk: Desk, runner: Runner, wait: Any) -> None:
    """Turn by turn, until `wait` says that it is over. A controller or a Prefect that does not answer is asked again."""
    from model_core.spec.errors import NotReady

    is_first, silent = True, ""
    while True:
        is_first = runner.keep() or is_first
        try:
            for line in desk.turn(is_first=is_first):
                print_line(line)
            is_first, silent = False, ""
        except NotReady as error:
            if str(error) != silent:
                silent = str(error)
                print_line(f"waiting: {silent}")
        if wait(_LOOK_S):
            return


def _split(version: str) -> tuple[str, str]:
    model, _, number = version.rpartition("/")
    if not model or not number:
        raise typer.BadParameter(f"{version!r}: expected MODEL/VERSION, such as actwright/4")
    return model, number


def _only_release(options: ControllerOptions, model: str, version: str) -> str:
    found = [one for one in asked(options, "/v1/requests") if (one["model"], one["version"]) == (model, version)]
    releases = found[0]["releases"] if found else []
    if len(releases) != 1:
        offered = ", ".join(release[:16] for release in releases) or "none"
        raise typer.BadParameter(
            f"{model}/{version}: {offered} offered to the controller, expected one; `actwright fleet offer` it, or name it by --release"
        )
    return str(releases[0])


def _done(done: dict[str, Any]) -> dict[str, Any]:
    return {name: done[name] for name in ("told", "head")}


def add_requests(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(requests_app, name="requests")
