"""The documents of the fleet: what a cell reports (`CellReport`), and what a controller answers (`DesiredState`).

POST /v1/cells/{cell}/report carries a report that the cell's key signed; the answer is a desired state that the controller's key
signed (`signatures.sealed`, `signatures.opened`). Neither is trusted further than it has to be: a controller counts what a cell
reports and nothing else, and an agent takes only releases that the update metadata of its own site lists.

Times are UTC in seconds since 1970 (`_at_s`), by the sender's clock; digests are SHA-256 (hex, 64) and "" where there is none. A
document is refused where a field is missing, unknown, of another type or out of range.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from model_core.spec.errors import SpecError, WireError, require

FORM = 1
CONTROLLER_PORT = 4000  # where it listens unless it is told otherwise
MOST_EPISODES = 256  # of one report; the next one carries the rest
MOST_DIGESTS = 256
LONGEST_REASON = 400  # characters of what a person or a rule gives as reason

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
Name = Annotated[str, Meta(pattern=_NAME)]  # of a cell, a site, an episode: a part of an address
Digest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Text = Annotated[str, Meta(max_length=2000)]
Word = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=-1e12, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]

Phase = Literal["idle", "download", "verify", "probe", "ready", "swap"]
SlotState = Literal["empty", "partial", "verified", "probed", "refused"]
Outcome = Literal["success", "failure", "uncounted"]
ErrorCode = Literal[
    "UNREACHABLE",  # the controller or the repository did not answer
    "CONTROLLER",  # an answer that is not this controller's, or not to this report
    "METADATA",  # update metadata that does not verify: signature, version, mixture
    "EXPIRED",  # update metadata whose time is over, by this computer's clock
    "NOT_OFFERED",  # the site's metadata do not list the release
    "ROLLBACK",  # older than what ran, and not listed as last known good
    "BLOCKED",  # a kill switch names the release
    "SIGNATURE",  # the release's own signature does not hold
    "DIGEST",  # bytes other than those that were signed
    "NO_SPACE",  # the disk is full, or the policy services that cells share are all in use
    "AGENT_TOO_OLD",  # the release asks for a newer agent
    "MAY_NOT_RUN",  # neither the gate nor a named person lets it run
    "START",  # its policy service did not become ready on this computer
    "PROBES",  # its golden probes are answered otherwise on this computer
    "INTERNAL",
]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all of them: immutable, and strict when read."""


class UpdateError(Document, frozen=True, kw_only=True):
    """Why an update does not go on. since_at_s: when it was first seen."""

    code: ErrorCode
    message: Text
    release: Digest = ""
    since_at_s: Seconds = 0.0


class Slot(Document, frozen=True, kw_only=True):
    """One of the two places for a release. state: "verified" all bytes are right, "probed" its probes were answered here too."""

    name: Literal["a", "b"]
    state: SlotState = "empty"
    release: Digest = ""


class OverrideInForce(Document, frozen=True, kw_only=True):
    """The person who let the running release reach robots, and why."""

    name: Text
    reason: Text


class EpisodeRecord(Document, frozen=True, kw_only=True):
    """One finished episode of a cell.

    outcome: "uncounted" where the robot failed or a person ended it. stage_score: 0..1, share of the task's stages that were reached.
    interventions, clips, holds, deadline_misses, refusals: how often. novelty: 0..1, None where it is not measured. cut_by: what ended
    the episode before its time ("", or such as "kill", "operator", "offline").
    """

    id: Name
    release: Digest
    task: Word
    started_at_s: Seconds
    ended_at_s: Seconds
    outcome: Outcome
    stop_reason: Word = ""
    steps: Count = 0
    stage_score: Share | None = None
    interventions: Count = 0
    clips: Count = 0
    holds: Count = 0
    deadline_misses: Count = 0
    refusals: Count = 0
    novelty: Share | None = None
    cut_by: Word = ""


