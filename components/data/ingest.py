"""Recordings of workcells, and data sets made elsewhere -> one new, checked raw data set.

    spool of a cell -> recordings/<digest>/ in storage (`components.data.recordings`) -> ingest -> out/dataset

Every recording is inspected (`components.data.inspection.rules`). A bad one is set aside with its reason and the others continue: a
truncated file, another embodiment, a missing camera, an id or content that is there already. Unsuccessful episodes stay out of the data set
unless asked for, because a policy's own actions are its labels.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.files import dataset_digest
from components.config.data_config import ValidateConfig
from components.config.records import Finding, Progress
from components.data.inspection.identity import episode_identity
from components.data.inspection.rules import inspect_episode
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.lerobot.stale_statistics import stale_statistics
from components.data.recordings import count_of, is_dataset, recordings_in
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, GateError, WireError
from model_core.spec.files import atomic_write
from model_core.spec.protocol.wire import decode_episode


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What is taken in. embodiment: the one that all recordings must have (None: that of the first source that names one).

    tasks: recordings of other tasks are left out (empty: all are taken). keep_failures: also episodes that failed at their task.
    max_bad_fraction: of all recordings; more stop the stage. trust_data: a data set whose stats.json is not of its data is taken,
    and its statistics are computed again. thresholds: of the inspection.
    """

    embodiment: EmbodimentSpec | None = None
    tasks: Sequence[str] = ()
    keep_failures: bool = False
    max_bad_fraction: float = 0.5
    trust_data: bool = False
    thresholds: ValidateConfig = field(default_factory=ValidateConfig)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Arrival:
    """One recording: an episode and its identity, or why there is none."""

    name: str
    episode: Episode | None = None
    identity: str = ""
    fault: str = ""


@dataclass(slots=True, kw_only=True)
class _Intake:
    """One ingest while it runs. ids: episode id -> name of its recording. identities: identity -> episode id."""

    options: IngestOptions
    body: EmbodimentSpec
    ids: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    bad: dict[str, list[Finding]] = field(default_factory=dict)
    producers: Counter[str] = field(default_factory=Counter)
    not_successful: int = 0
    other_tasks: int = 0
    copies: int = 0

    def accept(self, arrival: _Arrival) -> Episode | None:
        """The episode of a recording that joins the data set; one that does not is counted by its reason."""
        episode = arrival.episode
        if episode is not None and self.identities.get(arrival.identity) == episode.episode_id:
            self.copies += 1
            return None
        if self.options.tasks and episode is not None and episode.task not in self.options.tasks:
            self.other_tasks += 1
            return None
        findings = self._findings(arrival)
        if findings or episode is None:
            self.bad[arrival.name] = findings
            return None
        if not episode.success and not self.options.keep_failures:
            self.not_successful += 1
            return None
        self.ids[episode.episode_id] = arrival.name
        self.identities[arrival.identity] = episode.episode_id
        self.producers[episode.provenance.producer] += 1
        return episode

    def _findings(self, arrival: _Arrival) -> list[Finding]:
        episode = arrival.episode

        def finding(check: str, reason: str) -> Finding:
            return Finding(check=check, where=arrival.name, reason=reason)

        if episode is None:
            return [finding("unreadable", arrival.fault)]
        findings = inspect_episode(episode, self.body, self.options.thresholds)
        if first := self.ids.get(episode.episode_id):
            return [*findings, finding("duplicate_id", f"the id {episode.episode_id} was already taken in, with {first}")]
        if not findings and (same := self.identities.get(arrival.identity)):
            return [finding("duplicate", f"holds the same images, state and actions as {same}")]
        return findings

    def check(self, total: int, bad: int, findings: Mapping[str, list[Finding]]) -> None:
        """Raise `GateError` when too many of `total` recordings are bad or none is left. findings: why, by name."""
        kept = self.producers.total()
        if kept and bad <= self.options.max_bad_fraction * total:
            return
        why = f"none is of {', '.join(self.options.tasks)}"
        if findings:
            first = next(iter(findings.values()))[0]
            why = f"{first.where}: {first.reason}"
        elif self.not_successful:
            why = "none was successful"
        todo = "" if "Fix:" in why else ". Fix: repair or remove the bad ones, or record more"
        raise GateError(f"{total} recordings: {bad} invalid, {self.not_successful} unsuccessful, {kept} usable. First reason: {why}{todo}")


