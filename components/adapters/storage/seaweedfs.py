"""The embedded object store: SeaweedFS as a child process on loopback, with keys of its own and data that stays.

    <folder>/data/           what SeaweedFS keeps
    <folder>/endpoint.json   address, keys and ports; readable by this user only
    <folder>/identities.json the same keys as SeaweedFS reads them
    <folder>/weed.log

A running server of the same folder is joined, not started twice. A guard process (`seaweedfs_process`) ends the server when the
process that started it is gone, however that ended.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from components.adapters.http import Readiness, wait_until_ready
from components.adapters.storage.s3 import S3Address, S3Store
from components.adapters.storage.seaweedfs_process import HOST, PORTS, free_ports, is_free, weed
from components.artifacts.files import write_private
from components.config.paths import REPOSITORY
from model_core.spec.errors import StorageError

PROBE = "actwright-probe"
_REGION = "us-east-1"  # our own server takes any; a named one spares the question for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the store answers, with which keys, and the folder that it keeps its data in. Never logged."""

    endpoint: str
    access_key: str
    secret_key: str
    ports: tuple[int, ...]
    folder: str = ""

    @property
    def url(self) -> str:
        """As DVC and others want it."""
        return f"http://{self.endpoint}"

    def store(self, bucket: str) -> S3Store:
        """A client of one bucket."""

        def full() -> str:
            return no_room(Path(self.folder)) if self.folder else ""

        address = S3Address(endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key, region=_REGION)
        return S3Store(address, bucket, no_room=full)


def no_room(folder: Path) -> str:
    """A sentence when the disk under a store's folder is too full for it, with what to do; "" while it is not.

    SeaweedFS keeps a hundredth of the disk free and takes space in volumes, of 64 MiB on a small disk to 1 GiB on a large one: it
    refuses long before the last byte, and then answers every write with a plain "internal error".
    """
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return ""
    needed = max(128 * 2**20, disk.total // 100 + min(2**30, disk.total // 100))
    if disk.free >= needed:
        return ""
    return (
        f"the disk that holds {folder} is full ({disk.free} bytes free, the embedded object store needs {needed} to work). Fix: free space "
        "on that disk, or keep data elsewhere (ACTWRIGHT_STORAGE: a folder or another S3 endpoint), then run again; what was sent is kept"
    )


class LocalS3:
    """A context manager: `with LocalS3(folder) as endpoint: endpoint.store("actwright")`."""

    def __init__(self, folder: Path, *, patience_s: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._patience_s = patience_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The guard's process id while this object runs the server; None when it joined another's."""
        return self._process.pid if self._process else None

    def start(self) -> Endpoint:
        """Start the server, or join the one that runs over this folder. Raises `StorageError` with the log's last lines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        running = self._known()
        if running is not None and _answers(running, whole=False):
            return running
        endpoint = replace(_endpoint(running), folder=str(self.folder))
        self._write_private("endpoint.json", {k: v for k, v in asdict(endpoint).items() if k != "folder"})  # the folder may be moved
        credentials = [{"accessKey": endpoint.access_key, "secretKey": endpoint.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        self._write_private("identities.json", {"identities": [{"name": "actwright", "credentials": credentials, "actions": actions}]})
        guard = [
            sys.executable,
            "-m",
            "components.adapters.storage.seaweedfs_process",
            str(os.getpid()),
            str(self.folder / "lock"),
            str(self.folder / "weed.log"),
        ]
        self._process = subprocess.Popen(
            [*guard, *self._command(endpoint)],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait(endpoint)
        return endpoint

    def stop(self) -> None:
        """Stop the server if this object started it; waits until it is gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)

    def __enter__(self) -> Endpoint:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _command(self, endpoint: Endpoint) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        quiet = ["-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        ports = [f"-{name}={port}" for name, port in zip(PORTS, endpoint.ports, strict=True)]
        return [
            weed(),
            "mini",
            f"-dir={data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *quiet,
            *ports,
            f"-s3.config={self.folder / 'identities.json'}",
        ]

    def _known(self) -> Endpoint | None:
        try:
            document = json.loads((self.folder / "endpoint.json").read_text(encoding="utf-8"))
            return Endpoint(**{**document, "ports": tuple(document["ports"]), "folder": str(self.folder)})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write_private(self, name: str, document: object) -> None:
        write_private(self.folder / name, json.dumps(document))

    def _wait(self, endpoint: Endpoint) -> None:
        assert self._process is not None
        process = self._process
        ready = wait_until_ready(
            lambda: _answers(endpoint, whole=True), timeout_s=self._patience_s, is_alive=lambda: process.poll() is None
        )
        if ready is Readiness.READY:
            return
        self.stop()
        if full := no_room(self.folder):
            raise StorageError(f"the embedded object store did not come up: {full}")
        log = self.folder / "weed.log"
        last = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.exists() else "(no log)"
        raise StorageError(
            f"the embedded object store did not come up within {self._patience_s:.0f} s on {endpoint.endpoint}. Its log ends:\n{last}\n"
            f"Fix: look into {log.name}, free disk space, or use a folder or another S3 endpoint instead (ACTWRIGHT_STORAGE)"
        )


def _endpoint(known: Endpoint | None) -> Endpoint:
    """Keys and ports of last time where they are still free, so that addresses noted elsewhere stay valid."""
    ports = known.ports if known and len(known.ports) == len(PORTS) and all(is_free(p) for p in known.ports) else free_ports(len(PORTS))
    return Endpoint(
        endpoint=f"{HOST}:{ports[0]}",
        access_key=known.access_key if known else f"aw{secrets.token_hex(9)}",
        secret_key=known.secret_key if known else secrets.token_urlsafe(30),
        ports=tuple(ports),
    )


def _answers(endpoint: Endpoint, *, whole: bool) -> bool:
    """Whether our store, with our keys, answers there; another program on the same port does not count.

    whole: it also returns an object of an earlier run and accepts a new one. SeaweedFS lists buckets about a second
    before its volumes have reported, and until then every read is a 500.
    """
    with socket.socket() as probe:
        probe.settimeout(0.5)
        if probe.connect_ex((HOST, endpoint.ports[0])) != 0:
            return False
    import minio
    import urllib3

    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=3), retries=False)
    client = minio.Minio(
        endpoint.endpoint,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        secure=False,
        region=_REGION,
        http_client=pool,
    )
    try:
        buckets = [bucket.name for bucket in client.list_buckets()]
        if whole:
            if PROBE not in buckets:
                client.make_bucket(PROBE)
            for known in client.list_objects(PROBE):
                client.get_object(PROBE, str(known.object_name)).read()
            client.put_object(PROBE, "alive", io.BytesIO(b"yes"), 3)
    except (urllib3.exceptions.HTTPError, minio.error.MinioException, ValueError):
        return False
    return True
