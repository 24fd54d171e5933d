"""A moment at which something went wrong, and where such moments are found: outcomes, audits of cells, unsure labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from components.data.episodes.audited import AuditEpisode, marks_of
from components.data.episodes.index import IndexedEpisode
from components.data.episodes.signals import Series, spans
from model_core.spec.audit.reading import AuditFile

Kind = Literal["failed", "interrupted", "hold", "refusal", "clip", "unsure"]
KINDS: Mapping[str, str] = {
    "failed": "the attempt did not solve its task",
    "interrupted": "the recording ended without an outcome: the cell was stopped or died",
    "hold": "the cell held its position, or stopped",
    "refusal": "an answer was refused, late or dropped",
    "clip": "the safety envelope brought a command back inside the limits",
    "unsure": "the annotator was not sure of the gripper for several frames",
}
BEFORE_S, AFTER_S = 5.0, 2.0  # of a clip, around the moment
_NEAR_S = 1.0  # moments of one kind that are closer together are one
UNSURE, _UNSURE_FRAMES = 0.5, 5  # confidence below which a point is unsure, and for how many frames in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One moment of one episode. start_s, end_s: seconds of the episode. text: what happened. share: when, 0 for its begin, 1 for its end.

    state: of the robot then, () where it is not known. count: of the moments that were put together.
    """

    kind: Kind
    start_s: float
    end_s: float
    text: str
    share: float
    state: tuple[float, ...] = ()
    count: int = 1

    @property
    def clip(self) -> tuple[float, float]:
        """From some seconds before to some after, in seconds of the episode."""
        return max(0.0, self.start_s - BEFORE_S), self.end_s + AFTER_S


def key_of(episode: IndexedEpisode, incident: Incident) -> str:
    """16 hex digits that name a moment; the same moment found again has the same."""
    said = f"{episode.place.key}\0{episode.row.episode_id}\0{incident.kind}\0{incident.start_s:.3f}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def of_outcome(episode: IndexedEpisode) -> tuple[Incident, ...]:
    """That an episode failed or was interrupted, as it is recorded or a person stated it: at its end."""
    row = episode.row
    outcome = episode.revised.get("outcome", row.outcome)
    is_cut_off = row.ending == "interrupted"
    if outcome != "failed" and not is_cut_off:
        return ()
    kind: Kind = "interrupted" if is_cut_off else "failed"
    return (Incident(kind=kind, start_s=row.seconds, end_s=row.seconds, text=row.ending.replace("_", " ") or "failed", share=1.0),)


def of_audit(found: AuditFile) -> tuple[Incident, ...]:
    """Holds, refusals and clipped commands of an audited episode."""
    last = found.records[-1].t if found.records else 0.0
    state = AuditEpisode(found).signals().series.get("state")
    made: list[Incident] = []
    for mark in marks_of(found):
        before = next((one for one in reversed(made) if one.kind == mark.kind), None)
        if before is not None and before.text == mark.text and mark.start_s - before.end_s <= _NEAR_S:
            made[made.index(before)] = _longer(before, mark.end_s)
        elif mark.kind in ("hold", "refusal", "clip"):
            made.append(
                Incident(
                    kind=mark.kind,
                    start_s=mark.start_s,
                    end_s=mark.end_s,
                    text=mark.text,
                    share=mark.start_s / last if last else 0.0,
                    state=_state_at(state, mark.start_s),
                )
            )
    return tuple(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsureFrames:
    """Frames first to before `end` of an episode of `length` labelled frames, of none of which an annotation is sure."""

    first: int
    end: int
    length: int

    def at(self, hz: float) -> Incident:
        """The moment. hz: frames a second of the episode."""
        share = self.first / self.length
        return Incident(kind="unsure", start_s=self.first / hz, end_s=(self.end - 1) / hz, text="frames without a sure point", share=share)


def of_points(folder: Path) -> dict[str, tuple[UnsureFrames, ...]]:
    """Episode id -> where a finished annotation was not sure of the gripper for several frames. folder: its `points`, by episodes."""
    import pyarrow.parquet as pq

    made: dict[str, tuple[UnsureFrames, ...]] = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["episode_id", "confidence"])
        names = table["episode_id"].combine_chunks().dictionary_encode()
        numbers_N, unsure_N = names.indices.to_numpy(), table["confidence"].to_numpy() < UNSURE
        ends = [*(np.flatnonzero(np.diff(numbers_N)) + 1).tolist(), len(numbers_N)]
        for first, end in zip([0, *ends], ends, strict=False):
            long = [(a, b) for a, b in spans(unsure_N[first:end]) if b - a >= _UNSURE_FRAMES]
            if long:
                made[names.dictionary[int(numbers_N[first])].as_py()] = tuple(
                    UnsureFrames(first=a, end=b, length=end - first) for a, b in long
                )
    return made


def _longer(one: Incident, end_s: float) -> Incident:
    return Incident(kind=one.kind, start_s=one.start_s, end_s=end_s, text=one.text, share=one.share, state=one.state, count=one.count + 1)


def _state_at(state: Series | None, at_s: float) -> tuple[float, ...]:
    if state is None or not len(state.times_N):
        return ()
    values_D = state.values_ND[int(np.clip(np.searchsorted(state.times_N, at_s), 0, len(state.times_N) - 1))]
    return tuple(float(value) for value in values_D) if np.isfinite(values_D).all() else ()


def kinds_of(incidents: Iterable[Incident]) -> Sequence[str]:
    """Which kinds there are, in the order of `KINDS`."""
    there = {one.kind for one in incidents}
    return [kind for kind in KINDS if kind in there]
