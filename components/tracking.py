"""MLflow as `Tracker` and as `ModelRegistry`; the only importer of mlflow, and only inside functions.

Every record goes to a local spool first (see `components.spool`) and from there, in batches, to the server. A server
that is away costs a warning, never a run: what it did not get is sent by the next run that reaches it. Delivery is exactly
once in effect: the cursor moves after the server took a batch, and a batch sent twice (killed in between) has the
timestamps it was spooled with, which MLflow recognises. The registry is different: its answer is needed, so it raises.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import re
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.ports import RUN_STATUSES, DatasetInput, Metric
from components.records import ModelVersion
from components.spool import Spool
from model_core.spec.errors import TrackingError, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN_TAG = "actwright.run_id"
CHAMPION = "champion"
_METRICS_A_BATCH, _PARAMS_A_BATCH, _PARAM_CHARS = 1000, 100, 6000  # MLflow's own limits
_REFUSED_FOR_GOOD = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "MALFORMED_REQUEST")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingAddress:
    """Where MLflow is and where records wait for it.

    uri: "" for the embedded SQLite file under `home`, else any MLflow tracking URI. experiment: its name there.
    timeout_s, retry_after_s: how long a call may take, and how long a server that failed is left alone.
    """

    home: Path
    uri: str = ""
    experiment: str = "actwright"
    timeout_s: float = 10.0
    retry_after_s: float = 10.0
    send_every_s: float = 2.0

    @property
    def tracking_uri(self) -> str:
        """The URI that MLflow understands."""
        return self.uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def is_server(self) -> bool:
        """Whether a server answers there (else it is a file of our own)."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def artifact_location(self) -> str | None:
        """Where pictures go; a server decides that itself."""
        return None if self.is_server else (self.home / "mlartifacts").resolve().as_uri()

    @property
    def spool_root(self) -> Path:
        """One folder per destination, so that records meant for one server never reach another."""
        return self.home / "spool" / hashlib.sha256(self.tracking_uri.encode()).hexdigest()[:12]


