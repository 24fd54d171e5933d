"""The MLflow server: where it is, how it is called, how one of our own is started.

Every failure of the other side is a `TrackingError` with the place and what to do; a server that did not answer a moment ago is
not called again for a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.adapters.champions.table import default_url
from components.adapters.mlflow.reading.records import RUN_TAG
from components.artifacts.empty_databases import copy_database
from model_core.spec.errors import TrackingError, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingAddress:
    """Where MLflow is and where records wait for it.

    uri: "" for the embedded SQLite file under `home`, else any MLflow tracking URI. experiment: its name there.
    timeout_s, retry_after_s: how long a call may take, and how long a server that failed is left alone. champions_url: of the table of
    champions, "" for the place that follows from the others. authorization: the header's value for a server that asks for one.
    """

    home: Path
    uri: str = ""
    champions_url: str = ""
    authorization: str = field(default="", repr=False)
    experiment: str = "actwright"
    timeout_s: float = 10.0
    retry_after_s: float = 10.0
    send_every_s: float = 2.0

    @property
    def tracking_uri(self) -> str:
        """The URI that MLflow understands."""
        return self.uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def champions(self) -> str:
        """The URL of the table that decides who is champion."""
        return self.champions_url or default_url(self.tracking_uri, self.home)

    @property
    def is_server(self) -> bool:
        """Whether a server answers there (else it is a file of our own)."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def artifact_location(self) -> str | None:
        """Where images are stored; a server decides that itself."""
        return None if self.is_server else (self.home / "mlartifacts").resolve().as_uri()

    @property
    def spool_root(self) -> Path:
        """One folder per destination, so that records meant for one server never reach another."""
        return self.home / "spool" / hashlib.sha256(self.tracking_uri.encode()).hexdigest()[:12]


class Connection:
    """The client, made late; turns every failure of the other side into `TrackingError`."""

    def __init__(self, address: TrackingAddress) -> None:
        self.address = address
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._quiet_until = 0.0

    def check(self, *, insist: bool = False) -> None:
        """Raise `TrackingError` when the server is known, or quickly found, to be away."""
        where = self.address.tracking_uri
        if insist:
            self._quiet_until = 0.0
        elif time.monotonic() < self._quiet_until:
            raise TrackingError(f"MLflow at {where} did not answer a moment ago")
        if self.address.is_server:
            parts = urlsplit(where)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            try:
                socket.create_connection((parts.hostname or "", port), timeout=2.0).close()
            except OSError as error:
                raise TrackingError(
                    f"MLflow at {where} does not answer ({error}); start it (`actwright up`) or correct ACTWRIGHT_MLFLOW_URI, "
                    "then run again; finished work is kept"
                ) from error

    def leave_alone(self, reason: str) -> None:
        """Do not call the server again for a while; log it once per outage."""
        if time.monotonic() >= self._quiet_until:
            logger.warning("tracker.away records_in=%s reason=%s", self.address.spool_root, reason)
        self._quiet_until = time.monotonic() + self.address.retry_after_s

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, with our patience instead of its own (7 retries, minutes)."""
        if self._client is None:
            from mlflow import MlflowClient, environment_variables

            environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
            environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.set(max(1, round(self.address.timeout_s)))
            environment_variables.MLFLOW_DISABLE_TELEMETRY.set(True)
            for noisy in ("alembic", "mlflow.store.db.utils"):
                logging.getLogger(noisy).setLevel(logging.WARNING)
            if not self.address.uri:
                self.address.home.mkdir(parents=True, exist_ok=True)
                copy_database("mlflow", self.address.home.resolve() / "mlflow.db")
            self._client = MlflowClient(tracking_uri=self.address.tracking_uri, registry_uri=self.address.tracking_uri)
        return self._client

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[MlflowClient]:
        """A client for one call; what goes wrong is a `TrackingError` with the place and what to do."""
        self.check()
        try:
            yield self.client
        except TrackingError:
            raise
        except Exception as error:
            code = getattr(error, "error_code", type(error).__name__)
            where = self.address.tracking_uri
            raise TrackingError(f"{what}: MLflow at {where} answered {code}: {_first_line(error)}; nothing is lost, run again") from error

    def experiment(self) -> str:
        """The id of our experiment, made when it is missing."""
        if not self._experiment:
            with self.asking(f"opening experiment {self.address.experiment!r}") as client:
                found = client.get_experiment_by_name(self.address.experiment)
                if found is None:
                    with contextlib.suppress(Exception):  # another process may have made it in between; the next line tells
                        client.create_experiment(self.address.experiment, artifact_location=self.address.artifact_location)
                    found = client.get_experiment_by_name(self.address.experiment)
                require(found is not None, f"MLflow did not keep experiment {self.address.experiment!r}", error=TrackingError)
                assert found is not None
                self._experiment = found.experiment_id
        return self._experiment

    def find_run(self, run_id: str) -> str:
        """MLflow's id of our run, "" when it has none."""
        experiment = self.experiment()
        with self.asking(f"looking for run {run_id}") as client:
            found = client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
            return found[0].info.run_id if found else ""

    def find_or_create_run(self, run_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        """MLflow's id of our run; the tag makes creation repeatable."""
        found = self.find_run(run_id)
        if found:
            return found
        with self.asking(f"creating run {run_id}") as client:
            created = client.create_run(self.experiment(), start_time=start_ms, tags={**tags, RUN_TAG: run_id}, run_name=name)
            return created.info.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """How to start MLflow's server: `environment` goes on top of the starter's own."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def server_command(
    home: Path, port: int, *, host: str = "127.0.0.1", backend_uri: str = "", artifacts: str = "", allowed_hosts: Sequence[str] = ()
) -> ServerCommand:
    """The command for MLflow's UI and API over the embedded data (or `backend_uri`).

    Stop its whole process group. Job execution is off: it costs 8 processes and 1.5 GiB that nothing here uses.
    """
    backend = backend_uri or f"sqlite:///{(home / 'mlflow.db').resolve()}"
    hosts = [*allowed_hosts, f"{host}:{port}", f"localhost:{port}"]
    argv = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1", "--backend-store-uri", backend]
    argv += ["--artifacts-destination", artifacts or (home / "mlartifacts").resolve().as_uri(), "--allowed-hosts", ",".join(hosts)]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    return ServerCommand(argv=tuple(argv), environment=environment)


def make_tables(path: Path) -> None:
    """Have MLflow make its tables in a new database at `path`, without the experiment that it begins with: that names a folder."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM experiments")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
