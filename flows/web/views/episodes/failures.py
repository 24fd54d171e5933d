"""The queue of failures: moments that a person should look at, those that are alike together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.data.episodes.index import IndexedEpisode
from components.data.episodes.query import EpisodeQuery
from components.data.failures.queue import Dwell, IncidentFinder, Waiting, dwell, utc_now, waiting
from components.data.revisions.state import RevisedEpisode
from flows.pipeline.episodes.annotations import Annotations
from flows.pipeline.episodes.library import EpisodeLibrary
from flows.web.http.endpoint import Call, Endpoint
from model_core.access import Role

_MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureAsk:
    """Which moments. kind: of `components.data.failures.incident`. sorted: also those that a person sorted."""

    text: str = ""
    place: str = ""
    task: str = ""
    model: str = ""
    kind: str = ""
    sorted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """One moment. start_s: in seconds of the episode; clip_s: from where its clip is shown. group: 0 is the largest. waits_h: hours.

    causes: that a person named. recorded: place and id of the recording of the same episode, "" where there is none.
    """

    key: str
    kind: str
    text: str
    place: str
    set: str
    episode: str
    task: str
    model: str
    cell: str
    at: str
    start_s: float
    clip_s: float
    count: int
    group: int
    waits_h: float | None
    is_sorted: bool
    causes: tuple[str, ...]
    recorded: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureQueue:
    """Moments by group, groups by size. titles: what each has in common. kinds: kind -> how many, sorted or not."""

    rows: tuple[FailureRow, ...]
    titles: tuple[str, ...]
    kinds: Mapping[str, int]
    dwell: Dwell
    left_off: int


def failure_endpoints(library: EpisodeLibrary, annotations: Annotations) -> Sequence[Endpoint]:
    """The queue."""
    finders: list[IncidentFinder] = []

    def queue(call: Call) -> FailureQueue:
        if not finders:
            finders.append(IncidentFinder(library.index))
        asked: FailureAsk = call.query
        unsure = annotations.unsure if annotations.are_there else None
        found = finders[0].find(EpisodeQuery(text=asked.text, place=asked.place, task=asked.task, model=asked.model), unsure)
        books = {place: library.book(place).revised for place in {one.place for one, _ in found}}  # each is read once

        def stated(one: IndexedEpisode) -> RevisedEpisode | None:
            return books[one.place].get(one.row.episode_id)

        def is_sorted(one: Waiting) -> bool:
            said = stated(one.episode)
            return said is not None and said.is_sorted

        every = waiting(found, stated, utc_now())
        shown = [one for one in every if (not asked.kind or one.incident.kind == asked.kind) and (asked.sorted or not is_sorted(one))]
        recordings = _recordings(library) if any(one.episode.place.kind == "audit" for one in shown) else {}
        return FailureQueue(
            rows=tuple(_row(one, stated(one.episode), recordings) for one in shown[:_MOST_ROWS]),
            titles=tuple({one.group: one.title for one in every}.values()),
            kinds=Counter(one.incident.kind for one in every),
            dwell=dwell(every, is_sorted),
            left_off=max(0, len(shown) - _MOST_ROWS),
        )

    return (
        Endpoint(
            method="GET", path="/api/failures", does="What went wrong and waits to be sorted", role=Role.OBSERVE, answer=FailureQueue,
            handle=queue, query=FailureAsk,
        ),
    )  # fmt: skip


def _recordings(library: EpisodeLibrary) -> Mapping[str, str]:
    """Episode id -> "place id" of what a cell recorded: an audit names the same id."""
    return {one.row.episode_id: one.place.key for one in library.index.every(EpisodeQuery(kind="recordings"))}


def _row(one: Waiting, said: RevisedEpisode | None, recordings: Mapping[str, str]) -> FailureRow:
    row, incident = one.episode.row, one.incident
    return FailureRow(
        key=one.key,
        kind=incident.kind,
        text=incident.text,
        place=one.episode.place.key,
        set=one.episode.place.name,
        episode=row.episode_id,
        task=row.task,
        model=row.model,
        cell=row.cell,
        at=row.at,
        start_s=incident.start_s,
        clip_s=incident.clip[0],
        count=incident.count,
        group=one.group,
        waits_h=None if one.waits_s is None else one.waits_s / 3600,
        is_sorted=said is not None and said.is_sorted,
        causes=() if said is None else said.causes,
        recorded=recordings.get(row.episode_id, "") if one.episode.place.kind == "audit" else "",
    )
