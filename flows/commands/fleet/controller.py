"""`actwright fleet up|cells|enrol|freeze|unfreeze|verify`: the controller of a fleet, and what it knows of the cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked, ordered
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result
from model_core.spec.fleet.documents import CONTROLLER_PORT

Why = Annotated[str, typer.Option(help="why; it stays in the log")]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Where the controller listens, what it keeps, and who may ask it."""

    host: Annotated[str, typer.Option(help="address to bind; beyond loopback --tokens is needed")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="port; 0: any free one", min=0, max=65_535)] = CONTROLLER_PORT
    database: Annotated[
        str, typer.Option(help="URL of a database", envvar="ACTWRIGHT_FLEET_DATABASE", show_default="a file in the home")
    ] = ""
    key: Annotated[Path | None, typer.Option(help="private key (PEM) that signs proposals (default: made in the home)", metavar="FILE")] = (
        None
    )
    tokens: Annotated[
        Path | None, typer.Option(help="who may ask what: JSON {sha256 of a token: {subject, role: observe|operate|admin}}", exists=True)
    ] = None
    cert: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM", exists=True, dir_okay=False)] = None
    tls_key: Annotated[Path | None, typer.Option(help="TLS private key, PEM", exists=True, dir_okay=False)] = None
    mlflow: Annotated[str, typer.Option(help="MLflow server whose webhook may request rollouts", metavar="URL")] = ""
    repository: Annotated[
        str, typer.Option(help="repository of update metadata: only what a site is offered there is proposed to it", metavar="URL")
    ] = ""
    root: Annotated[Path | None, typer.Option(help="its 1.root.json, brought here by hand", exists=True, dir_okay=False)] = None
    report_every: Annotated[float, typer.Option(help="seconds between two reports of a cell", min=0.1, max=86_400.0)] = 10.0


@from_options(UpOptions)
def up_command(options: UpOptions) -> None:
    """Run the controller of a fleet until Ctrl-C: cells report to it, rollouts are ordered of it.

    Without --database it keeps a SQLite file in the home; several controllers share a PostgreSQL.

    Example: actwright fleet up
    Example: actwright fleet up --host 0.0.0.0 --tokens tokens.json --cert fleet.pem --tls-key fleet.key
    """
    from components.deployment.fleet.controller import ControllerFiles, running_controller
    from components.deployment.gateway_service import Listening
    from flows.commands.operations.up import asked_to_stop
    from flows.platform.settings import load_settings
    from model_core.spec.errors import SpecError
    from model_core.spec.fleet.signatures import make_key, public_path

    if bool(options.repository) != (options.root is not None):
        raise typer.BadParameter("--repository and --root go together: the metadata are trusted from that root alone")
    settings = load_settings()
    home = settings.home.resolve() / "fleet"
    key = options.key or home / "controller.pem"
    inherits = bool(settings.tokens.get_secret_value() or settings.tokens_file)
    try:
        listening = Listening(
            host=options.host,
            port=options.port,
            certificate=options.cert,
            key=options.tls_key,
            tokens=options.tokens,
            inherits_tokens=inherits,
        )
        if options.key is None and not key.exists():
            make_key(key)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    database = options.database or f"sqlite:///{home / 'fleet.db'}"
    log = home / "controller.log"
    files = ControllerFiles(database=database, key=key, log=log, mlflow=options.mlflow, report_every_s=options.report_every)
    files = replace(files, repository=options.repository, root=options.root)
    stop = asked_to_stop()
    with running_controller(files, listening) as url:
        print_line(f"ready     {url}   agents trust {public_path(key)}   log: {log}   (Ctrl-C stops it)")
        print_line(f"then      actwright fleet cells --url {url}")
        print_result(url=url, key=str(public_path(key)))
        stop.wait()
    print_line("stopped; cells go on with what they run")


@from_options(ControllerOptions)
def cells_command(options: ControllerOptions) -> None:
    """List the cells of a fleet: what each last reported, what is proposed to it, and since when it is silent.

    Example: actwright fleet cells
    """
    status = asked(options, "/v1/status")
    for cell in status["cells"]:
        print_line(_cell_line(cell))
    settled = sum(cell["proposed"] in ("", cell["running"]) and not cell["is_stale"] for cell in status["cells"])
    print_line(f"{settled} of {len(status['cells'])} cells report what is proposed" + _silence(status["cells"]))
    if bare := [cell["name"] for cell in status["cells"] if cell["phase"] and not cell["running"] and not cell["proposed"]]:
        print_line(
            f"{len(bare)} cells ({bare[0]}, ...) run nothing and are told nothing: `actwright fleet install DIGEST` names what they get"
        )
    for rollout in status["rollouts"][-1:]:
        print_line(rollout["told"])
    for kill in status["kills"]:
        print_line(f"KILL {kill['id']} {kill['scope']} {kill['target'][:16]} by {kill['ordered_by']}: {kill['reason']}")
    print_result(cells=status["cells"], kills=len(status["kills"]), frozen=status["is_frozen"])


