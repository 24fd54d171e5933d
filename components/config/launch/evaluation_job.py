"""An evaluation on several machines as a frozen value: pods that need not run at the same time, each with its share of the cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from components.config.launch.cluster_job import JobSpec
from model_core.spec.errors import require

POD_MODULE = "components.evaluation.spread.pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec(JobSpec):
    """`nodes` pods, each of which runs its share of the groups. job: path of their document. retries: of a share whose pod failed.

    Always an Indexed Job: a JobSet would add nothing, for no pod waits for another.
    """

    retries: int = 3

    template: ClassVar[str] = "evaluate-job.yaml"
    is_gang: ClassVar[bool] = False

    def __post_init__(self) -> None:
        JobSpec.__post_init__(self)
        require(self.placement.kind in ("auto", "job"), "an evaluation is an Indexed Job. Fix: leave --kind out", got=self.placement.kind)
        require(0 <= self.retries <= 100, "retries of a share must be 0 to 100", got=self.retries)

    @property
    def command(self) -> list[str]:
        """What every pod runs. Kubernetes replaces $(JOB_COMPLETION_INDEX) by the pod's number."""
        return [self.python, "-m", POD_MODULE, self.job, str(self.nodes), "$(JOB_COMPLETION_INDEX)"]
