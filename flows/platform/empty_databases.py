"""Makes the empty databases that new homes begin with (`components.artifacts.empty_databases`); set-up runs this file.

.venv/bin/python -m flows.platform.empty_databases
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from components.adapters.mlflow.server import make_tables
from components.artifacts.empty_databases import keep_database
from flows.platform.settings import QUIET


def main() -> int:
    """Make those that are missing; what a library says is shown where it fails."""
    os.environ.update(QUIET)
    keep_database("mlflow", make_tables)
    keep_database("prefect", make_prefect_tables)
    return 0


def make_prefect_tables(path: Path) -> None:
    """Have Prefect make its tables in a new database at `path`. Source: `prefect server database upgrade`, its own command for it."""
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {**QUIET, "PREFECT_HOME": home, "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}"}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"prefect: its tables could not be made at {path}:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
