"""The gate's answer: four outcomes, and the state of every criterion that led to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["promote", "reject", "not enough", "invalid"]
State = Literal["holds", "fails", "open", "not enough", "invalid", ""]

NOT_ENOUGH = "not enough evidence"  # how the reason of an undecided criterion begins
IMAGE_SWAP_CHANGE = "image_swap_change"  # of a report's `blindness`
ERROR_RATIO = "error_ratio"  # of a report's `open_loop`


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One criterion of the gate: whether it holds, and a sentence with what was needed and what was got.

    state: "fails" was shown to fail; "open" is not decided yet and further trials can; "not enough" was not decided by the planned maximum;
    "invalid" cannot be judged at all; "" in records of older versions, which did not tell.
    """

    name: str
    passed: bool
    reason: str
    needed: float | None = None
    got: float | None = None
    state: State = ""

    @property
    def stands(self) -> State:
        """The state, read from the reason where an older version recorded none."""
        if self.state:
            return self.state
        return "holds" if self.passed else "not enough" if self.reason.startswith(NOT_ENOUGH) else "fails"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Promote or not, with every reason (also of the criteria that hold).

    outcome: "" in records of older versions; `decided` reads it from the criteria. plan: what could be expected of the comparison before
    its trials, a sentence a line. study, head: where its trials are on record, and the last hash of their chain ("" without a comparison).
    """

    promote: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    candidate: str = ""
    champion: str = ""
    outcome: Literal["promote", "reject", "not enough", "invalid", ""] = ""
    plan: tuple[str, ...] = ()
    study: str = ""
    head: str = ""

    @property
    def decided(self) -> Outcome:
        """The outcome."""
        return self.outcome or outcome_of(self.checks, promote=self.promote)


def outcome_of(checks: Iterable[Check], *, promote: bool) -> Outcome:
    """What follows from the criteria: one that cannot be judged makes the whole invalid, one that fails rejects, whatever else is open."""
    states = {check.stands for check in checks}
    if "invalid" in states:
        return "invalid"
    if "fails" in states:
        return "reject"
    if states & {"open", "not enough"}:
        return "not enough"
    return "promote" if promote else "reject"


def verdict_of(checks: Sequence[Check], candidate: str, champion: str) -> GateVerdict:
    """The verdict that follows from the criteria: what does not hold is told first. candidate, champion: digests of checkpoints."""
    outcome = outcome_of(checks, promote=all(check.passed for check in checks))
    return GateVerdict(
        promote=outcome == "promote",
        reasons=tuple(check.reason for check in sorted(checks, key=lambda check: check.passed)),
        checks=tuple(checks),
        candidate=candidate,
        champion=champion,
        outcome=outcome,
    )
