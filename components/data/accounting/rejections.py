"""Episodes that the annotators cannot label: why, by source, and how many may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from components.data.accounting.tally import LABELLING_ADVICE, UNKNOWN, Tally


@dataclass(slots=True, kw_only=True)
class Rejections:
    """Why episodes cannot be labelled, and the bound on how many of a source may be. frames: of every episode that is to be labelled."""

    most: float
    frames: Mapping[str, int]
    sources: Mapping[str, str]
    reasons: dict[str, str] = field(default_factory=dict)
    _came: Counter[str] = field(init=False)
    _lost: Tally = field(init=False)

    def __post_init__(self) -> None:
        self._came, self._lost = Counter(self.sources.get(name, UNKNOWN) for name in self.frames), Tally("annotate")

    def add(self, episode_id: str, reason: str) -> None:
        """Reject an episode. Raises `GateError` as soon as more of its source are rejected than may be."""
        self.reasons[episode_id] = reason
        self._lost.drop(self.sources.get(episode_id, UNKNOWN), reason, self.frames[episode_id])
        self._lost.check(self.most, setting="annotate.max_rejected_fraction", advice=LABELLING_ADVICE, came=self._came)

    def tally(self) -> Tally:
        """Every episode by its source: labelled, or rejected and why."""
        tally = Tally("annotate")
        for episode_id, frames in self.frames.items():
            source, reason = self.sources.get(episode_id, UNKNOWN), self.reasons.get(episode_id)
            if reason is None:
                tally.keep(source, frames)
            else:
                tally.drop(source, reason, frames)
        return tally