class MlflowTracker:
    """Keeps runs in MLflow. See `components.ports.Tracker`; one run at a time."""

    def __init__(self, address: TrackingAddress) -> None:
        self._address = address
        self._connection = _Connection(address)
        self._spool: Spool | None = None
        self._points: set[tuple[str, int]] = set()
        self._next_send = 0.0

    def start_run(
        self,
        name: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        run_id: str = "",
        dataset: DatasetInput | None = None,
    ) -> str:
        """Open or resume a run; first sends what earlier runs could not."""
        require(self._spool is None, f"run {self._spool.run_id if self._spool else ''} is still open; finish it first", error=TrackingError)
        self.replay()
        plain_name = re.sub(r"[^\w.-]+", "-", name)
        spool = Spool(self._address.spool_root, run_id or f"{plain_name}-{secrets.token_hex(4)}")
        spool.repair()
        self._points = {(key, step) for record, _ in spool.records() if record["kind"] == "metrics" for key, _, step in record["points"]}
        self._spool = spool
        described = {"name": dataset.name, "version": dataset.version, "source": dataset.source} if dataset else None
        self._put(
            {"kind": "start", "name": name, "params": flatten(params or {}), "tags": dict(tags or {}), "dataset": described}, now=True
        )
        return spool.run_id

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Record points; a (key, step) that the run already has is skipped, so a resumed curve has no doubles."""
        fresh = [m for m in metrics if (m.key, m.step) not in self._points]
        self._points.update((m.key, m.step) for m in fresh)
        if fresh:
            self._put({"kind": "metrics", "points": [[m.key, float(m.value), int(m.step)] for m in fresh]})

    def log_picture(self, name: str, path: Path) -> None:
        """Record a picture under `name`; the file may change or go afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            renamed = Path(folder, Path(name).name)
            renamed.write_bytes(path.read_bytes())
            self._put({"kind": "file", "name": name, "kept": self._open().keep(renamed)})

    def log_text(self, name: str, text: str) -> None:
        """Record a text file under `name`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(name).name)
            path.write_text(text, encoding="utf-8")
            self._put({"kind": "file", "name": name, "kept": self._open().keep(path)})

    def log_table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record rows in the form that MLflow's UI shows as a table."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        self.log_text(name if name.endswith(".json") else f"{name}.json", json.dumps(table, indent=1))

    def log_checkpoint(self, name: str, uri: str, digest: str) -> None:
        """Record a pointer to a checkpoint: proxied uploads of weights fail from hundreds of MB on, so bytes stay where they are."""
        self.log_text(f"{name}/checkpoint.json", json.dumps({"uri": uri, "sha256": digest}, indent=1))

    def finish(self, status: str = "finished") -> None:
        """Close the run and send what is left, if the server answers."""
        require(status in RUN_STATUSES, f"status must be one of {', '.join(RUN_STATUSES)}", got=status)
        self._put({"kind": "finish", "status": status}, now=True)
        spool, self._spool = self._open(), None
        if spool.pending:
            logger.warning("run.kept run=%s spool=%s: sent to %s by the next run", spool.run_id, spool.path, self._address.tracking_uri)

    def server_run_id(self, run_id: str) -> str:
        """MLflow's id of our `run_id`; "" if it was never delivered or MLflow does not answer."""
        known = Spool(self._address.spool_root, run_id).server_run_id
        if known:
            return known
        with contextlib.suppress(TrackingError):
            return self._connection.find_run(run_id)
        return ""

    def replay(self) -> int:
        """Send what earlier runs left behind; returns how many runs still have something waiting."""
        waiting = [spool for spool in Spool.all_in(self._address.spool_root) if spool.pending]
        for spool in waiting:
            if not self._deliver(spool, insist=True):
                break
        return sum(spool.pending for spool in waiting)

    def _open(self) -> Spool:
        require(self._spool is not None, "no run is open; call start_run first", error=TrackingError)
        assert self._spool is not None
        return self._spool

    def _put(self, record: dict[str, Any], *, now: bool = False) -> None:
        spool = self._open()
        spool.append({**record, "ms": time.time_ns() // 1_000_000})
        if now or time.monotonic() >= self._next_send:
            self._deliver(spool, insist=now)
            self._next_send = time.monotonic() + self._address.send_every_s

    def _deliver(self, spool: Spool, *, insist: bool) -> bool:
        """Send a spool's waiting records; False when the server did not take them all."""
        try:
            with spool.delivering() as alone:
                if alone:
                    self._connection.check(insist=insist)
                    _Delivery(self._connection, spool).run()
        except TrackingError as error:
            self._connection.leave_alone(str(error))
            return False
        return True


class _Connection:
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
        """Do not ask again for a while; say so once per silence."""
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
            self._client = MlflowClient(tracking_uri=self.address.tracking_uri, registry_uri=self.address.tracking_uri)
        return self._client

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[MlflowClient]:
        """A client for one question; what goes wrong is a `TrackingError` that says where and what to do."""
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


class _Delivery:
    """Sends one spool's waiting records in order, moving the cursor after each batch that was taken."""

    def __init__(self, connection: _Connection, spool: Spool) -> None:
        self._connection, self._spool = connection, spool
        self._run = spool.server_run_id

    def run(self) -> None:
        batch: list[tuple[list[Any], int]] = []
        batch_end = self._spool.offset
        for record, end in self._spool.records(batch_end):
            if record["kind"] == "metrics":
                batch += [(point, record["ms"]) for point in record["points"]]
            else:
                self._send_metrics(batch, batch_end)
                batch = []
                self._taken(lambda record=record: getattr(self, f"_send_{record['kind']}")(record), end, record.get("kept", ""))
            batch_end = end
            if len(batch) >= _METRICS_A_BATCH:
                self._send_metrics(batch, batch_end)
                batch = []
        self._send_metrics(batch, batch_end)

    def _taken(self, send: Any, end: int, kept: str = "") -> None:
        """Send; what MLflow will never take is reported and passed over, since it would block all that follows."""
        try:
            send()
        except TrackingError as error:
            if not self._run or getattr(error.__cause__, "error_code", "") not in _REFUSED_FOR_GOOD:
                raise
            logger.warning("record.refused run=%s spool=%s reason=%s", self._spool.run_id, self._spool.path, error)
        self._spool.delivered(end, self._run)
        if kept:
            self._spool.drop(kept)

    def _send_metrics(self, batch: list[tuple[list[Any], int]], end: int) -> None:
        from mlflow.entities import Metric as MlflowMetric

        if not batch:
            return

        def send() -> None:
            with self._connection.asking("recording metrics") as client:
                for first in range(0, len(batch), _METRICS_A_BATCH):
                    part = batch[first : first + _METRICS_A_BATCH]
                    client.log_batch(self._run, metrics=[MlflowMetric(key, value, ms, step) for (key, value, step), ms in part])

        self._taken(send, end)

    def _send_start(self, record: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        created = self._run or self._connection.find_or_create_run(self._spool.run_id, record["name"], record["tags"], record["ms"])
        self._run = created
        params = [Param(key, value[:_PARAM_CHARS]) for key, value in record["params"].items()]
        with self._connection.asking("recording parameters") as client:
            client.update_run(created, status="RUNNING")
            client.log_batch(created, tags=[RunTag(key, value) for key, value in record["tags"].items()][:_PARAMS_A_BATCH])
            for first in range(0, len(params), _PARAMS_A_BATCH):
                client.log_batch(created, params=params[first : first + _PARAMS_A_BATCH])
        if record["dataset"]:
            self._send_dataset(record["dataset"])

    def _send_dataset(self, dataset: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, InputTag
        from mlflow.entities import DatasetInput as MlflowInput

        entity = Dataset(
            name=dataset["name"], digest=dataset["version"][:36], source_type="dvc", source=json.dumps({"uri": dataset["source"]})
        )
        with self._connection.asking("recording the data set") as client:
            client.log_inputs(self._run, [MlflowInput(dataset=entity, tags=[InputTag("mlflow.data.context", "training")])])
            client.set_tag(self._run, "dataset_version", dataset["version"])

    def _send_file(self, record: Mapping[str, Any]) -> None:
        path = self._spool.kept(record["kept"])
        if not path.exists():  # delivered and dropped, then the cursor was lost
            return
        folder = str(Path(record["name"]).parent)
        with self._connection.asking(f"recording {record['name']}") as client:
            client.log_artifact(self._run, str(path), artifact_path=None if folder == "." else folder)

    def _send_finish(self, record: Mapping[str, Any]) -> None:
        with self._connection.asking("closing the run") as client:
            client.set_terminated(self._run, status=record["status"].upper(), end_time=record["ms"])


class MlflowRegistry:
    """Model versions in MLflow. See `components.ports.ModelRegistry`.

    Compare-and-set of the champion is read, compare, write under a file lock beside the records: safe among processes that
    share `home`. MLflow itself has no such operation, so two machines with homes of their own can still race.
    """

    def __init__(self, address: TrackingAddress) -> None:
        self._address = address
        self._connection = _Connection(address)

    def create_version(
        self,
        name: str,
        *,
        checkpoint_uri: str,
        checkpoint_digest: str,
        contract_id: str,
        run_id: str,
        lineage: Mapping[str, str],
    ) -> ModelVersion:
        """Register a checkpoint; its digest is its identity."""
        with self._locked(name), self._asking(f"registering {name}") as client:
            for version in self._versions(client, name):
                if version.checkpoint_digest == checkpoint_digest:
                    return version
            run = self._connection.find_or_create_run(run_id, f"register-{name}", {}, time.time_ns() // 1_000_000)
            pointer = json.dumps({"uri": checkpoint_uri, "sha256": checkpoint_digest}, indent=1)
            client.log_text(run, pointer, "checkpoint/checkpoint.json")
            tags = {**lineage, "checkpoint_digest": checkpoint_digest, "checkpoint_uri": checkpoint_uri}
            tags |= {"contract_id": contract_id, "run_id": run_id}
            # "runs:/" because a server refuses sources that are local paths outside a run's artifacts
            created = client.create_model_version(name, source=f"runs:/{run}/checkpoint", run_id=run, tags=tags)
            return _model_version(created, "")

    def champion(self, name: str) -> ModelVersion | None:
        """The version that carries the alias, or None."""
        with self._asking(f"asking for the champion of {name}") as client:
            return self._champion(client, name)

    def promote(self, candidate: ModelVersion, *, expected: int | None) -> ModelVersion:
        """Move the alias if it is where the gate saw it."""
        with self._locked(candidate.name), self._asking(f"promoting {candidate.name} {candidate.version}") as client:
            current = self._champion(client, candidate.name)
            if current is not None and current.version == candidate.version:
                return current
            found = current.version if current else None
            if found != expected:
                raise TrackingError(
                    f"champion of {candidate.name} is version {found}, expected {expected}: someone promoted in between; "
                    f"judge version {candidate.version} against version {found} and promote again"
                )
            if found is not None:
                client.set_model_version_tag(candidate.name, str(candidate.version), "replaced", str(found))
            client.set_registered_model_alias(candidate.name, CHAMPION, str(candidate.version))
            promoted = self._champion(client, candidate.name)
            require(promoted is not None and promoted.version == candidate.version, "MLflow did not move the alias", error=TrackingError)
            assert promoted is not None
            return promoted

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        with self._asking(f"listing versions of {name}") as client:
            return self._versions(client, name)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[MlflowClient]:
        self._connection.check(insist=True)
        with self._connection.asking(what) as client:
            yield client

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self._address.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"registry-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _versions(self, client: MlflowClient, name: str) -> list[ModelVersion]:
        with contextlib.suppress(Exception):  # exists already; a real failure shows in the search below
            client.create_registered_model(name)
        champion = self._champion_number(client, name)
        found = client.search_model_versions(f"name='{name}'", max_results=1000)
        return sorted((_model_version(v, champion) for v in found), key=lambda v: v.version)

    def _champion(self, client: MlflowClient, name: str) -> ModelVersion | None:
        number = self._champion_number(client, name)
        return _model_version(client.get_model_version(name, number), number) if number else None

    def _champion_number(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            aliases = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise
        return str(aliases.get(CHAMPION, ""))


def _model_version(found: Any, champion: str) -> ModelVersion:
    tags = dict(found.tags)
    own = ("checkpoint_digest", "contract_id", "dataset_version", "replaced")
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        checkpoint_digest=tags.get("checkpoint_digest", ""),
        contract_id=tags.get("contract_id", ""),
        dataset_version=tags.get("dataset_version", ""),
        alias=CHAMPION if str(found.version) == champion else "candidate",
        replaced=tags.get("replaced", ""),
        lineage={key: value for key, value in sorted(tags.items()) if key not in own},
    )


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


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """A nested document as flat text parameters: keys joined with dots, lists as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
