"""The measures of a set's episodes as tables, a row an episode or a frame, and the episodes that cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.records import Finding
from components.data.inspection.gate import FAMILIES_OF_EPISODES, GateInspection
from components.data.inspection.rule import EPISODES, FRAMES, InspectionRule
from model_core.spec.episode import Episode

FURTHER = "further_rules"  # the one check of Great Expectations that stands for the rules of each family


@dataclass(slots=True)
class EpisodeTables:
    """What was found so far: findings of episodes that cannot be measured, and the measures of the others."""

    rules: Sequence[InspectionRule]
    further: GateInspection
    findings: list[Finding] = field(default_factory=list)
    frames: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def refuse(self, episode_id: str, check: str, reason: str) -> None:
        """Set an episode aside without measuring it."""
        self.findings.append(Finding(check=check, where=episode_id, reason=reason))

    def measure(self, episode: Episode) -> None:
        """Add an episode's row to each table."""
        columns = {rule.column: rule for rule in self.rules}.values()
        length = len(episode)
        frames: dict[str, NDArray[Any]] = {
            "episode_id": np.full(length, episode.episode_id, dtype=object),
            "instruction": np.full(length, episode.instruction, dtype=object),
        }
        self.frames.append(frames | {rule.column: _numbers(rule.measure(episode)) for rule in columns if rule.table == FRAMES})
        measured = {rule.column: float(_numbers(rule.measure(episode))) for rule in columns if rule.table == EPISODES}
        self.episodes.append({"episode_id": episode.episode_id, "instruction": episode.instruction, **measured})

    def tables(self, further: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """The measures as data frames, by name. further: episode -> family -> defects that the further rules found."""
        import pandas as pd

        for row in self.episodes:
            mine = further.get(row["episode_id"], {})
            row.update({f"{FURTHER}.{family}": mine.get(family, 0) for family in FAMILIES_OF_EPISODES})
        frames = {column: np.concatenate([row[column] for row in self.frames]) for column in self.frames[0]}
        return {FRAMES: pd.DataFrame(frames), EPISODES: pd.DataFrame(self.episodes)}


def _numbers(values: Any) -> NDArray[np.float64]:
    """Measures as Great Expectations judges them: what is no number is missing, which only the rule "present" names."""
    found = np.asarray(values, np.float64)
    return np.where(np.isfinite(found), found, np.nan)
