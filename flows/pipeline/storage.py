"""Where data is kept: raw recordings in object storage, data set versions in DVC, both pushed from finished steps.

Each is a step of its own, keyed by where it was sent, so that a second run starts no server and a change of storage sends again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.artifacts.locks import locked
from components.artifacts.step_manifest import MANIFEST, Step
from components.artifacts.step_store import StepResult, run_step
from components.config.recipe import Recipe
from components.config.records import Progress
from components.config.stages import DATA_STAGES
from flows.pipeline.dvc_data import carry_out
from flows.pipeline.stages.data import ingest_step
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.errors import DatasetError, StorageError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from components.adapters.dvc import DvcStore, Remote
    from components.adapters.storage.object_store import ObjectStore

_VERSION = "1"
_DVC_PREFIX = "dvc"  # of DVC's objects in the store


def keep_raw(platform: Platform, raw: Step, progress: Progress) -> StepResult:
    """Send the demonstrations to object storage, once."""

    def work(_out: Path) -> Mapping[str, Any]:
        from components.adapters.storage.folder_transfer import upload_dataset

        with storage(platform.settings) as (store, _remote):
            sent = upload_dataset(store, raw.path / "dataset", progress)
        return {"prefix": sent.prefix, "objects": sent.objects, "bytes": sent.bytes}

    return run_step(platform.store, stage="upload", config=_place(platform), inputs={"raw": raw}, work=work, code_version=_VERSION)


def keep_recordings(platform: Platform, cells: Step, progress: Progress) -> StepResult:
    """Send what the workcells recorded to object storage, where the next ingest finds it."""

    def work(_out: Path) -> Mapping[str, Any]:
        from components.data.recordings import upload_recordings

        folder = cells.path / "recordings"
        if not any(folder.glob("*")):
            return {"objects": 0}
        with storage(platform.settings) as (store, _remote):
            sent = upload_recordings(store, folder, progress)
        return {"prefix": sent.prefix, "objects": sent.objects, "bytes": sent.bytes}

    return run_step(platform.store, stage="recordings", config=_place(platform), inputs={"cells": cells}, work=work, code_version=_VERSION)


def keep_version(platform: Platform, recipe: Recipe, made: Mapping[str, Step], progress: Progress) -> StepResult:
    """Carry the data stages out to data/, record them with DVC and push them. The record names DVC's version.

    One run at a time: data/ and DVC's files are one place, and another run may carry out another recipe.
    """
    with locked(platform.settings.home.resolve() / "locks" / "data.lock"):
        return _keep_version(platform, recipe, made, progress)


def _keep_version(platform: Platform, recipe: Recipe, made: Mapping[str, Step], progress: Progress) -> StepResult:
    from components.adapters.dvc_remote import restore_lost_objects
    from components.adapters.storage.seaweedfs import no_room

    dvc = _dvc_store(platform)
    present = all(_lies_there(platform.settings.data, made[stage]) for stage in DATA_STAGES)
    _carry(platform, recipe, made)

    def work(_out: Path) -> Mapping[str, Any]:
        progress.update(0, 2, "recording the version with DVC")
        with storage(platform.settings) as (store, remote):
            dvc.prepare(remote)
            version = dvc.record(DATA_STAGES)
            progress.update(1, 2, "pushing the version")
            try:
                dvc.push(DATA_STAGES)
            except DatasetError as error:  # DVC only reports "internal error" for a full store
                full = no_room(platform.settings.home.resolve() / "s3") if platform.settings.storage == "embedded" else ""
                if not full:
                    raise
                raise StorageError(f"dvc push could not send the version: {full}") from error
            restore_lost_objects(store, _DVC_PREFIX, version, dvc.cache)
        return {"version": version.version, "outputs": dict(version.outputs)}

    inputs = {stage: made[stage] for stage in DATA_STAGES}
    result = run_step(platform.store, stage="vault", config=_place(platform), inputs=inputs, work=work, code_version=_VERSION)
    if result.cached and not present:
        dvc.prepare()
        dvc.record(DATA_STAGES)
    return result


def take_in_recordings(
    platform: Platform,
    recipe: Recipe,
    source: Path | None,
    progress: Progress,
    *,
    trust_data: bool = False,
    only_successful: bool = False,
) -> StepResult | None:
    """Ingest a folder, or everything that waits in object storage (None when nothing does); the data set goes to raw storage."""
    from components.adapters.storage.folder_transfer import upload_dataset
    from components.data.recordings import fetch_recordings

    with storage(platform.settings) as (store, _remote):
        waiting = (source.resolve(),) if source else fetch_recordings(store, platform.settings.home.resolve() / "recordings", progress)
        if not waiting:
            return None
        result = ingest_step(platform, recipe, waiting, progress, trust_data=trust_data, only_successful=only_successful)
        upload_dataset(store, result.step.path / "dataset", progress)
    return result


@contextlib.contextmanager
def storage(settings: Settings) -> Iterator[tuple[ObjectStore, Remote]]:
    """The object store and, over it, DVC's remote; the embedded one is started for the time of the block."""
    from components.adapters.dvc import Remote
    from components.adapters.storage.object_store import FolderStore
    from components.adapters.storage.s3 import S3Address, S3Store
    from components.adapters.storage.seaweedfs import LocalS3

    kind, _, place = settings.storage.partition(":")
    if settings.storage == "embedded":
        with LocalS3(settings.home.resolve() / "s3") as endpoint:
            keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
            yield endpoint.store(settings.bucket), Remote(url=f"s3://{settings.bucket}/{_DVC_PREFIX}", endpoint_url=endpoint.url, **keys)
    elif kind == "folder":
        folder = Path(place).resolve()
        yield FolderStore(folder), Remote(url=str(folder / _DVC_PREFIX))
    else:
        address, secret = urlsplit(settings.storage), settings.s3_secret_key.get_secret_value()
        scheme = "https" if address.scheme == "https" else "http"
        key = settings.s3_access_key
        keys = {"access_key": key, "secret_key": secret, "region": settings.s3_region}
        remote = Remote(url=f"s3://{settings.bucket}/{_DVC_PREFIX}", endpoint_url=f"{scheme}://{address.netloc}", **keys)
        found = S3Address(endpoint=address.netloc, secure=scheme == "https", **keys)
        yield S3Store(found, settings.bucket), remote


def _place(platform: Platform) -> dict[str, str]:
    return {"storage": platform.settings.storage, "bucket": platform.settings.bucket}


def _dvc_store(platform: Platform) -> DvcStore:
    from components.adapters.dvc import DvcStore

    return DvcStore(platform.settings.data.resolve().parent)


def _lies_there(data: Path, step: Step) -> bool:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((data / step.manifest.stage / MANIFEST).read_text(encoding="utf-8"))["digest"] == step.digest
    return False


def _carry(platform: Platform, recipe: Recipe, made: Mapping[str, Step]) -> None:
    """data/recipe.json and data/<stage>, for `dvc repro` and for people."""
    text = json.dumps(recipe.to_json(), indent=1, sort_keys=True) + "\n"
    path = platform.settings.data / "recipe.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)
    for stage in DATA_STAGES:
        carry_out(made[stage], platform.settings.data)
