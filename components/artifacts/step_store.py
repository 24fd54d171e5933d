"""Content-addressed results: a step is done when its manifest exists, and it exists by one atomic rename.

A step is known by its key: stage, config, digests of its inputs and version of the code. While in progress its files are
in ``<stage>/<key>.partial`` and survive a kill, so that the same step continues from there. A finished step has a digest
over what it made, and only that digest enters the keys of later steps: equal outputs stop the recomputing.

Inside a step's folder: ``scratch/`` is removed at commit (in-progress checkpoints); ``undigested/`` is kept but may differ between equal
runs (timings, logs, rendered pages), as may the key ``undigested`` of the record. Everything else is output.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.files import sha256_file
from components.artifacts.locks import locked
from components.artifacts.step_manifest import (
    MANIFEST,
    SCRATCH,
    Manifest,
    Step,
    damage,
    input_digests,
    output_files,
    outputs_digest,
    read_manifest,
    size_and_time,
    step_key,
)
from model_core.spec.contract import digest_of
from model_core.spec.documents import identity_document, to_document
from model_core.spec.errors import StorageError, require
from model_core.spec.files import atomic_write, why_full

logger = logging.getLogger(__name__)


FaultHook = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A step and how it came about this time. seconds: spent now, near 0 when `cached`."""

    step: Step
    cached: bool
    seconds: float


class StepStore:
    """A folder of finished steps. Safe for several processes; a step is worked on by one at a time.

    fault: called with (stage, phase) at "begin", "written" and "committed"; tests kill the process there.
    """

    def __init__(self, root: Path, *, fault: FaultHook | None = None) -> None:
        self.root = Path(root)
        self.fault = fault or _no_fault

    def find(self, stage: str, key: str, *, thorough: bool = False) -> Step | None:
        """The finished step, or None. A step whose files were changed or lost is set aside and counts as absent.

        A file is read again only where its size or time differs from the commit's, or always with `thorough`.
        """
        folder = self.root / stage / key
        if not (folder / MANIFEST).is_file():
            return None
        step = Step(path=folder, manifest=read_manifest(folder / MANIFEST))
        found = damage(step, thorough=thorough)
        if found is None:
            return step
        aside = folder.with_name(f"{key}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        logger.warning("step.damaged stage=%s key=%s reason=%s: set aside as %s, it will be recomputed", stage, key, found, aside.name)
        return None

    def open(self, stage: str, key: str) -> Path:
        """The folder in which the step is being made; what an earlier, killed attempt left there is kept."""
        partial = self.root / stage / f"{key}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def commit(
        self, stage: str, key: str, inputs: Mapping[str, str], config: object, record: Mapping[str, Any], *, code_version: str = ""
    ) -> Step:
        """Finalize what is in `open`'s folder: hash it, write its manifest, flush, and rename it into place."""
        partial, folder = self.open(stage, key), self.root / stage / key
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        (partial / MANIFEST).unlink(missing_ok=True)
        plain = to_document(record)
        files = dict(output_files(partial))
        outputs = {name: sha256_file(path) for name, path in files.items()}
        manifest = Manifest(
            stage=stage,
            key=key,
            inputs=dict(inputs),
            config_digest=digest_of(identity_document(config)),
            outputs=outputs,
            record=plain,
            digest=outputs_digest(outputs, plain),
            code_version=code_version,
            stat={name: size_and_time(path) for name, path in files.items()},
        )
        atomic_write(partial / MANIFEST, json.dumps(to_document(manifest), indent=1, sort_keys=True))
        for path in files.values():
            _flush(path)
        _flush(partial)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
        _flush(folder.parent)
        return Step(path=folder, manifest=manifest)

    def steps(self, stage: str) -> list[Step]:
        """All finished steps of a stage, oldest first."""
        manifests = sorted((self.root / stage).glob(f"*/{MANIFEST}"), key=lambda p: (p.stat().st_mtime_ns, p.parent.name))
        finished = [m for m in manifests if not m.parent.name.endswith((".partial", ".damaged"))]
        return [Step(path=m.parent, manifest=read_manifest(m)) for m in finished]

    def by_digest(self, stage: str, digest: str) -> Step | None:
        """The newest finished step of `stage` whose digest begins with `digest`, or None.

        Raises `SpecError` where steps of different digests begin so: the newest of them would be a guess.
        """
        found = [step for step in self.steps(stage) if step.digest.startswith(digest)]
        several = sorted({step.digest for step in found})
        require(len(several) <= 1, f"more than one result of {stage} begins with {digest!r}. Fix: type more of the digest", got=several)
        return found[-1] if found else None

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Be alone with one step. Waits while another process holds it."""

        def waiting() -> None:
            logger.warning("step.waiting stage=%s key=%s: another run is making this step, waiting for it", stage, key)

        with locked(self.root / ".locks" / f"{stage}-{key}", on_wait=waiting):
            yield


class StepNotFinishedError(Exception):
    """A step that would have to be made, in a store that only finds. The argument is its stage."""


class FinishedSteps(StepStore):
    """A store that finds finished steps and makes none: `run_step` raises `StepNotFinishedError` before any work."""

    def open(self, stage: str, key: str) -> Path:
        """Raises `StepNotFinishedError`."""
        raise StepNotFinishedError(stage)


def run_step(
    store: StepStore,
    *,
    stage: str,
    config: object,
    inputs: Mapping[str, Step | str],
    work: Callable[[Path], Mapping[str, Any]],
    code_version: str,
) -> StepResult:
    """Find the step, or make it: `work` gets a folder that may hold its own earlier partial work, and returns the record.

    inputs: finished steps or bare digests. Raises what `work` raises (the partial work stays), and `StorageError` on a full disk.
    """
    start = time.monotonic()
    digests = input_digests(inputs)
    key = step_key(stage, config, digests, code_version)
    with store.lock(stage, key):
        found = store.find(stage, key)
        if found is not None:
            return StepResult(step=found, cached=True, seconds=time.monotonic() - start)
        store.fault(stage, "begin")
        try:
            record = work(store.open(stage, key))
            store.fault(stage, "written")
            step = store.commit(stage, key, digests, config, record, code_version=code_version)
        except OSError as error:
            explained = _explained(error, stage, store.root)
            if explained is None:
                raise
            raise explained from error
        store.fault(stage, "committed")
    return StepResult(step=step, cached=False, seconds=time.monotonic() - start)


def _flush(path: Path) -> None:
    """Ask the disk to keep a file or folder entry; some file systems refuse for folders, which is no loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, stage: str, root: Path) -> StorageError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{stage}: {why_full(root)} and run again, finished work is kept")
    if error.errno in (errno.EROFS, errno.EACCES):
        return StorageError(f"{stage}: cannot write under {root} ({error.strerror}); check its permissions and run again")
    return None


def _no_fault(stage: str, phase: str) -> None:
    """Production: nothing happens between the phases of a step."""
