"""`actwright audit list`, and the group of audit commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.audit.replay import replay_command
from flows.commands.audit.verify import verify_command
from flows.terminal.output import print_line, print_result

audit_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Audits of workcells: list, verify, replay a decision.")


@audit_app.command("list")
def list_command(
    folder: Annotated[Path, typer.Argument(help="the folder given to `workcell run --audit`", exists=True, file_okay=False)],
) -> None:
    """List the recorded episodes of a folder, oldest first, from their Parquet index.

    Example: actwright audit list audit
    """
    from components.artifacts.audit_files import list_audits

    rows = list_audits(folder)
    for row in rows:
        how = "solved" if row["success"] else (row["outcome"] or "torn").replace("_", " ")
        seal = "" if row["sealed"] else ", not sealed"
        lost = f", {row['lost_records']} records lost" if row["lost_records"] else ""
        print_line(
            f"{row['path']}  {row['cell']}  {row['episode_id']}  {how}, {row['t']:.1f} s, {row['decisions']} decisions, "
            f"{row['executed']} commands, {row['model_version']}{seal}{lost}"
        )
    if rows:
        print_line(f"then try  actwright audit replay {rows[-1]['path']}")
    shown = ("path", "cell", "episode_id", "success", "decisions", "executed", "model_version", "contract_id", "sealed", "tip")
    print_result(episodes=[{name: row[name] for name in shown} for row in rows])


audit_app.command("verify")(verify_command)
audit_app.command("replay")(replay_command)


def add_audit(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(audit_app, name="audit")
