"""What happened, run by run: MLflow as `Tracker`.

Every record goes to a local spool first (see `components.adapters.mlflow.spool`) and from there, in batches, to the server. A server
that is away costs a warning, never a run: what it did not get is sent by the next run that reaches it. Delivery is exactly
once in effect: the cursor moves after the server took a batch, and a batch sent twice (killed in between) has the
timestamps it was spooled with, which MLflow recognises.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.adapters.mlflow.server import Connection, TrackingAddress
from components.adapters.mlflow.spool import RecordSpool
from components.config.ports import RUN_STATUSES, DatasetInput, Metric
from model_core.spec.errors import TrackingError, require

logger = logging.getLogger(__name__)

_METRICS_A_BATCH, _PARAMS_A_BATCH, _PARAM_CHARS = 1000, 100, 6000  # MLflow's own limits
_REFUSED_FOR_GOOD = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "MALFORMED_REQUEST")


class MlflowTracker:
    """Keeps runs in MLflow. See `components.config.ports.Tracker`; one run at a time."""

    def __init__(self, address: TrackingAddress) -> None:
        self._address = address
        self._connection = Connection(address)
        self._spool: RecordSpool | None = None
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
        spool = RecordSpool(self._address.spool_root, run_id or f"{plain_name}-{secrets.token_hex(4)}")
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

    def log_image(self, name: str, path: Path) -> None:
        """Record an image under `name`; the file may change or go afterwards."""
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

    def finish(self, status: str = "finished") -> None:
        """Close the run and send what is left, if the server answers."""
        require(status in RUN_STATUSES, f"status must be one of {', '.join(RUN_STATUSES)}", got=status)
        self._put({"kind": "finish", "status": status}, now=True)
        spool, self._spool = self._open(), None
        if spool.pending:
            logger.warning("run.kept run=%s spool=%s: sent to %s by the next run", spool.run_id, spool.path, self._address.tracking_uri)

    def server_run_id(self, run_id: str) -> str:
        """MLflow's id of our `run_id`; "" if it was never delivered or MLflow does not answer."""
        known = RecordSpool(self._address.spool_root, run_id).server_run_id
        if known:
            return known
        with contextlib.suppress(TrackingError):
            return self._connection.find_run(run_id)
        return ""

    def replay(self) -> int:
        """Send what earlier runs left behind; returns how many runs still have something waiting."""
        waiting = [spool for spool in RecordSpool.all_in(self._address.spool_root) if spool.pending]
        for spool in waiting:
            if not self._deliver(spool, insist=True):
                break
        return sum(spool.pending for spool in waiting)

    def _open(self) -> RecordSpool:
        require(self._spool is not None, "no run is open; call start_run first", error=TrackingError)
        assert self._spool is not None
        return self._spool

    def _put(self, record: dict[str, Any], *, now: bool = False) -> None:
        spool = self._open()
        spool.append({**record, "ms": time.time_ns() // 1_000_000})
        if now or time.monotonic() >= self._next_send:
            self._deliver(spool, insist=now)
            self._next_send = time.monotonic() + self._address.send_every_s

    def _deliver(self, spool: RecordSpool, *, insist: bool) -> bool:
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


class _Delivery:
    """Sends one spool's waiting records in order, moving the cursor after each batch that was taken."""

    def __init__(self, connection: Connection, spool: RecordSpool) -> None:
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
