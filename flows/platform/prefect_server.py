"""A Prefect server on loopback with its database under home: for the time of one run, or with its pages for `up`.

While the pages are open, runs use their server, found through a small file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from components.adapters.http import answers
from components.adapters.processes import free_port, group_alive
from components.artifacts.empty_databases import copy_database
from components.artifacts.locks import locked
from flows.platform.child_process import Child
from flows.platform.settings import Settings, environment_of, point_prefect_at
from model_core.spec.errors import JobError
from model_core.spec.files import atomic_write


def start_prefect_server(settings: Settings, *, pages: bool = False, port: int = 0) -> Child:
    """Start a server; not ready yet when this returns (`Child.wait_ready`). pages: serve the UI and run schedules too."""
    port = free_port(port)
    copy_database("prefect", settings.prefect_home / "prefect.db")
    url = f"http://127.0.0.1:{port}/api"
    child = Child(
        "Prefect server",
        [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--lifespan", "on"),
        ],
        log=settings.prefect_home / "server.log",
        ready_url=f"{url}/health",
        env={
            **environment_of(settings),
            "PREFECT_API_URL": "",
            "PREFECT_UI_ENABLED": "1" if pages else "0",
            "PREFECT_UI_API_URL": url,
            "PREFECT_SERVER_UI_API_URL": url,
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            **({} if pages else {"PREFECT__SERVER_EPHEMERAL": "1"}),
        },
    )
    if pages:  # one that lives for a run only is nothing to rely on
        atomic_write(settings.prefect_home / "server.json", json.dumps({"api_url": url, "pid": child.process.pid}))
    return child


def make_prefect_tables(settings: Settings, path: Path) -> None:
    """Have Prefect make its tables in a new database at `path`, by its own command for it; raises `JobError` with what that said."""
    child = Child(
        "making Prefect's tables",
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
        log=settings.prefect_home / "tables.log",
        env={**environment_of(settings), "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}"},
    )
    if code := child.process.wait():
        raise JobError(f"{child.name} ended with code {code}:\n{child.last_lines()}")


def running_server(settings: Settings) -> str:
    """The API address of a server that already serves this home (or the one that was configured), or ''."""
    if settings.prefect_api_url:
        return settings.prefect_api_url
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads((settings.prefect_home / "server.json").read_text())
        if group_alive(int(known["pid"])) and answers(f"{known['api_url']}/health"):
            return str(known["api_url"])
    return ""


def starting_alone(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """While one server of this home starts, the next one waits: two that make the database at the same time end each other."""
    return locked(settings.prefect_home / "starting.lock")


@contextlib.contextmanager
def prefect_api(settings: Settings) -> Iterator[str]:
    """A Prefect API for this process: the running one, or one that lives as long as the block. Call before importing prefect."""
    url, child = running_server(settings), None
    if settings.prefect_api_url and not answers(f"{url}/health"):
        raise JobError(f"no Prefect server answers at {url} (ACTWRIGHT_PREFECT_API_URL); start it, or unset the variable")
    try:
        if not url:
            with starting_alone(settings):
                child = start_prefect_server(settings)
                url = child.ready_url.removesuffix("/health")
                point_prefect_at(url)
                importlib.import_module("prefect.flows")  # takes as long as the server's start, beside it
                child.wait_ready()
        point_prefect_at(url)
        yield url
    finally:
        if child is not None:
            child.stop(grace_s=4.0)
