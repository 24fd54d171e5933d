"""The rules of the inspection at the gate of a run: episodes that are decoded there anyway are measured on the way, and judged together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.config.data_config import ValidateConfig
from components.config.records import Finding
from components.data.inspection.checks.verdict import DEFECT
from components.data.inspection.measurements.pixels import as_frames
from components.data.inspection.measurements.raw_episode import of_episode
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.store import MeasurementStore
from components.data.inspection.reporting.page import report_page
from components.data.inspection.reporting.report import InspectionReport, inspect_measurements, report_document
from components.data.sources.interface import EpisodeSource
from components.data.sources.mixed import members_of
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document
from model_core.spec.episode import Episode
from model_core.spec.errors import GateError
from model_core.spec.files import atomic_write

FAMILIES_OF_EPISODES = ("time", "pixels", "numbers", "meaning")  # the other families are of whole folders
# rules that the gate applies itself, episode by episode, with the same thresholds
OWN = frozenset(
    (
        "timestamps",
        "clock_rate",
        "not_finite",
        "out_of_range",
        "action_clipping",
        "frozen_frames",
        "black_frames",
        "episode_length",
        "idle",
        "duplicate",
        "unknown_task",
        "camera_missing",
        "too_short",
        "instruction_missing",
    )
)


@dataclass(slots=True, kw_only=True)
class GateInspection:
    """What is measured of the episodes of a set while the gate reads them. store: where it is kept, by content."""

    name: str
    fps: float
    cameras: tuple[str, ...]
    sentences: Mapping[int, str]
    embodiment: EmbodimentSpec | None
    store: MeasurementStore
    episodes: list[EpisodeMeasurements] = field(default_factory=list[EpisodeMeasurements])

    def measure(self, episode: Episode, number: int, identity: str) -> None:
        """Measure one episode that is in memory. identity: of its pictures and numbers."""
        raw = of_episode(episode, number, self.fps, self.embodiment)
        pictures = {name: as_frames(frames) for name, frames in episode.images.items()}
        self.episodes.append(self.store.measured(raw, lambda: {"identity": identity}, lambda: pictures))

    def report(self, cfg: ValidateConfig) -> InspectionReport:
        """Every rule over what was measured."""
        measured = SetMeasurements(
            name=self.name,
            fps=self.fps,
            episodes=tuple(self.episodes),
            sentences=self.sentences,
            cameras=self.cameras,
            embodiment=self.embodiment,
        )
        return inspect_measurements(measured, cfg)


def further_findings(report: InspectionReport) -> list[Finding]:
    """The defects of single episodes that the gate's own rules do not name."""
    ids = {episode for result in report.of(DEFECT) for episode in (fault.where for fault in result.verdict.faults) if episode}
    return [
        Finding(check=result.check.id, where=fault.where, reason=f"{fault.reason}. Fix: {result.check.fix}")
        for result in report.of(DEFECT)
        if result.check.id not in OWN
        for fault in result.verdict.faults
        if fault.where in ids
    ]


def family_columns(report: InspectionReport, findings: Sequence[Finding]) -> dict[str, dict[str, int]]:
    """episode -> family -> how many of `findings` it has: what Great Expectations is asked to find none of."""
    families = {result.check.id: result.check.family for result in report.results}
    table: dict[str, dict[str, int]] = {}
    for finding in findings:
        mine = table.setdefault(finding.where, {})
        mine[families[finding.check]] = mine.get(families[finding.check], 0) + 1
    return table


def write_report(report: InspectionReport, out: Path) -> dict[str, Any]:
    """Write inspection.json and a page that needs no network; returns how many rules found what."""
    document = report_document(report)
    atomic_write(out / "inspection.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
    atomic_write(out / "inspection.html", report_page(report))
    counts: dict[str, Any] = document["counts"]
    return counts


def set_aside(findings: Sequence[Finding], folder: Path) -> dict[str, list[Finding]]:
    """Write the findings of each episode that is not used, in place of what lies there; returns them by episode."""
    by_episode: dict[str, list[Finding]] = {}
    for finding in findings:
        by_episode.setdefault(finding.where, []).append(finding)
    for old in folder.glob("*.json"):
        old.unlink()
    for episode, mine in sorted(by_episode.items()):
        document = {"episode_id": episode, "findings": [to_document(finding) for finding in mine]}
        atomic_write(folder / f"{episode.replace('/', '_')}.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
    return by_episode


def check_members(source: EpisodeSource, verdicts: Mapping[str, bool], found: Mapping[str, Sequence[Finding]]) -> None:
    """Raise `GateError` where one of several embodiments has no good episode: nothing of it could be trained."""
    for name, member in members_of(source).items():
        if name and not any(verdicts[row.episode_id] for row in member.rows):
            reasons = [f"{finding.where}: {finding.reason}" for row in member.rows for finding in found[row.episode_id]]
            raise GateError(
                f"embodiment {name!r}: none of its {len(member.rows)} episodes is good; first {reasons[0] if reasons else 'none'}. "
                "Fix: repair its recordings, or leave its sources out of `data`"
            )
