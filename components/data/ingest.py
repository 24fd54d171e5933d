"""Recordings of workcells, and data sets made elsewhere -> one new, checked raw data set.

    spool of a cell -> recordings/<digest>/ in storage (`components.data.recordings`) -> ingest -> out/dataset

What a source says of its body is compared with the recipe's (`components.data.inspection.body`), and every recording is inspected
(`components.data.inspection.rules`). A bad one is set aside with its reason and the others continue: a truncated file, another
embodiment, a missing camera, an id or content that is there already. Episodes that failed at their task stay out of the data set unless
asked for, because a policy's own actions are its labels; those whose source does not say how they ended are taken in, and counted.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.artifacts.files import dataset_digest
from components.config.data_config import ValidateConfig
from components.config.records import Finding, Progress
from components.data.arrivals import Arrival, arrivals, refused_datasets
from components.data.inspection.rules import inspect_episode
from components.data.inspection.sentences import is_unnamed, plain, shared_sentences
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.recordings import count_of, is_dataset
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError, GateError
from model_core.spec.files import atomic_write

_COUNTS = ("not_successful", "no_outcome", "other_tasks", "copies", "success_unknown", "not_described")  # the last two were taken in


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What is taken in. embodiment: the one that all recordings must have (None: that of the first source that names one).

    tasks: recordings of other tasks are left out (empty: all are taken); one without a name for its task has that of its sentence.
    keep_failures: also episodes that failed at their task. only_successful: leave out those whose source does not say it, too.
    max_bad_fraction: of all recordings; more stop the stage. trust_data: a data set whose stats.json is not of its data is taken,
    and its statistics are computed again. thresholds: of the inspection.
    """

    embodiment: EmbodimentSpec | None = None
    tasks: Sequence[str] = ()
    keep_failures: bool = False
    only_successful: bool = False
    max_bad_fraction: float = 0.5
    trust_data: bool = False
    thresholds: ValidateConfig = field(default_factory=ValidateConfig)


@dataclass(slots=True, kw_only=True)
class _Intake:
    """One ingest while it runs. ids: episode id -> name of its recording. identities: identity -> episode id.

    sentences: plain sentence -> the task that it asked for first. asked: every (task, sentence). converted: what was converted -> episodes.
    """

    options: IngestOptions
    body: EmbodimentSpec
    ids: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    bad: dict[str, list[Finding]] = field(default_factory=dict)
    producers: Counter[str] = field(default_factory=Counter)
    sentences: dict[str, str] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)
    converted: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def accept(self, arrival: Arrival) -> Episode | None:
        """The episode of a recording that joins the data set; one that does not is counted by its reason."""
        episode = None if arrival.episode is None else self._named(arrival.episode)
        if episode is not None and self.identities.get(arrival.identity) == episode.episode_id:
            self.counts["copies"] += 1
            return None
        if self.options.tasks and episode is not None and episode.task not in self.options.tasks:
            self.counts["other_tasks"] += 1
            return None
        findings = list(arrival.findings) if episode is None else self._findings(arrival, episode)
        if findings or episode is None:
            self.bad[arrival.name] = findings
            return None
        if episode.success is False and not self.options.keep_failures:
            self.counts["not_successful"] += 1
            return None
        if episode.success is None and self.options.only_successful:
            self.counts["no_outcome"] += 1
            return None
        self._take(arrival, episode)
        return episode

    def _named(self, episode: Episode) -> Episode:
        """The episode with the name of its task, where it has only a sentence and an earlier one names the task of that sentence."""
        if not is_unnamed(episode.task, episode.instruction):
            return episode
        return replace(episode, task=self.sentences.get(plain(episode.instruction), episode.task))

    def _take(self, arrival: Arrival, episode: Episode) -> None:
        self.ids[episode.episode_id] = arrival.name
        self.identities[arrival.identity] = episode.episode_id
        self.producers[episode.provenance.producer] += 1
        if not is_unnamed(episode.task, episode.instruction):
            self.sentences.setdefault(plain(episode.instruction), episode.task)
        self.asked.add((episode.task, episode.instruction))
        self.converted.update(arrival.converted)
        self.counts["success_unknown"] += episode.success is None
        self.counts["not_described"] += not arrival.is_described

    def _findings(self, arrival: Arrival, episode: Episode) -> list[Finding]:
        def finding(check: str, reason: str) -> Finding:
            return Finding(check=check, where=arrival.name, reason=reason)

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
        elif self.counts["not_successful"]:
            why = "none was successful"
        elif self.counts["no_outcome"]:
            why = "no source says whether its episodes were successful. Fix: take them in without --only-successful"
        todo = "" if "Fix:" in why else ". Fix: repair or remove the bad ones, or record more"
        failed = self.counts["not_successful"]
        raise GateError(f"{total} recordings: {bad} invalid, {failed} unsuccessful, {kept} usable. First reason: {why}{todo}")


def ingest(sources: Sequence[Path], out: Path, progress: Progress, options: IngestOptions | None = None) -> dict[str, Any]:
    """Merge `sources` (LeRobot folders, folders of recordings) into out/dataset, in this order; sources are never changed.

    The same episode twice is taken once. Bad recordings go to out/quarantine/<name>.json, and so does a data set that is of another body
    or whose stats.json is not of its data (see `IngestOptions.trust_data`). The record counts episodes by who produced them.
    Raises `GateError` when too many recordings are bad or nothing is left.
    """
    options = options or IngestOptions()
    intake = _Intake(options=options, body=options.embodiment or _body_of(sources))
    total = count_recordings(sources)
    refused = refused_datasets(sources, intake.body, trust_data=options.trust_data)
    for folder in ("quarantine", "dataset"):
        shutil.rmtree(out / folder, ignore_errors=True)
    lost = sum(count_of(source) for source in refused)
    with DatasetWriter(out / "dataset", intake.body, notes={"ingest": [_name_of(s) for s in sources]}) as writer:
        for number, arrival in enumerate(arrivals([s for s in sources if s not in refused], intake.body), start=lost):
            progress.update(number + 1, total, "taking in recordings")
            if (episode := intake.accept(arrival)) is not None:
                writer.add(episode)
        bad = {findings[0].where: findings for findings in refused.values()} | intake.bad
        _quarantine(bad, out)
        intake.check(total, lost + len(intake.bad), bad)
    return {
        "version": dataset_digest(out / "dataset"),
        "recordings": total,
        "episodes": intake.producers.total(),
        "producers": dict(sorted(intake.producers.items())),
        **{name: intake.counts[name] for name in _COUNTS},
        "converted": dict(sorted(intake.converted.items())),
        "shared_sentences": shared_sentences(intake.asked),
        "quarantined": {name: [f.check for f in findings] for name, findings in sorted(bad.items())},
    }


def count_recordings(sources: Sequence[Path]) -> int:
    """How many recordings are in `sources` together. Raises `DatasetError` for a source that holds none."""
    return sum(count_of(source) for source in sources)


def _body_of(sources: Sequence[Path]) -> EmbodimentSpec:
    for source in sources:
        if is_dataset(source) and (body := DatasetReader(source).described) is not None:
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
