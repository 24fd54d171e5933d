"""How the training stage trains on a cluster: the data set is sent where machines fetch it, then the job is submitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.pipeline.stages.training import Launch
from flows.platform.settings import Settings

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec
    from components.config.ports import Cluster, Tracker
    from components.config.records import Progress
    from components.training.job import TrainingTask


def cluster_launch(settings: Settings, spec: JobSpec, open_cluster: Callable[[], Cluster]) -> Launch:
    """Trains as the job `spec`. The cluster is opened when the training begins."""

    def launch(task: TrainingTask, tracker: Tracker | None, progress: Progress) -> Mapping[str, Any]:
        from components.training.on_cluster import train_on_cluster

        found = open_cluster()
        fitted = found.fitted(spec)  # before anything is sent
        return train_on_cluster(task, tracker, progress, cluster=found, spec=_with_data_sent(settings, fitted, task, progress))

    return launch


def _with_data_sent(settings: Settings, spec: JobSpec, task: TrainingTask, progress: Progress) -> JobSpec:
    if spec.data is None:
        return spec
    from components.adapters.storage.frozen_data import send_frozen
    from flows.pipeline.storage import storage

    with storage(settings) as (store, _):
        digest = send_frozen(store, task.frozen, progress)
    return replace(spec, data=replace(spec.data, digest=digest))