def ingest(sources: Sequence[Path], out: Path, progress: Progress, options: IngestOptions | None = None) -> dict[str, Any]:
    """Merge `sources` (LeRobot folders, folders of recordings) into out/dataset, in this order; sources are never changed.

    The same episode twice is taken once. Bad recordings go to out/quarantine/<name>.json, and so does a data set whose stats.json is
    not of its data (see `IngestOptions.trust_data`). The record counts episodes by who produced them.
    Raises `GateError` when too many recordings are bad or nothing is left.
    """
    options = options or IngestOptions()
    intake = _Intake(options=options, body=options.embodiment or _body_of(sources))
    total = count_recordings(sources)
    stale = {} if options.trust_data else _stale_sources(sources)
    for folder in ("quarantine", "dataset"):
        shutil.rmtree(out / folder, ignore_errors=True)
    refused = sum(count_of(source) for source in stale)
    with DatasetWriter(out / "dataset", intake.body, notes={"ingest": [_name_of(s) for s in sources]}) as writer:
        for number, arrival in enumerate(_arrivals([source for source in sources if source not in stale]), start=refused):
            progress.update(number + 1, total, "taking in recordings")
            if (episode := intake.accept(arrival)) is not None:
                writer.add(episode)
        bad = {_stats_of(source): findings for source, findings in stale.items()} | intake.bad
        _quarantine(bad, out)
        intake.check(total, refused + len(intake.bad), bad)
    return {
        "version": dataset_digest(out / "dataset"),
        "recordings": total,
        "episodes": intake.producers.total(),
        "producers": dict(sorted(intake.producers.items())),
        "not_successful": intake.not_successful,
        "other_tasks": intake.other_tasks,
        "copies": intake.copies,
        "quarantined": {name: [f.check for f in findings] for name, findings in sorted(bad.items())},
    }


def count_recordings(sources: Sequence[Path]) -> int:
    """How many recordings are in `sources` together. Raises `DatasetError` for a source that holds none."""
    return sum(count_of(source) for source in sources)


def _stale_sources(sources: Sequence[Path]) -> dict[Path, list[Finding]]:
    """The data sets among `sources` whose statistics are of other data, with what was expected and what stands there."""
    found: dict[Path, list[Finding]] = {}
    for source in sources:
        if not is_dataset(source):
            continue
        reader = DatasetReader(source)
        reasons = stale_statistics(reader)
        reader.close()
        if reasons:
            todo = (
                f"nothing of {source.name} was taken in, and it is unchanged where it was. Fix: if the data are right, "
                "ingest again with --trust-data, which computes them again; if not, record or export the data set again"
            )
            found[source] = [Finding(check="stale_statistics", where=_stats_of(source), reason=f"{reason}; {todo}") for reason in reasons]
    return found


def _stats_of(source: Path) -> str:
    return f"{source.name}/{layout.STATS}"


def _arrivals(sources: Sequence[Path]) -> Iterator[_Arrival]:
    for source in sources:
        if is_dataset(source):
            yield from _from_dataset(source)
            continue
        for path in recordings_in(source):
            try:
                episode = decode_episode(path.read_bytes())
            except WireError as error:
                yield _Arrival(name=path.name, fault=str(error))
            else:
                yield _Arrival(name=path.name, episode=episode, identity=episode_identity(episode))


def _from_dataset(source: Path) -> Iterator[_Arrival]:
    reader = DatasetReader(source)
    for row in reader.rows:
        try:
            episode = reader.episode(row.index)
        except DatasetError as error:
            yield _Arrival(name=row.episode_id, fault=str(error))
        else:
            yield _Arrival(name=row.episode_id, episode=episode, identity=episode_identity(episode))
    reader.close()


def _body_of(sources: Sequence[Path]) -> EmbodimentSpec:
    for source in sources:
        if is_dataset(source) and (body := DatasetReader(source).embodiment) is not None:
            return body
    raise DatasetError(
        "no source names the embodiment that recorded it. Fix: put a LeRobot data set first, or use `actwright ingest`, which takes the "
        "embodiment of the recipe's simulator"
    )


def _name_of(source: Path) -> str:
    return dataset_digest(source)[:24]


def _quarantine(bad: dict[str, list[Finding]], out: Path) -> None:
    for name, findings in sorted(bad.items()):
        document = {"recording": name, "findings": [to_document(f) for f in findings]}
        path = out / "quarantine" / f"{name.replace('/', '_')}.json"
        atomic_write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