class ShadowComparison(Document, frozen=True, kw_only=True):
    """How a candidate's answers differ from the live ones on a task. count: decisions of both that were compared. asked: observations that
    the running release answered; refused: of these, that the candidate refused. distances: name of a measure -> the mean of its means over
    episodes; "refused" is the share of all observations that the candidate refused."""

    release: Digest
    task: Word
    count: Count
    asked: Count = 0
    refused: Count = 0
    distances: Annotated[dict[Word, float], Meta(max_length=64)] = {}

    def __post_init__(self) -> None:
        require(all(math.isfinite(value) for value in self.distances.values()), "a distance is NaN or inf", error=WireError)


class CellReport(Document, frozen=True, kw_only=True):
    """What a cell is and did, told by its agent.

    sequence: grows with each report, over restarts too. boot: id of this start of the computer. clock_offset_s: the controller's
    clock less this one, as the last answer showed it; None before the first. running: the release that answers episodes now, as the
    policy service itself says. contract: id of its contract. limits: digest of the commissioning file in force. version: of the newest
    release that ever ran here, by its number in the site's list. offline: the rule for a lost controller is in force, with so many
    episodes left (None: not limited). episodes: finished ones that were not acknowledged yet, oldest first, at most `MOST_EPISODES`;
    waiting: how many more there are.
    """

    cell: Name
    site: Name
    agent_version: Word
    sequence: Annotated[int, Meta(ge=1, le=2**53)]
    boot: Word
    sent_at_s: Seconds
    tasks: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    labels: Annotated[dict[Word, Word], Meta(max_length=32)] = {}
    clock_offset_s: Seconds | None = None
    revision: Count = 0
    slots: Annotated[tuple[Slot, ...], Meta(max_length=2)] = ()
    running: Digest = ""
    contract: Word = ""
    limits: Digest = ""
    version: Count = 0
    phase: Phase = "idle"
    target: Digest = ""
    error: UpdateError | None = None
    in_episode: bool = False
    offline: bool = False
    episodes_left: Count | None = None
    override: OverrideInForce | None = None
    episodes: Annotated[tuple[EpisodeRecord, ...], Meta(max_length=MOST_EPISODES)] = ()
    waiting: Count = 0
    shadow: Annotated[tuple[ShadowComparison, ...], Meta(max_length=64)] = ()
    form: Literal[1] = FORM


class DesiredState(Document, frozen=True, kw_only=True):
    """What a controller proposes to one cell, in answer to one report.

    revision: grows with every change of the proposal for this cell; an agent takes none that is older than the last. release: "" for
    "what runs now". plan, stage, reason: of which rollout, for people. rollback_to: older releases that may be taken again. blocked:
    releases that may not run (kill switch). acknowledged_sequence: of the report that is answered, so that no answer fits another
    question. acknowledged: ids of episodes that are on record and need not be sent again. report_every_s: when to ask again.
    """

    cell: Name
    revision: Count
    acknowledged_sequence: Count
    sent_at_s: Seconds
    release: Digest = ""
    plan: Word = ""
    stage: Word = ""
    reason: Text = ""
    shadow: Digest = ""
    rollback_to: Annotated[tuple[Digest, ...], Meta(max_length=MOST_DIGESTS)] = ()
    blocked: Annotated[tuple[Digest, ...], Meta(max_length=MOST_DIGESTS)] = ()
    acknowledged: Annotated[tuple[Name, ...], Meta(max_length=2 * MOST_EPISODES)] = ()
    report_every_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    form: Literal[1] = FORM


KINDS: dict[type[Document], str] = {CellReport: "cell-report", DesiredState: "desired-state"}


def checked_name(what: str, name: str) -> str:
    """A `Name` that a person gives. Raises `SpecError`."""
    if not re.match(_NAME, name):
        raise SpecError(f"{what}: expected letters, digits, '.', '_' and '-', at most 64 and a letter or digit first, got {name[:80]!r}")
    return name


def checked_reason(reason: str) -> str:
    """A reason that a person gives, or none. Raises `SpecError`."""
    if len(reason) > LONGEST_REASON:
        raise SpecError(f"reason: expected at most {LONGEST_REASON} characters, got {len(reason)}")
    return reason


def canonical(document: Document) -> bytes:
    """The one text for a document: JSON, UTF-8, keys sorted, no spaces."""
    return msgspec.json.encode(document, order="sorted")
