"""What a stage hands on of each source and what falls away there, with reasons, and a bound on the share that may fall away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.config.records import AccountRow, Dropped
from model_core.spec.documents import to_document
from model_core.spec.errors import GateError

UNKNOWN = "unknown"
_SHOWN = 3  # reasons in an error
LABELLING_ADVICE = (
    "record what is missing, or label from the images: --set annotate.depth_annotator=depth_anything and annotate.point_annotator=pointing "
    "(or annotators of your own); else leave these recordings out of `include`"
)


@dataclass(slots=True)
class _Amount:
    episodes: int = 0
    frames: int = 0
    intervened: int = 0

    def add(self, episodes: int, frames: int) -> None:
        self.episodes += episodes
        self.frames += frames


@dataclass(slots=True)
class Tally:
    """Episodes and frames of one stage by source: handed on, and fallen away by reason."""

    stage: str
    _kept: dict[str, _Amount] = field(default_factory=dict)
    _dropped: dict[str, dict[str, _Amount]] = field(default_factory=dict)

    def keep(self, source: str, frames: int, episodes: int = 1, *, intervened: int = 0) -> None:
        """Count what is handed on. intervened: frames of it in which a person acted."""
        kept = self._kept.setdefault(source, _Amount())
        kept.add(episodes, frames)
        kept.intervened += intervened

    def drop(self, source: str, reason: str, frames: int = 0, episodes: int = 1) -> None:
        """Count what falls away; nothing is counted for nothing."""
        if episodes or frames:
            self._dropped.setdefault(source, {}).setdefault(reason, _Amount()).add(episodes, frames)

    def rows(self) -> list[dict[str, Any]]:
        """The account as plain rows, by source; reasons from the most frequent to the least."""
        found = []
        for source in sorted(self._kept.keys() | self._dropped.keys()):
            kept = self._kept.get(source, _Amount())
            lost = sorted(self._dropped.get(source, {}).items(), key=lambda item: (-item[1].episodes, -item[1].frames, item[0]))
            dropped = tuple(Dropped(reason=reason, episodes=a.episodes, frames=a.frames) for reason, a in lost)
            counts = {"episodes": kept.episodes, "frames": kept.frames, "intervened": kept.intervened}
            row = to_document(AccountRow(stage=self.stage, source=source, dropped=dropped, **counts))
            if not kept.intervened:  # accounts are as they always were where no person acted
                del row["intervened"]
            found.append(row)
        return found

    def check(self, most: float, *, setting: str, advice: str, came: Mapping[str, int] | None = None) -> None:
        """Raise `GateError` for a source of which a larger share than `most` fell away.

        setting: the recipe's name of `most`. came: how many episodes of each source reach the stage (default: those counted so far).
        """
        for source, reasons in sorted(self._dropped.items()):
            lost = sum(amount.episodes for amount in reasons.values())
            total = came[source] if came else lost + self._kept.get(source, _Amount()).episodes
            if lost > most * total:
                first = sorted(reasons.items(), key=lambda item: (-item[1].episodes, item[0]))[:_SHOWN]
                why = "; ".join(f"{reason} ({amount.episodes}x)" for reason, amount in first)
                raise GateError(
                    f"{self.stage}: at least {lost} of {total} episodes of {source} fall away, at most {most:.0%} may ({setting}). "
                    f"Reason: {why}. Fix: {advice}"
                )
