"""`actwright cluster fetch-data`: the data set of a training in this machine's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.output import print_line, print_result


def fetch_data(
    digest: Annotated[str, typer.Argument(help="the 64 digits of the data set, as the job's manifest names it", metavar="DIGEST")],
    to: Annotated[Path, typer.Option(help="this machine's cache of data sets", metavar="FOLDER")],
) -> None:
    """Bring a frozen data set from the object store into this machine's cache, by its digest, and verify every file.

    The first container of a training's pod runs this where the job was submitted with --data store. What is in the cache is not fetched
    again; of several pods of a machine one fetches.

    Example: actwright cluster fetch-data DIGEST --to /cache
    """
    from components.adapters.storage.frozen_data import fetch_frozen
    from flows.pipeline.storage import storage
    from flows.platform.settings import load_settings
    from flows.terminal.stage_progress import StagePanel

    with storage(load_settings()) as (store, _):
        folder = fetch_frozen(store, digest, to, StagePanel(titles={"data": "data set"}, live=False).stage("data"))
    print_line(f"{folder} is whole")
    print_result(folder=str(folder))
