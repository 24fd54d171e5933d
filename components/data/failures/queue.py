"""The queue of what went wrong: every moment that no person has sorted yet, with its group and how long it waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from components.artifacts.audit_files import read_audit
from components.data.episodes.index import EpisodeIndex, IndexedEpisode
from components.data.episodes.place import Place
from components.data.episodes.query import EpisodeQuery
from components.data.failures.grouping import grouped
from components.data.failures.incident import Incident, UnsureFrames, key_of, of_audit, of_outcome
from components.data.revisions.state import RevisedEpisode
from model_core.spec.errors import ActwrightError

Stated = Callable[[IndexedEpisode], RevisedEpisode | None]
# of a set whose episodes have so many frames: the frames, by episode, of which its labels are not sure
Unsure = Callable[[Place, Mapping[str, int]], Mapping[str, Sequence[UnsureFrames]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One moment in the queue. group: number of its group, from 0 for the largest. waits_s: since it was recorded; None: not known.

    sorted_s: how long it waited until a person sorted it; None while it waits.
    """

    key: str
    episode: IndexedEpisode
    incident: Incident
    group: int
    title: str
    waits_s: float | None
    sorted_s: float | None = None


class IncidentFinder:
    """Finds moments, and remembers those of audits that did not change."""

    def __init__(self, index: EpisodeIndex) -> None:
        self._index = index
        self._known: dict[tuple[str, str, int], tuple[Incident, ...]] = {}

    def find(self, asked: EpisodeQuery, unsure: Unsure | None = None) -> list[tuple[IndexedEpisode, Incident]]:
        """The moments of all episodes that are asked for; of a set the outcome and labels, of an audit what the cell noted, too.

        unsure: None where there are no labels. Edits are passed over unless their place is named: their episodes are those of their sets.
        """
        may_have = [asked] if asked.kind else [replace(asked, outcome="failed"), replace(asked, kind="audit")]
        episodes = {(one.place.key, one.row.episode_id, one.row.file): one for query in may_have for one in self._index.every(query)}
        made: list[tuple[IndexedEpisode, Incident]] = []
        for episode in episodes.values() if asked.place else (one for one in episodes.values() if one.place.kind != "edit"):
            made += [(episode, incident) for incident in (*of_outcome(episode), *self._audited(episode))]
        return made + (self._unsure(asked, unsure) if unsure is not None and asked.kind in ("", "set") else [])

    def _unsure(self, asked: EpisodeQuery, unsure: Unsure) -> list[tuple[IndexedEpisode, Incident]]:
        episodes: dict[Place, dict[str, IndexedEpisode]] = {}
        for one in self._index.every(replace(asked, kind="set")):
            episodes.setdefault(one.place, {})[one.row.episode_id] = one
        made: list[tuple[IndexedEpisode, Incident]] = []
        for place, mine in episodes.items():
            found = unsure(place, {name: one.row.length for name, one in mine.items()})
            timed = [(mine[name], frames) for name, several in found.items() for frames in several if name in mine]
            made += [(one, frames.at(one.row.length / one.row.seconds)) for one, frames in timed if one.row.seconds > 0]
        return made

    def _audited(self, episode: IndexedEpisode) -> tuple[Incident, ...]:
        if episode.place.kind != "audit":
            return ()
        row = episode.row
        key = episode.place.key, row.file, row.length
        if key not in self._known:
            try:
                self._known[key] = of_audit(read_audit(episode.place.path / row.file))
            except ActwrightError:  # it is gone; the table will notice
                return ()
        return self._known[key]


def waiting(found: Sequence[tuple[IndexedEpisode, Incident]], stated: Stated, now: datetime) -> list[Waiting]:
    """All moments, those of one group together and the largest group first; inside a group the one that waits longest first."""
    groups = grouped([incident for _, incident in found], [episode.row.task for episode, _ in found])
    made: list[Waiting] = []
    for number, group in enumerate(groups):
        mine = [_waiting(*found[place], (number, group.title), stated, now) for place in group.members]
        made += sorted(mine, key=lambda one: (-(one.waits_s or 0.0), one.key))
    return made


def _waiting(episode: IndexedEpisode, incident: Incident, group: tuple[int, str], stated: Stated, now: datetime) -> Waiting:
    said = stated(episode)
    recorded = datetime.fromisoformat(episode.row.at) if episode.row.at else None
    done = said.revisions[-1].at if said is not None and said.is_sorted else ""
    return Waiting(
        key=key_of(episode, incident),
        episode=episode,
        incident=incident,
        group=group[0],
        title=group[1],
        waits_s=None if recorded is None or done else max(0.0, (now - recorded).total_seconds()),
        sorted_s=None if recorded is None or not done else max(0.0, (datetime.fromisoformat(done) - recorded).total_seconds()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dwell:
    """How long moments wait. open, sorted: how many. Others: hours; None where no moment says when it was recorded."""

    open: int
    sorted: int
    median_open_h: float | None
    oldest_open_h: float | None
    median_sorted_h: float | None


def dwell(moments: Sequence[Waiting], is_sorted: Callable[[Waiting], bool]) -> Dwell:
    """How long things wait."""
    done = [one for one in moments if is_sorted(one)]
    waits_h = [one.waits_s / 3600 for one in moments if one.waits_s is not None]
    sorted_h = [one.sorted_s / 3600 for one in done if one.sorted_s is not None]
    return Dwell(
        open=len(moments) - len(done),
        sorted=len(done),
        median_open_h=float(np.median(waits_h)) if waits_h else None,
        oldest_open_h=max(waits_h) if waits_h else None,
        median_sorted_h=float(np.median(sorted_h)) if sorted_h else None,
    )


def utc_now() -> datetime:
    """The time of a queue that is looked at now."""
    return datetime.now(UTC)
