"""Recordings of workcells, and data sets made elsewhere -> one new, checked raw data set.

    cells' spool -> upload_recordings -> recordings/<digest>/ in raw storage -> fetch_recordings -> ingest -> out/dataset

Every recording passes the inline check. A bad one is set aside with its reason and the others go on: a torn file, another
body, a missing camera, an id or evidence that is there already. What did not succeed is kept out of the data set unless
asked for, because a policy's own actions are its labels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.adapters.object_storage import COMPLETE, ObjectStore, Transfer, download_folder, upload_folder
from components.artifacts.files import dataset_digest, write_text_atomically
from components.config.records import Finding, Progress
from components.data.episode_checks import inline_check
from components.data.lerobot import layout
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.lerobot.stale_statistics import stale_statistics
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import to_document
from model_core.spec.errors import DatasetError, GateError, WireError
from model_core.spec.protocol.wire import decode_episode
from model_core.spec.types import Episode

RECORDINGS = "recordings"
SUFFIXES = (".episode", ".msgpack")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Arrival:
    """One recording: an episode, or why there is none."""

    name: str
    episode: Episode | None = None
    fault: str = ""


def ingest(
    sources: Sequence[Path],
    out: Path,
    progress: Progress,
    *,
    embodiment: EmbodimentSpec | None = None,
    keep_failures: bool = False,
    max_bad_fraction: float = 0.5,
    tasks: Sequence[str] = (),
    trust_data: bool = False,
) -> dict[str, Any]:
    """Merge `sources` (LeRobot folders, folders of recordings) into out/dataset, in this order.

    embodiment: the body that all must have; taken from the first source that names one. tasks: recordings of other tasks
    are left out (empty: all are taken). The same episode twice is taken once. Bad recordings go to
    out/quarantine/<name>.json, and so does a data set whose stats.json is not of its data: one of the two was changed, and which
    one only a person knows. trust_data: it was the statistics; they are computed anew. Sources are never changed.
    The record counts episodes by who produced them. Raises `GateError` when more than `max_bad_fraction` are bad or nothing is left.
    """
    body = embodiment or _body_of(sources)
    total = count_recordings(sources)
    stale = {} if trust_data else _stale_sources(sources)
    shutil.rmtree(out / "quarantine", ignore_errors=True)
    shutil.rmtree(out / "dataset", ignore_errors=True)
    ids: dict[str, str] = {}
    evidence: dict[str, str] = {}
    bad: dict[str, list[Finding]] = {_stats_of(source): findings for source, findings in stale.items()}
    refused = sum(_count(source) for source in stale)
    producers: Counter[str] = Counter()
    failed = strange = copies = 0
    with DatasetWriter(out / "dataset", body, notes={"ingest": [_name_of(s) for s in sources]}) as writer:
        for number, arrival in enumerate(_arrivals([source for source in sources if source not in stale]), start=refused):
            progress.update(number + 1, total, "taking in recordings")
            if _is_copy(arrival, evidence):
                copies += 1
                continue
            if tasks and arrival.episode is not None and arrival.episode.task not in tasks:
                strange += 1
                continue
            findings = _findings(arrival, body, ids, evidence)
            if findings:
                bad[arrival.name] = findings
                continue
            episode = arrival.episode
            assert episode is not None
            if not episode.success and not keep_failures:
                failed += 1
                continue
            ids[episode.episode_id] = arrival.name
            evidence[_evidence(episode)] = episode.episode_id
            writer.add(episode)
            producers[episode.provenance.producer] += 1
        _quarantine(bad, out)
        kept = producers.total()
        worst = refused + len(bad) - len(stale)
        if kept == 0 or worst > max_bad_fraction * total:
            first = next(iter(bad.values()))[0] if bad else None
            why = f"{first.where}: {first.reason}" if first else "none was successful" if failed else f"none is of {', '.join(tasks)}"
            todo = "" if "Do:" in why else ". Do: mend or remove the bad ones, or record more"
            raise GateError(
                f"of {total} recordings {worst} are bad and {failed} failed at their task, {kept} are left. First reason: {why}{todo}"
            )
    return {
        "version": dataset_digest(out / "dataset"),
        "recordings": total,
        "episodes": kept,
        "producers": dict(sorted(producers.items())),
        "not_successful": failed,
        "other_tasks": strange,
        "copies": copies,
        "quarantined": {name: [f.check for f in findings] for name, findings in sorted(bad.items())},
    }


def count_recordings(sources: Sequence[Path]) -> int:
    """How many recordings lie in `sources` together. Raises `DatasetError` for a source that holds none."""
    return sum(_count(source) for source in sources)


def upload_recordings(store: ObjectStore, spool: Path, progress: Progress) -> Transfer:
    """Put a cell's finished recordings under recordings/<digest of the folder>; the same recordings are stored once."""
    return upload_folder(store, spool, f"{RECORDINGS}/{dataset_digest(spool)[:24]}", progress)