def _cell_line(cell: dict[str, Any]) -> str:
    moves = f" -> {cell['proposed'][:12]}" if cell["proposed"] not in ("", cell["running"]) else ""
    notes = [
        cell["phase"],
        cell["reason"] if moves else "",
        f"{cell['shadow'][:12]} in shadow, {cell['shadowed']} decisions" if cell["shadow"] else "",
        cell["error"],
        "offline" if cell["offline"] else "",
        f"OVERRIDE by {cell['override']}" if cell["override"] else "",
    ]
    seen = (
        f"stale since {_time(cell['seen_at_s'])}" if cell["is_stale"] and cell["seen_at_s"] else "" if cell["seen_at_s"] else "never seen"
    )
    told = "  ".join(note for note in (*notes, seen) if note)
    return f"{cell['site']:<12} {cell['name']:<20} {cell['running'][:12] or '-':<12}{moves}  {told}".rstrip()


def _silence(cells: list[dict[str, Any]]) -> str:
    stale = [cell["seen_at_s"] for cell in cells if cell["is_stale"]]
    if not stale:
        return ""
    return f", {len(stale)} stale since {_time(min(stale))}" if min(stale) else f", {len(stale)} stale or never seen"


def _time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolOptions(ControllerOptions):
    """Whom to let report."""

    cell: Annotated[str, typer.Argument(help="name of the cell", metavar="CELL")]
    site: Annotated[str, typer.Option(help="its site")]
    key: Annotated[Path, typer.Option(help="its public key (PEM), made on its computer", exists=True, dir_okay=False, metavar="FILE")]


@from_options(EnrolOptions)
def enrol_command(options: EnrolOptions) -> None:
    """Let a cell report with its key and no other; for one that is enrolled, key and site are replaced.

    Example: actwright fleet enrol cell-4 --site lab --key cell-4.pub.pem
    """
    from urllib.parse import quote

    from model_core.spec.fleet.signatures import read_public

    public_key = options.key.read_text(encoding="utf-8", errors="replace")
    read_public(
        public_key, f"{options.key}, of which the public half is asked (NAME.pub.pem),"
    )  # a private key does not leave this machine
    body = {"site": options.site, "public_key": public_key}
    done = ordered(options, f"/v1/cells/{quote(options.cell, safe='')}/enrol", body)
    print_result(cell=options.cell, site=options.site, head=done["head"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeOptions(ControllerOptions):
    """Why."""

    reason: Why


@from_options(FreezeOptions)
def freeze_command(options: FreezeOptions) -> None:
    """Let no rollout start or go on; rollbacks and kills still happen.

    Example: actwright fleet freeze --reason "inventory week"
    """
    print_result(frozen=True, head=ordered(options, "/v1/freeze", {"reason": options.reason})["head"])


@from_options(FreezeOptions)
def unfreeze_command(options: FreezeOptions) -> None:
    """Let rollouts go on.

    Example: actwright fleet unfreeze --reason "inventory is done"
    """
    print_result(frozen=False, head=ordered(options, "/v1/unfreeze", {"reason": options.reason})["head"])


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions(ControllerOptions):
    """Against what."""

    head: Annotated[str, typer.Option(help="a hash that some order printed: the log must hold it, so its end was not cut off")] = ""


@from_options(VerifyOptions)
def verify_command(options: VerifyOptions) -> None:
    """Prove that no entry of the log of orders was changed, left out or moved; exits 1 and names the first that was.

    Example: actwright fleet verify --head 3f9a0c
    """
    from components.deployment.fleet.controller import whole_log
    from flows.commands.serving.service_options import credentials_of
    from model_core.spec.errors import CheckpointError
    from model_core.spec.fleet.order_log import LogEntry, first_problem

    entries = [LogEntry(**one) for one in whole_log(options.url, credentials_of(options.token_file, options.ca_file, 10.0))]
    problem = first_problem(entries)
    if not problem and options.head and not any(entry.hash.startswith(options.head) for entry in entries):
        problem = f"no entry has the hash {options.head}, so entries are missing at the end"
    if problem:
        raise CheckpointError(
            f"the log of orders: {problem}. Fix: restore the controller's database from a copy, and ask who had access to it"
        )
    head = entries[-1].hash if entries else ""
    print_line(f"{len(entries)} entries, each follows the one before; head {head}")
    print_result(entries=len(entries), head=head)


def add_controller(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    commands = {"up": up_command, "cells": cells_command, "enrol": enrol_command}
    for name, command in {**commands, "freeze": freeze_command, "unfreeze": unfreeze_command, "verify": verify_command}.items():
        app.command(name)(command)
