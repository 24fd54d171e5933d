"""What the page of trials is told and tells: nothing in it says which of both policies is tried."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.spec.documents import Number


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study whose trials a person at a page leads. planned: trials at most."""

    study: str
    tasks: tuple[str, ...]
    done: int
    planned: int
    is_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRows:
    """Every such study of this home."""

    studies: tuple[StudyRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStage:
    """How far a failed trial can have come. progress: the share of the stages that were reached."""

    name: str
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTrial:
    """A trial as the ledger has it. outcome: "success", "failure" or "void"; stop_reason: why the robot stopped."""

    number: int
    blind: str
    task: str
    outcome: str
    progress: float
    stop_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialNow:
    """Where a study stands. phase: "lay out", "running" or "label"; "" where no program runs it. number: of the trial that is asked for,
    from 1. blind: the policy's name for this trial alone. mode: of the robot while it runs. stages: for a failure. last: of the ledger,
    None where it is empty. heard_at: seconds since 1970 by this console's clock.
    """

    study: str
    phase: str
    number: int
    planned: int
    task: str
    scene: int
    blind: str
    mode: str
    rubric: str
    void_rule: str
    stages: tuple[TrialStage, ...]
    last: RecordedTrial | None
    heard_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStart:
    """The scene is laid out, the robot may move. heard_at: as `TrialNow` told it last."""

    number: int
    heard_at: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer:
    """What came of a trial. key: 16 to 64 hex digits that the page drew for this answer; sent again, it is the same answer."""

    number: int
    key: str
    success: bool
    progress: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStop:
    """Stop the robot of the trial that runs."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTaken:
    """The start or answer is taken. is_repeated: it had been before."""

    number: int
    is_repeated: bool
