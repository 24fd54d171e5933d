"""What the table of episodes says of one: the same fields for an episode of a data set, a cell's recording and an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.data.editing.description import describe
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.recordings import RecordingHead
from components.data.sources.interface import EpisodeSource
from model_core.spec.episode import Episode, Provenance

OUTCOMES: Mapping[bool | None, str] = {True: "solved", False: "failed", None: "unknown"}
_POLICY = "policy:"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """One episode. number: its place in a set; 0 for a file of its own. outcome: solved, failed or unknown.

    ending: why a cell ended it, such as "operator" ("" where that is not recorded). producer, cell: of its provenance. model: the policy
    that acted, NAME/VERSION ("" for a person or an expert). length: frames, of an audit control steps. seconds: 0 where no rate is known.
    file: of a recording or an audit, from its place. at: when it was recorded, ISO 8601 in UTC ("" where nothing says it).
    """

    number: int
    episode_id: str
    task: str
    instruction: str
    robot: str
    outcome: str
    producer: str
    model: str
    cell: str
    length: int
    seconds: float
    ending: str = ""
    file: str = ""
    at: str = ""


def rows_of_set(source: EpisodeSource) -> list[EpisodeRow]:
    """Every episode of a set. Raises `DatasetError` for a set that contradicts itself, or that says nothing of its rate."""
    described = describe(source)
    return [_of_set(row, described.robot, described.control_hz) for row in source.rows]


def _of_set(row: EpisodeIndexRow, robot: str, hz: float) -> EpisodeRow:
    return EpisodeRow(
        number=row.index,
        episode_id=row.episode_id,
        task=row.task,
        instruction=row.instruction,
        robot=robot,
        outcome=OUTCOMES[row.success],
        length=row.length,
        seconds=row.length / hz if hz else 0.0,
        **_whose(row.provenance),
    )


def row_of_recording(head: RecordingHead, episode: Episode, file: str, changed_s: float) -> EpisodeRow:
    """A recording of a cell. file: from its place. changed_s: when the file was written, seconds since 1970."""
    hz = 0.0 if episode.body is None else float(episode.body.control_hz)
    return EpisodeRow(
        number=0,
        episode_id=episode.episode_id,
        task=episode.task,
        instruction=episode.instruction,
        robot=episode.embodiment,
        outcome=OUTCOMES[episode.success],
        length=head.length,
        seconds=head.length / hz if hz else 0.0,
        file=file,
        at=_time(changed_s),
        **_whose(episode.provenance),
    )


def row_of_audit(known: Mapping[str, Any], file: str) -> EpisodeRow:
    """An audited episode, as `components.artifacts.audit_files` knows it. Only an audit that was ended says how it came out."""
    ended = bool(known.get("outcome"))
    return EpisodeRow(
        number=0,
        episode_id=str(known.get("episode_id") or file),
        task=str(known.get("task") or ""),
        instruction=str(known.get("instruction") or ""),
        robot="",
        outcome=OUTCOMES[bool(known.get("success")) if ended else None],
        ending=str(known.get("outcome") or "interrupted"),
        producer=f"{_POLICY}{known.get('model_version') or 'unknown'}",
        model=str(known.get("model_version") or ""),
        cell=str(known.get("cell") or ""),
        length=int(known.get("executed") or 0),
        seconds=float(known.get("t") or 0.0),
        file=file,
        at=_time((known.get("wall_ns") or 0) / 1e9),
    )


def _whose(provenance: Provenance) -> dict[str, str]:
    producer = provenance.producer
    return {"producer": producer, "model": producer.removeprefix(_POLICY) if producer.startswith(_POLICY) else "", "cell": provenance.cell}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds > 0 else ""
