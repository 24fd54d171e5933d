"""What a rule is, and what it says of a set: its faults, and of how many places it had evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from components.config.data_config import ValidateConfig
from components.data.inspection.folder.facts import Fact
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

DEFECT, RISK, UNKNOWN = "defect", "risk", "unknown"
SOUND = "sound"
SET = ""  # where a fault is of the whole set


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One place that breaks a rule. where: an episode id, a file or a column; `SET` for the whole set. reason: expected and got."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule found. looked_at of `of` `unit`s had evidence; `missing` says what was not there for the others."""

    faults: tuple[Fault, ...] = ()
    looked_at: int = 0
    of: int = 0
    unit: str = "episodes"
    missing: str = ""


Judge = Callable[[SetMeasurements, ValidateConfig], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionCheck:
    """One rule. id: its name in reports. severity: of what breaks it: `DEFECT` (set aside), `RISK` (told) or `UNKNOWN` (evidence missing).

    reason: why it matters. fix: what to do. source: who reported or documented it, public (repository#number, or a page).
    """

    id: str
    family: str
    severity: str
    reason: str
    fix: str
    source: str
    judge: Judge


CHECKS: dict[str, InspectionCheck] = {}


def check(name: str, *, severity: str, reason: str, fix: str, source: str) -> Callable[[Judge], Judge]:
    """Register the function below as the rule `name`; its family is the module or package of `checks` that it stands in."""

    def register(judge: Judge) -> Judge:
        family = judge.__module__.partition(".checks.")[2].partition(".")[0]
        CHECKS[name] = InspectionCheck(id=name, family=family, severity=severity, reason=reason, fix=fix, source=source, judge=judge)
        return judge

    return register


def of_facts(measured: SetMeasurements, kind: str, unit: str, missing: str = "") -> Verdict:
    """The facts of one kind, with the number of places that were looked at for it. missing: why there may be none."""
    found = tuple(Fault(where=fact.where, reason=fact.reason) for fact in measured.facts if fact.kind == kind)
    looked = max(measured.looked_at.get(kind, 0), len(found))
    return Verdict(
        faults=found, looked_at=looked, of=looked, unit=unit, missing="" if looked else missing or f"there are no {unit} to look at"
    )


def of_episodes(
    measured: SetMeasurements, judge: Callable[[EpisodeMeasurements], str | None], missing: str, unit: str = "episodes"
) -> Verdict:
    """Ask `judge` about every episode: a reason, "" where it is sound, None where there is no evidence (`missing` says of what)."""
    said = [(episode, judge(episode)) for episode in measured.episodes]
    faults = tuple(Fault(where=episode.episode_id, reason=reason) for episode, reason in said if reason)
    looked = sum(reason is not None for _, reason in said)
    return Verdict(faults=faults, looked_at=looked, of=len(said), unit=unit, missing=missing if looked < len(said) else "")


def of_pictures(measured: SetMeasurements, judge: Callable[[EpisodeMeasurements, str], str | None], missing: str) -> Verdict:
    """Ask `judge` about every camera of every episode; the denominator is frames."""
    faults: list[Fault] = []
    looked, total = 0, 0
    for episode in measured.episodes:
        for camera in measured.cameras:
            total += episode.frames
            if camera not in episode.cameras or not len(episode.cameras[camera]):
                continue
            reason = judge(episode, camera)
            if reason is None:
                continue
            looked += len(episode.cameras[camera])
            if reason:
                faults.append(Fault(where=episode.episode_id, reason=f"camera {camera_name(camera)}: {reason}"))
    return Verdict(faults=tuple(faults), looked_at=looked, of=total, unit="frames", missing=missing if looked < total else "")


def camera_name(key: str) -> str:
    """A camera for a person."""
    return key.removeprefix("observation.images.")


def facts_of(facts: Iterable[Fact], kind: str) -> Iterator[Fact]:
    """The facts of one kind."""
    return (fact for fact in facts if fact.kind == kind)
