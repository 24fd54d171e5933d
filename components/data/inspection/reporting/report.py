"""Inspect a set: every rule's verdict over its measurements, with the number of places that it had evidence of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.config.data_config import ValidateConfig
from components.data.inspection.checks import origin, statistics
from components.data.inspection.checks.meaning import behaviour, copies, offsets, tasks
from components.data.inspection.checks.numbers import changes, following, ranges, readings
from components.data.inspection.checks.pixels import levels, views
from components.data.inspection.checks.structure import files, rows
from components.data.inspection.checks.time import clock, delay, films
from components.data.inspection.checks.verdict import CHECKS, DEFECT, RISK, SET, SOUND, UNKNOWN, InspectionCheck, Verdict
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements

RULES = (
    (files, rows),
    (clock, delay, films),
    (levels, views),
    (ranges, following, readings, changes),
    (tasks, behaviour, copies, offsets),
    (statistics,),
    (origin,),
)


def all_checks() -> Mapping[str, InspectionCheck]:
    """Every rule by its id, in the order of families."""
    return {name: one for modules in RULES for name, one in CHECKS.items() if one.judge.__module__ in {m.__name__ for m in modules}}


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionResult:
    """What a rule said. outcome: the rule's severity where it found a fault, "unknown" where it had no evidence at all, else "sound"."""

    check: InspectionCheck
    verdict: Verdict

    @property
    def outcome(self) -> str:
        """defect, risk, unknown or sound."""
        if self.verdict.faults:
            return self.check.severity
        is_unknown = not self.verdict.looked_at or (self.check.severity == UNKNOWN and self.verdict.looked_at < self.verdict.of)
        return UNKNOWN if is_unknown else SOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionReport:
    """The results of every rule. ranking: episode ids from the smoothest and shortest path to the other end; it judges nothing."""

    name: str
    episodes: int
    frames: int
    cameras: Mapping[str, int]
    results: tuple[InspectionResult, ...]
    ranking: tuple[str, ...]

    def of(self, outcome: str) -> tuple[InspectionResult, ...]:
        """The results with this outcome."""
        return tuple(result for result in self.results if result.outcome == outcome)

    @property
    def set_aside(self) -> Mapping[str, tuple[str, ...]]:
        """Episode id -> ids of the rules of which it has a defect. Defects of the whole set stand under "" and under files."""
        found: dict[str, list[str]] = {}
        for result in self.of(DEFECT):
            for fault in result.verdict.faults:
                names = found.setdefault(fault.where, [])
                if result.check.id not in names:
                    names.append(result.check.id)
        return {where: tuple(names) for where, names in found.items()}


def inspect_measurements(measured: SetMeasurements, cfg: ValidateConfig) -> InspectionReport:
    """Apply every rule. Pure: another `cfg` costs no measurement."""
    results = tuple(InspectionResult(check=one, verdict=one.judge(measured, cfg)) for one in all_checks().values())
    return InspectionReport(
        name=measured.name,
        episodes=len(measured.episodes),
        frames=measured.frames,
        cameras={camera: sum(len(e.cameras[camera]) for e in measured.episodes if camera in e.cameras) for camera in measured.cameras},
        results=results,
        ranking=tuple(e.episode_id for e in sorted(measured.episodes, key=_skill)),
    )


def _skill(episode: EpisodeMeasurements) -> tuple[float, float]:
    """For ranking only: how rough and how long the path of an episode is."""
    return round(episode.meaning.roughness, 6), round(episode.meaning.length_of_path, 6)


def report_document(report: InspectionReport) -> dict[str, Any]:
    """The report as plain JSON."""
    return {
        "name": report.name,
        "episodes": report.episodes,
        "frames": report.frames,
        "pictures_looked_at": dict(report.cameras),
        "counts": {outcome: len(report.of(outcome)) for outcome in (DEFECT, RISK, UNKNOWN, SOUND)},
        "set_aside": {where: list(names) for where, names in report.set_aside.items()},
        "rules": [_rule_document(result) for result in report.results],
        "ranking": list(report.ranking),
    }


def _rule_document(result: InspectionResult) -> dict[str, Any]:
    rule, verdict = result.check, result.verdict
    return {
        "id": rule.id,
        "family": rule.family,
        "severity": rule.severity,
        "outcome": result.outcome,
        "looked_at": verdict.looked_at,
        "of": verdict.of,
        "unit": verdict.unit,
        "evidence_missing": verdict.missing,
        "faults": [{"where": fault.where, "reason": fault.reason} for fault in verdict.faults],
        "reason": rule.reason,
        "fix": rule.fix,
        "source": rule.source,
    }


def lines(report: InspectionReport, *, most: int = 3) -> list[str]:
    """The report for a person: what is wrong first, at most `most` places of each rule."""
    found: list[str] = []
    for outcome in (DEFECT, RISK):
        for result in report.of(outcome):
            rule, verdict = result.check, result.verdict
            found.append(f"{outcome} {rule.id} ({len(verdict.faults)} of {verdict.of} {verdict.unit}): {rule.reason}. Fix: {rule.fix}")
            found += [f"    {fault.where or 'the set'}: {fault.reason}" for fault in verdict.faults[:most]]
            if len(verdict.faults) > most:
                found.append(f"    and {len(verdict.faults) - most} more")
    found += [f"unknown {result.check.id}: {result.verdict.missing}" for result in report.of(UNKNOWN)]
    aside = sum(where != SET for where in report.set_aside)
    defects, risks, unknown, sound = (len(report.of(outcome)) for outcome in (DEFECT, RISK, UNKNOWN, SOUND))
    found.append(
        f"{report.episodes} episodes, {report.frames} frames, {sum(report.cameras.values())} pictures. Of {len(report.results)} rules "
        f"{defects} found defects ({aside} episodes or files), {risks} risks, {unknown} had no evidence, {sound} found nothing"
    )
    return found
