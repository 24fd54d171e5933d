"""What the controller told over time, and what follows from it: when all cells had a version, and what the time went by with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UPDATE, EPISODE, EVIDENCE = "update", "episode", "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNow:
    """A cell as it last reported. running, proposed: digests. phase: of its agent's update. shadow: digest that it compares with what
    runs, "" for none; shadowed: decisions compared. error: why an update does not go on."""

    running: str
    proposed: str
    phase: str
    shadow: str = ""
    shadowed: int = 0
    error: str = ""

    @property
    def moves(self) -> bool:
        """It does not run yet what is proposed."""
        return self.proposed not in ("", self.running)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer of the controller. at_s: on the clock of this process. status, stage: of the newest rollout, "" for none; newest: all
    that the controller says of it."""

    at_s: float
    cells: Mapping[str, CellNow]
    rollout: int = 0
    status: str = ""
    stage: str = ""
    told: str = ""
    newest: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def waits_for(self) -> str:
        """UPDATE: a cell downloads, verifies, probes or swaps. EPISODE: every cell that moves is ready and only waits for its running
        episode to end. EVIDENCE: no cell moves, and the stage waits for episodes of the new version."""
        moving = [cell for cell in self.cells.values() if cell.moves]
        if not moving:
            return EVIDENCE
        return EPISODE if all(cell.phase == "ready" for cell in moving) else UPDATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """From the start of a rollout until every cell ran one release, in seconds. parts: what that time went by with."""

    seconds: float
    parts: Mapping[str, float]
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A cell ran one release from one moment to another. release: "" where no service answered. shadow: what was compared with it."""

    release: str
    shadow: str
    from_s: float
    to_s: float


@dataclass(slots=True)
class Timeline:
    """The samples, oldest first."""

    samples: list[Sample] = field(default_factory=list[Sample])

    def add(self, at_s: float, status: Mapping[str, Any]) -> Sample:
        """Keep one answer of /v1/status."""
        cells = {
            one["name"]: CellNow(**{name: one[name] for name in CellNow.__dataclass_fields__})
            for one in sorted(status["cells"], key=lambda one: one["name"])
        }
        newest = max(status["rollouts"], key=lambda one: one["id"], default=None)
        told = {"rollout": newest["id"], **{name: newest[name] for name in ("status", "stage", "told")}, "newest": newest} if newest else {}
        self.samples.append(Sample(at_s=at_s, cells=cells, **told))
        return self.samples[-1]

    def reached(self, release: str, start_s: float) -> Reached | None:
        """How long it took from `start_s` until every cell reported `release`; None where that never was."""
        until = next((one.at_s for one in self.samples if one.at_s >= start_s and _all_run(one, release)), None)
        if until is None:
            return None
        return Reached(seconds=until - start_s, parts=self.parts(start_s, until), cells=len(self.samples[-1].cells))

    def parts(self, from_s: float, to_s: float) -> Mapping[str, float]:
        """Seconds of each kind of waiting between two moments; a sample counts for the time before it."""
        found: dict[str, float] = {UPDATE: 0.0, EPISODE: 0.0, EVIDENCE: 0.0}
        before = from_s
        for one in self.samples:
            if from_s < one.at_s <= to_s:
                found[one.waits_for] += one.at_s - before
                before = one.at_s
        return found

    def stretches(self, cell: str) -> Sequence[Stretch]:
        """What a cell ran over time, without gaps."""
        found: list[Stretch] = []
        for one in self.samples:
            now = one.cells.get(cell)
            release, shadow = (now.running, now.shadow) if now else ("", "")
            begin = found[-1].to_s if found else one.at_s
            if found and (found[-1].release, found[-1].shadow) == (release, shadow):
                begin = found.pop().from_s
            found.append(Stretch(release=release, shadow=shadow, from_s=begin, to_s=one.at_s))
        return found


def _all_run(sample: Sample, release: str) -> bool:
    return bool(sample.cells) and all(cell.running == release for cell in sample.cells.values())
