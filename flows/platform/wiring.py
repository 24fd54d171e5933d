"""The one place where settings become things: the store, the tracker, the registry, the object store.

Everything else is handed what it needs. Adapters are made when first asked for, so that a run of finished steps pays for none.
"""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.step_store import FaultHook, StepStore
from flows.platform.settings import Settings, environment_of, load_settings, prepare_process

if TYPE_CHECKING:
    from components.adapters.mlflow.reading.records import TrackingReader
    from components.adapters.mlflow.server import TrackingAddress
    from components.config.ports import Cluster, ModelRegistry, Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the flows work with."""

    settings: Settings
    store: StepStore

    @property
    def environment(self) -> dict[str, str]:
        """What a child process must find in its environment."""
        return environment_of(self.settings)

    @property
    def tracking_address(self) -> TrackingAddress:
        """Where MLflow is."""
        from components.adapters.mlflow.server import TrackingAddress

        return TrackingAddress(
            home=self.settings.home.resolve(),
            uri=self.settings.mlflow_uri,
            champions_url=self.settings.champions_url.get_secret_value(),
            authorization=self.settings.mlflow_authorization,
        )

    def tracker(self) -> Tracker:
        """A new tracker; it keeps one run at a time."""
        from components.adapters.mlflow.runs import MlflowTracker

        return MlflowTracker(self.tracking_address)

    def tracking_reader(self) -> TrackingReader:
        """Reads what was recorded. Raises `NotReady` before the first run."""
        from components.adapters.mlflow.reading.open import open_reader

        return open_reader(self.tracking_address)

    def registry(self) -> ModelRegistry:
        """The model registry."""
        from components.adapters.mlflow.registry import MlflowRegistry

        return MlflowRegistry(self.tracking_address)


def open_platform(settings: Settings | None = None) -> Platform:
    """Read the settings (unless given), prepare this process and open the store."""
    settings = settings or load_settings()
    prepare_process(settings)
    return Platform(settings=settings, store=StepStore(settings.store_root, fault=fault_hook(settings.fault)))


def open_cluster(kubeconfig: Path | None = None) -> Cluster:
    """The Kubernetes cluster of `kubeconfig`; without one, the cluster that this process runs in, else the usual kubeconfig.

    Raises `JobError` when none of them can be used.
    """
    from components.adapters.kubernetes import KubernetesCluster

    inside = kubeconfig is None and Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
    return KubernetesCluster(kubeconfig=str(kubeconfig or ""), in_cluster=inside)


def fault_hook(fault: str) -> FaultHook | None:
    """Tests only: at '<stage>:<phase>' kill this process and its group with SIGKILL, as a power cut would."""
    if not fault:
        return None

    def kill(stage: str, phase: str) -> None:
        if f"{stage}:{phase}" == fault:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    return kill
