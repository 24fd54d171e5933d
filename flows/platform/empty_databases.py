"""Makes the empty databases that new homes begin with (`components.artifacts.empty_databases`); set-up runs this file.

.venv/bin/python -m flows.platform.empty_databases
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from components.adapters.mlflow.server import make_tables
from components.artifacts.empty_databases import keep_database
from flows.platform.prefect_server import make_prefect_tables
from flows.platform.settings import Settings, prepare_process


def main() -> None:
    """Make those that are missing. Raises `JobError` with what the library said where one could not be made."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))  # pyright: ignore[reportCallIssue]
        prepare_process(settings)
        keep_database("mlflow", make_tables)
        keep_database("prefect", lambda path: make_prefect_tables(settings, path))


if __name__ == "__main__":
    main()
