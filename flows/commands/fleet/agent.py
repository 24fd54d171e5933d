"""`actwright fleet agent`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def agent_command(
    config: Annotated[Path, typer.Option(help="settings of this agent (JSON): docs/fleet.md", metavar="FILE", exists=True, dir_okay=False)],
) -> None:
    """Run the agent of one cell on the cell's own computer, until Ctrl-C or SIGTERM; needs no torch.

    It reports to the controller and takes what it proposes only where the site's signed metadata offer it: downloads into the slot that
    does not run, verifies, lets the release answer its golden probes here, and swaps between two episodes. Ending it ends no service.

    Example: actwright fleet agent --config /etc/actwright/cell-1.json
    """
    from components.deployment.agent_process import become_agent

    become_agent(config)