def pending_recordings(store: ObjectStore) -> tuple[str, ...]:
    """Prefixes of completed uploads of recordings, in order: what the next data set may be made from."""
    ending = f"/{COMPLETE}"
    return tuple(o.key.removesuffix(ending) for o in store.list(f"{RECORDINGS}/") if o.key.endswith(ending))


def fetch_recordings(store: ObjectStore, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """Fetch every completed upload into `folder`, one subfolder each; those that are there are not fetched again."""
    fetched: list[Path] = []
    for prefix in pending_recordings(store):
        target = folder / prefix.removeprefix(f"{RECORDINGS}/")
        download_folder(store, prefix, target, progress)
        fetched.append(target)
    return tuple(fetched)


def _stale_sources(sources: Sequence[Path]) -> dict[Path, list[Finding]]:
    """The data sets among `sources` whose statistics are of other data, with what was expected and what stands there."""
    found: dict[Path, list[Finding]] = {}
    for source in sources:
        if not _is_dataset(source):
            continue
        reader = DatasetReader(source)
        reasons = stale_statistics(reader)
        reader.close()
        if reasons:
            todo = (
                f"nothing of {source.name} was taken in, and it lies unchanged where it was. Do: if the data are right, "
                "ingest again with --trust-data, which computes them anew; if not, record or export the data set again"
            )
            found[source] = [Finding(check="stale_statistics", where=_stats_of(source), reason=f"{reason}; {todo}") for reason in reasons]
    return found


def _stats_of(source: Path) -> str:
    return f"{source.name}/{layout.STATS}"


def _is_copy(arrival: _Arrival, evidence: Mapping[str, str]) -> bool:
    """The same episode came already: the same id, pictures and actions."""
    episode = arrival.episode
    return episode is not None and evidence.get(_evidence(episode)) == episode.episode_id


def _findings(arrival: _Arrival, body: EmbodimentSpec, ids: dict[str, str], evidence: dict[str, str]) -> list[Finding]:
    episode = arrival.episode
    if episode is None:
        return [Finding(check="unreadable", where=arrival.name, reason=arrival.fault)]
    findings = inline_check(episode, body)
    if episode.episode_id in ids:
        findings.append(
            Finding(
                check="duplicate_id", where=arrival.name, reason=f"the id {episode.episode_id} came already, with {ids[episode.episode_id]}"
            )
        )
    elif not findings and (same := evidence.get(_evidence(episode))):
        findings.append(Finding(check="duplicate", where=arrival.name, reason=f"holds the same pictures and actions as {same}"))
    return findings


def _evidence(episode: Episode) -> str:
    total = hashlib.sha256(np.ascontiguousarray(episode.executed_TA).tobytes())
    for name in sorted(episode.images):
        total.update(np.ascontiguousarray(episode.images[name]).tobytes())
    return total.hexdigest()


def _arrivals(sources: Sequence[Path]) -> Iterator[_Arrival]:
    for source in sources:
        if _is_dataset(source):
            yield from _from_dataset(source)
            continue
        for path in _recordings(source):
            try:
                episode = decode_episode(path.read_bytes())
            except WireError as error:
                yield _Arrival(name=path.name, fault=str(error))
            else:
                yield _Arrival(name=path.name, episode=episode)


def _from_dataset(source: Path) -> Iterator[_Arrival]:
    reader = DatasetReader(source)
    for row in reader.rows:
        try:
            episode = reader.episode(row.index)
        except DatasetError as error:
            yield _Arrival(name=row.episode_id, fault=str(error))
        else:
            yield _Arrival(name=row.episode_id, episode=episode)
    reader.close()


def _is_dataset(source: Path) -> bool:
    return (source / layout.INFO).exists()


def _recordings(source: Path) -> list[Path]:
    return sorted(p for p in source.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith("."))


def _count(source: Path) -> int:
    if not source.is_dir():
        raise DatasetError(f"{source} is not a folder. Do: name a LeRobot data set or a folder of recordings")
    count = len(DatasetReader(source)) if _is_dataset(source) else len(_recordings(source))
    if count == 0:
        raise DatasetError(f"{source.name} holds no recordings ({', '.join('*' + s for s in SUFFIXES)}) and is not a LeRobot data set")
    return count


def _body_of(sources: Sequence[Path]) -> EmbodimentSpec:
    for source in sources:
        if _is_dataset(source) and (body := DatasetReader(source).embodiment) is not None:
            return body
    raise DatasetError("none of the sources says which body recorded it. Do: name the embodiment (a recipe's simulator or a contract.json)")


def _name_of(source: Path) -> str:
    return dataset_digest(source)[:24]


def _quarantine(bad: dict[str, list[Finding]], out: Path) -> None:
    for name, findings in sorted(bad.items()):
        document = {"recording": name, "findings": [to_document(f) for f in findings]}
        path = out / "quarantine" / f"{name.replace('/', '_')}.json"
        write_text_atomically(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
