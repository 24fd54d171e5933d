"""Where persons acted in the episodes that are frozen: counted, so that no one trains on corrections without knowing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.data.lerobot.columns.interventions import spans
from model_core.spec.episode import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Interventions:
    """Over all frozen episodes. stated: episodes that say where a person acted; episodes, stretches, frames: in which one did."""

    total: int
    stated: int
    episodes: int
    stretches: int
    frames: int

    @staticmethod
    def of(episodes: Sequence[Episode]) -> Interventions:
        """Counted in episodes without images."""
        flags = [episode.intervention_T for episode in episodes if episode.intervention_T is not None]
        found = [spans(flags_T) for flags_T in flags]
        return Interventions(
            total=len(episodes),
            stated=len(flags),
            episodes=sum(bool(mine) for mine in found),
            stretches=sum(len(mine) for mine in found),
            frames=int(sum(flags_T.sum() for flags_T in flags)),
        )

    def record(self) -> dict[str, Any]:
        """For the record of the stage; nothing where no episode says it."""
        if not self.stated:
            return {}
        counts = {"stated": self.stated, "episodes": self.episodes, "stretches": self.stretches, "frames": self.frames}
        return {"interventions": counts}

    def notes(self) -> list[str]:
        """What a person should know."""
        if not self.stated:
            return []
        silent = self.total - self.stated
        unknown = f"; {silent} episodes do not say whether, and their frames are marked as not" if silent else ""
        return [
            f"a person acted in {self.frames} frames ({self.stretches} stretches of {self.episodes} episodes), marked in the tensor "
            f"intervention_N of the shards{unknown}"
        ]
