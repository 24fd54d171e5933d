"""Where recordings come from: data sets and folders of cells' recordings, each compared with the recipe's body before it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.config.records import Finding
from components.data.inspection.body import BodyCheck, check_dataset, check_recording, converted, explain
from components.data.inspection.identity import episode_identity
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader
from components.data.lerobot.stale_statistics import stale_statistics
from components.data.recordings import is_dataset, recordings_in
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, WireError
from model_core.spec.protocol.wire import decode_episode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """One recording: an episode of the recipe's body and its identity, or why there is none.

    converted: what was converted in it, as sentences. is_described: whether the recording says what its numbers mean.
    """

    name: str
    episode: Episode | None = None
    identity: str = ""
    findings: tuple[Finding, ...] = ()
    converted: tuple[str, ...] = ()
    is_described: bool = True


def refused_datasets(sources: Sequence[Path], body: EmbodimentSpec, *, trust_data: bool) -> dict[Path, list[Finding]]:
    """The data sets among `sources` of which nothing may be taken in: of another body, or with the statistics of other data.

    trust_data: their statistics are not compared. Where rows are mixed up, the reader refuses them all the same.
    """
    found: dict[Path, list[Finding]] = {}
    for source in sources:
        if not is_dataset(source):
            continue
        reader = DatasetReader(source)
        findings = list(check_dataset(reader, body).findings)
        if not findings and not trust_data:
            where = f"{source.name}/{layout.STATS}"
            findings = [
                Finding(check="stale_statistics", where=where, reason=_stale(source, reason)) for reason in stale_statistics(reader)
            ]
        reader.close()
        if findings:
            found[source] = findings
    return found


def _stale(source: Path, reason: str) -> str:
    return (
        f"{reason}; nothing of {source.name} was taken in, and it is unchanged where it was. Fix: fetch or export the data set again; "
        "if the data were changed on purpose, let the tool that changed them write stats.json again"
    )


def arrivals(sources: Sequence[Path], body: EmbodimentSpec) -> Iterator[Arrival]:
    """Every recording of every source, in order, in the units, names and order of `body`."""
    for source in sources:
        if is_dataset(source):
            yield from _from_dataset(source, body)
            continue
        for path in recordings_in(source):
            try:
                episode = decode_episode(path.read_bytes())
            except WireError as error:
                yield _unreadable(path.name, str(error))
            else:
                yield _arrival(path.name, episode, check_recording(path.name, episode, body), body)


def _from_dataset(source: Path, body: EmbodimentSpec) -> Iterator[Arrival]:
    reader = DatasetReader(source)
    check = check_dataset(reader, body)
    for row in reader.rows:
        try:
            episode = reader.episode(row.index)
        except DatasetError as error:
            yield _unreadable(row.episode_id, str(error))
        else:
            yield _arrival(row.episode_id, episode, check, body)
    reader.close()


def _arrival(name: str, episode: Episode, check: BodyCheck, body: EmbodimentSpec) -> Arrival:
    if check.findings:
        return Arrival(name=name, findings=check.findings)
    episode = converted(episode, check.conversions, body)
    told = tuple(explain(one) for one in check.conversions)
    return Arrival(name=name, episode=episode, identity=episode_identity(episode), converted=told, is_described=check.is_described)


def _unreadable(name: str, fault: str) -> Arrival:
    return Arrival(name=name, findings=(Finding(check="unreadable", where=name, reason=fault),))
