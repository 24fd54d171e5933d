"""Which reader an address has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.adapters.mlflow.reading.records import TrackingReader
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from components.adapters.mlflow.server import TrackingAddress


def open_reader(address: TrackingAddress) -> TrackingReader:
    """The reader of `address`; raises `NotReady` where nothing was recorded yet."""
    uri = address.tracking_uri
    if address.is_server:
        from components.adapters.mlflow.reading.server import ServerReader

        return ServerReader(uri, address.experiment, authorization=address.authorization, timeout_s=address.timeout_s)
    from components.adapters.mlflow.reading.database import DatabaseReader

    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.is_file():
        raise NotReady(f"nothing was recorded yet: there is no {file}. Fix: begin with `actwright run`")
    return DatabaseReader(uri, address.experiment)
