"""What the stages need from outside systems: protocols, and the small values that cross them.

Every port has a real adapter (named after the outside system, one file each) and a twin for tests. Nothing here
knows MLflow or Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from components.config.judging.champion_entry import ChampionEntry, How
from components.config.records import ModelVersion

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec

RUN_STATUSES = ("finished", "failed", "killed")


@dataclass(frozen=True, slots=True)
class Metric:
    """One point of a curve. `step` counts optimizer steps (or episodes); a (key, step) is recorded once, the first wins."""

    key: str
    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInput:
    """The data a run was made from: `version` is the digest that DVC and the manifest know it by."""

    name: str
    version: str
    source: str = ""


class Tracker(Protocol):
    """Keeps what happened in a run. A tracker that cannot reach its server keeps the records and logs it once.

    A run has *our* id: the caller's `run_id` (a step key, say) or a new random one. Starting the same id again resumes
    that run, so a killed and restarted stage has one run and one curve.
    """

    def start_run(
        self,
        name: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        run_id: str = "",
        dataset: DatasetInput | None = None,
    ) -> str:
        """Open (or resume) a run and return its id. `params` may be nested: keys are joined with dots."""
        ...

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Record points of curves. Never blocks long and never raises because a server is away."""
        ...

    def log_image(self, name: str, path: Path) -> None:
        """Record an image file (small: it is uploaded) under `name`, such as "examples/step_0200.png"."""
        ...

    def log_text(self, name: str, text: str) -> None:
        """Record a text file under `name`, such as "recipe.json"."""
        ...

    def finish(self, status: str = "finished") -> None:
        """Close the run as one of `RUN_STATUSES` and send what is left."""
        ...

    def server_run_id(self, run_id: str) -> str:
        """The id under which the tracking server shows our `run_id`; "" while it does not know the run."""
        ...


class ModelRegistry(Protocol):
    """Which versions of a model exist and which one is the champion."""

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
        """Register a checkpoint as a candidate; the same digest again gives the version it already has. Raises `TrackingError`.

        lineage: name -> digest, version or number as text; holds at least "dataset_version". run_id: ours.
        """
        ...

    def champion(self, name: str) -> ModelVersion | None:
        """The champion, or None. Raises `TrackingError` when the registry does not answer. An alias that says otherwise is put back."""
        ...

    def champion_entry(self, name: str) -> ChampionEntry | None:
        """The newest entry, with the fencing number of the champion; None where the model never had one. Raises as `champion` does."""
        ...

    def champion_history(self, name: str) -> list[ChampionEntry]:
        """Every entry, oldest first: numbered from 1 without a gap."""
        ...

    def promote(self, candidate: ModelVersion, *, expected: int | None, how: How = "gate", reason: str = "") -> ModelVersion:
        """Make `candidate` champion if the champion is still number `expected` (None: there is none), or is `candidate` already.

        how, reason: by whose decision, as the entry records it. Raises `TrackingError` when someone else promoted in between.
        """
        ...

    def withdraw(self, name: str, *, expected: int, reason: str) -> ChampionEntry:
        """From here on no version is champion, if it is still number `expected`. Raises `TrackingError` when it is another one."""
        ...

    def adopt_table(self, name: str, reason: str) -> ChampionEntry | None:
        """Let the table of this registry decide from now on, where another one did that is lost: the champion stays whom the alias names.

        Returns the new entry, or None for a model that has no champion.
        """
        ...

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        ...


class ClusterJobState(Protocol):
    """The state of a job on a cluster: phase "queued", "pending", "running", "succeeded" or "failed", and what each pod is doing."""

    @property
    def phase(self) -> str:
        """Where the job is."""
        ...

    @property
    def pods(self) -> Mapping[str, str] | None:
        """Pod name -> what it is doing."""
        ...


class ClusterLack(Protocol):
    """One thing that a cluster lacks; certain: not only perhaps."""

    @property
    def what(self) -> str:
        """A few words that name it."""
        ...

    @property
    def certain(self) -> bool:
        """Whether it is known to be lacking."""
        ...

    def line(self) -> str:
        """What, what was found, and what to do."""
        ...


class Cluster(Protocol):
    """Where a training on several machines runs."""

    def fitted(self, spec: JobSpec) -> JobSpec:
        """The job as this cluster can run it. Raises `JobError` with all that the cluster lacks for it."""
        ...

    def lacks(self, spec: JobSpec) -> tuple[str, Sequence[ClusterLack]]:
        """The kind of object that would run the job, and what the cluster lacks, or may lack, for it and for the platform."""
        ...

    def submit(self, spec: JobSpec) -> str:
        """Start the job and return its uid; the same spec again finds the job that is there. Raises `JobError`."""
        ...

    def wait(self, spec: JobSpec, on_change: Callable[[Any], None] | None = None) -> ClusterJobState:
        """Wait for success; raises `JobError`, with the pods' last lines, for every other ending."""
        ...

    def logs(self, spec: JobSpec, lines: int = 20) -> dict[str, str]:
        """The last lines of every pod, by name."""
        ...

    def delete(self, spec: JobSpec, *, wait_s: float = 60.0) -> None:
        """Delete the job and all that belongs to it; one that is not there is fine."""
        ...
