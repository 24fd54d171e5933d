"""The raw index: which sources a run reads, what each holds and how its columns become ours. It takes the place of a raw data set.

<step>/dataset/sources.json              names, digests, embodiments, maps and episodes; no path and no time
<step>/undigested/source_places.json     where each source is on this machine, so that later stages find it
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.config.records import Progress
from components.config.source_config import SourceConfig, source_opener
from components.data.accounting.tally import Tally
from components.data.sources.interface import EpisodeSource
from components.data.sources.location import contents_digest, located
from model_core.spec.contract import EmbodimentSpec, digest_of, document_of
from model_core.spec.documents import from_document, identity_document
from model_core.spec.errors import DatasetError, SpecError
from model_core.spec.files import atomic_write

INDEX = "sources.json"
PLACES = "undigested/source_places.json"
FORMAT = 1


def open_source(cfg: SourceConfig) -> EpisodeSource:
    """The episodes that `cfg` names. Raises `SpecError` for a kind that cannot be imported, and what the kind raises."""
    source = source_opener(cfg.kind)
    module_name, _, function_name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"source {cfg.name!r}: no kind {source!r} ({error}); expected 'package.module:function' that can be imported here"
        ) from error
    return function(cfg)


def write_index(sources: Sequence[SourceConfig], out: Path, progress: Progress) -> dict[str, Any]:
    """Open every source, check that it fits its embodiment, and write the index; returns the record of the stage.

    Raises `DatasetError` for a source that cannot be used, and where two sources give episodes of one id.
    """
    listed: list[dict[str, Any]] = []
    notes: list[str] = []
    tally = Tally("collect")
    ids: dict[str, str] = {}
    for number, cfg in enumerate(sources):
        progress.update(number, len(sources), f"opening {cfg.name}")
        source = open_source(cfg)
        check_sizes(source.embodiment)
        _check_ids(ids, source)
        for row in source.rows:
            tally.keep(row.provenance.producer, row.length)
        listed.append(_entry(cfg, source))
        notes += getattr(source, "notes", ())
        source.close()
    document = {"format": FORMAT, "sources": listed}
    atomic_write(out / "dataset" / INDEX, json.dumps(document, indent=1, sort_keys=True) + "\n")
    rows = tally.rows()
    return {
        "version": digest_of(document),
        "episodes": sum(entry["episodes"] for entry in listed),
        "frames": sum(entry["frames"] for entry in listed),
        "producers": {row["source"]: row["episodes"] for row in rows},
        "sources": {entry["name"]: entry["digest"] for entry in listed},
        "account": rows,
        "notes": notes,
    }


def _entry(cfg: SourceConfig, source: EpisodeSource) -> dict[str, Any]:
    rows = source.rows
    return {
        "name": cfg.name,
        "digest": source.digest,
        "embodiment": document_of(source.embodiment),
        "config": identity_document(cfg),
        "resolved": dict(getattr(source, "resolved", {})),
        "episodes": len(rows),
        "frames": sum(row.length for row in rows),
        "episode_ids": [row.episode_id for row in rows],
    }


def _check_ids(ids: dict[str, str], source: EpisodeSource) -> None:
    for row in source.rows:
        if (first := ids.setdefault(row.episode_id, source.name)) != source.name:
            raise DatasetError(
                f"episode {row.episode_id!r} is in source {first!r} and in source {source.name!r}; used twice it would count twice. "
                "Fix: leave one of the sources out, or use include"
            )


def check_sizes(embodiment: EmbodimentSpec) -> None:
    """Raise `DatasetError` for cameras of two sizes: a sample holds the images of all of them as one array, which is never scaled."""
    first, *others = embodiment.cameras
    for other in others:
        if (other.width, other.height) != (first.width, first.height):
            raise DatasetError(
                f"embodiment {embodiment.name!r}: cameras {first.name!r} ({first.width}x{first.height}) and {other.name!r} "
                f"({other.width}x{other.height}) are of two sizes, expected one: a policy takes images of one size, and none is scaled. "
                "Fix: leave one of the two out of the embodiment file, or record both in one size"
            )


def keep_places(step: Path, sources: Sequence[SourceConfig]) -> None:
    """Write down where each source is here, and what it looks like, beside a finished index."""
    places = {cfg.name: {"place": str(located(cfg)), "embodiment": _absolute(cfg.embodiment)} for cfg in sources}
    atomic_write(step / PLACES, json.dumps(places, indent=1, sort_keys=True) + "\n")


def _absolute(embodiment: str) -> str:
    path = Path(embodiment).expanduser()
    return str(path.resolve()) if embodiment and path.is_file() else embodiment


def read_index(dataset: Path) -> tuple[list[EpisodeSource], list[str], list[float]]:
    """The sources of an index, opened, their digests when it was made, and their weights.

    Raises `DatasetError` for one that is not here, or was changed since.
    """
    document = _document(dataset / INDEX)
    if document.get("format") != FORMAT:
        raise DatasetError(
            f"{dataset / INDEX}: format {document.get('format')}, expected {FORMAT}. Fix: use the version of Actwright that wrote it"
        )
    entries = document["sources"]
    if not (dataset.parent / PLACES).is_file():
        names = ", ".join(str(entry["name"]) for entry in entries)
        raise DatasetError(
            f"{dataset} is a copy of an index of sources ({names}), which says what they hold and not where they are. Fix: run the stages "
            "of its recipe here, which know it, or name the folder of a source"
        )
    places = _document(dataset.parent / PLACES)
    opened = [_opened(entry, places.get(entry["name"])) for entry in entries]
    return opened, [entry["digest"] for entry in entries], [float(entry["config"]["weight"]) for entry in entries]


def _opened(entry: Mapping[str, Any], place: Mapping[str, str] | None) -> EpisodeSource:
    name = entry["name"]
    if place is None or not Path(place["place"]).exists():
        where = "is not known" if place is None else f"was {place['place']}, where nothing is now"
        raise DatasetError(f"source {name!r}: its place on this machine {where}. Fix: run the stage collect of its recipe here")
    document = {**entry["config"], "path": place["place"], "embodiment": place["embodiment"], "hub": "", "revision": ""}
    source = open_source(from_document(SourceConfig, document, where=f"source {name!r}"))
    same = [row.episode_id for row in source.rows] == entry["episode_ids"] and document_of(source.embodiment) == entry["embodiment"]
    if not same or sum(row.length for row in source.rows) != entry["frames"]:
        raise DatasetError(
            f"source {name!r} at {place['place']} was changed after its index was made: it has other episodes, frames or another "
            "embodiment. Fix: run again; a data set that is recorded into must not be trained on"
        )
    return source


def _document(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}). Fix: run the stage collect of the recipe here") from error


def source_inputs(sources: Sequence[SourceConfig], cache: Path) -> dict[str, str]:
    """What the sources and their embodiment files hold, by digest: inputs of the step that makes the index."""
    from components.artifacts.files import sha256_file

    found: dict[str, str] = {}
    for cfg in sources:
        found[f"source-{cfg.name}"] = contents_digest(located(cfg), cache)
        path = Path(_absolute(cfg.embodiment))
        if cfg.embodiment:
            found[f"embodiment-{cfg.name}"] = sha256_file(path) if path.is_file() else cfg.embodiment
    return found
