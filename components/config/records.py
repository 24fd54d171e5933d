"""What the stages pass to each other and to people: small frozen records, plain JSON in both directions.

A record never holds a tensor, an open client, a wall-clock time or a path of this machine. What may differ
between two equal runs (timings, ids that a server made up) sits under the key ``undigested`` of a step's record
(see `components.artifacts.step_store`). `model_core.spec.documents` writes and reads all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from components.config.judging.verdict import GateVerdict


class Progress(Protocol):
    """Where a stage reports how far it is. Called often; implementations are cheap and never raise."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """`done` of `total` units (episodes, steps ...) are finished; `message` is one short line for a person."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why an item fails a check, and so is not used.

    check: name of the check. where: episode id, file or field. reason: one sentence with expected and got.
    """

    check: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Episodes of one source that a stage did not hand on, for one reason. frames: 0 where they were not counted."""

    reason: str
    episodes: int
    frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """What one stage handed on of the data of one source, and what fell away there: a row of the account of the data.

    source: who recorded the episodes ("" where it cannot tell). frames: handed on; intervened: those in which a person acted."""

    stage: str
    source: str
    episodes: int
    frames: int
    dropped: tuple[Dropped, ...] = ()
    intervened: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A frozen data set: `version` is the digest that names it; counts are of what it holds.

    annotators: annotator name -> version. parents: digests of the raw data sets it was made from. producers: who recorded
    the raw episodes (experts, policies) -> how many.
    """

    version: str
    name: str
    episodes: int
    frames: int
    quarantined: int = 0
    train_frames: int = 0
    validation_frames: int = 0
    contract_id: str = ""
    annotators: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    producers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRun:
    """One finished training: which data, how many steps, what came out.

    run_id: the tracker's id ("" where none).
    """

    run_id: str
    dataset_version: str
    recipe_digest: str
    checkpoint_digest: str
    steps: int
    final_loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided confidence interval of a proportion, 0..1."""

    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """How often one task was solved. Episodes that ended with ENV_ERROR are not trials."""

    successes: int
    trials: int
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One evaluation episode. stop_reason: a `StopReason` value; steps: control steps; refusals: refused decisions.

    progress: the best stage of the task that was reached, 0..1 (1 is the success); where a suite measures no stages, the success alone.
    holds: control steps that were held for want of an action; clips, drops: commands that a safety envelope clipped, answers that were
    dropped, where there is such a thing.
    """

    task: str
    seed: int
    success: bool
    stop_reason: str
    steps: int
    decisions: int
    refusals: int
    detail: str = ""
    progress: float = 0.0
    holds: int = 0
    clips: int = 0
    drops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRow:
    """One held-out episode: rows of chunks that were compared; summed absolute error of prediction and mean action in each dimension."""

    episode: str
    rows: int
    error: Mapping[str, float]
    mean_error: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """What a checkpoint did in closed loop on fresh seeds, or on held-out episodes where there is no suite.

    open_loop: of held-out episodes, "error_ratio" (the error of the predicted actions over that of always predicting the mean action),
    "frames", "refused" and the ratio of each action dimension; empty after rollouts. held_out: what it is the sum of.
    """

    checkpoint_digest: str
    contract_id: str
    successes: int
    trials: int
    interval: Interval
    per_task: Mapping[str, TaskScore]
    episodes: tuple[RolloutRow, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    blindness: Mapping[str, float] = field(default_factory=dict)
    open_loop: Mapping[str, float] = field(default_factory=dict)
    held_out: tuple[HeldOutRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A registered version. alias: "champion" when promoted, "candidate" when held. lineage: name -> digest or version."""

    name: str
    version: int
    contract_id: str
    checkpoint_digest: str
    dataset_version: str
    alias: str = "candidate"
    replaced: str = ""
    bento: str = ""
    lineage: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkcellRow:
    """What one workcell did with the served policy. p50_ms, p99_ms: from the request to the chunk. flags: so many chunks came with each."""

    cell: str
    task: str
    episodes: int
    successes: int
    decisions: int
    refusals: int
    p50_ms: float
    p99_ms: float
    holds: int = 0
    refused_to_move: str = ""
    flags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """How long one stage took now, and whether its result was cached."""

    seconds: float
    cached: bool
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A whole run of the loop, as ``summary.json`` holds it and as the report draws it.

    stages: in order of work. recipe: the resolved recipe document. paths: stage -> the step's folder (of this machine, hence
    never digested). workcells: empty when the gate held. tracker_run_id: the tracker's own id of the training run, "" for none.
    account: of the data, in order of work. notes: what a person should know of the data.
    """

    name: str
    recipe_name: str
    recipe: Mapping[str, Any]
    stages: Mapping[str, StageTiming]
    dataset: DatasetVersion
    train: TrainRun
    evaluation: EvalReport
    verdict: GateVerdict
    model_version: ModelVersion
    workcells: tuple[WorkcellRow, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    tracker_run_id: str = ""
    account: tuple[AccountRow, ...] = ()
    notes: tuple[str, ...] = ()
