"""Which file of a checkpoint folder each tensor is read from: one set of weights, and in shards the place that the index names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from model_core.network.checkpoints.weights import INDEX_FILE, PICKLE_FILE, SHARDS, SINGLE_FILE, StoredTensor, read_header, read_pickle
from model_core.spec.errors import CheckpointError


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint folder by the key it is stored under; only headers are read.

    Raises CheckpointError when there are no weights or more than one set of them, when an index names a shard or key that is not
    there, or when a file is torn.
    """
    found = only_set(folder)
    if found == INDEX_FILE:
        return _indexed(folder / INDEX_FILE)
    if found == SINGLE_FILE:
        return dict(read_header(folder / SINGLE_FILE))
    if found == PICKLE_FILE:
        return read_pickle(folder / PICKLE_FILE)
    lone = sorted(path.name for path in folder.glob(SHARDS))
    if lone:
        raise CheckpointError(f"no weights in {folder}: it holds {lone[0]} and no {INDEX_FILE}. Fix: fetch the index of these shards too")
    raise CheckpointError(f"no weights in {folder}: expected {INDEX_FILE}, {SINGLE_FILE} or {PICKLE_FILE}")


def only_set(folder: Path) -> str:
    """The file with which the weights of a folder begin, "" where there are none; raises CheckpointError where there are several sets."""
    sets = [name for name in (INDEX_FILE, SINGLE_FILE, PICKLE_FILE) if (folder / name).is_file()]
    if len(sets) > 1:
        raise CheckpointError(
            f"{folder} holds weights {len(sets)} times ({', '.join(sets)}), and nothing says which of them are meant. "
            "Fix: keep one set in the folder and move the others away"
        )
    return sets[0] if sets else ""


def strangers(folder: Path) -> list[str]:
    """What lies among the weights of a folder and is not read, one line each with what to do.

    Shards that the index does not name, and keys in a shard that the index places elsewhere: what an earlier save left behind.
    """
    index = folder / INDEX_FILE
    places = _places(index) if index.is_file() else {}
    shards = sorted(set(places.values()))
    lines = [
        f"{path.name} is not read: {f'{INDEX_FILE} does not name it' if places else f'{INDEX_FILE} is missing'}. Fix: move it away"
        for path in sorted(folder.glob(SHARDS))
        if path.name not in shards
    ]
    for shard in shards:
        extra = sorted(key for key, _ in read_header(folder / shard) if places.get(key) != shard)
        lines += [
            f"{key} in {shard} is not read: {INDEX_FILE} {_place(places.get(key))}. Fix: fetch index and shards again" for key in extra
        ]
    return lines


def _place(shard: str | None) -> str:
    return f"places it in {shard}" if shard else "does not name it"


def _places(index: Path) -> Mapping[str, str]:
    """Key -> file name of its shard, as the index says; every shard is there."""
    try:
        places: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of shards: {error!r}") from error
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names a shard outside its folder: {name}")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names the shard {name}, which is not there; the checkpoint is incomplete")
    return places


def _indexed(index: Path) -> dict[str, StoredTensor]:
    places = _places(index)
    found: dict[str, StoredTensor] = {}
    for name in sorted(set(places.values())):
        found.update((key, tensor) for key, tensor in read_header(index.parent / name) if places.get(key) == name)
    lost = sorted(places.keys() - found.keys())
    if lost:
        raise CheckpointError(
            f"{index} promises keys that the shards it names for them do not hold: {lost}. Fix: fetch index and shards of one save again"
        )
    return found
