"""MLflow's tables without a run in them: those that set-up keeps, else made once for a version of MLflow, and then copied."""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from components.artifacts.empty_databases import kept_database

_KEPT = Path(__file__).parents[1] / ".pytest_cache"


def copy_empty_database(home: Path) -> Path:
    """Put `mlflow.db` into the folder `home`, as MLflow itself makes it there; one that is there stays. Returns its path."""
    target = home / "mlflow.db"
    if not target.exists():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_empty_database(), target)
    return target


def _empty_database() -> Path:
    if kept_database("mlflow").exists():
        return kept_database("mlflow")
    kept = _KEPT / f"mlflow-{version('mlflow')}.db"
    _KEPT.mkdir(exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            from mlflow import MlflowClient

            with tempfile.TemporaryDirectory(dir=_KEPT) as folder:
                made = Path(folder, "mlflow.db")
                MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments()
                made.rename(kept)
    return kept
