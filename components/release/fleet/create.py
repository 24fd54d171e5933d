"""Make a release of a packed policy: copied, described, signed, and visible by one rename."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.adapters.signing.folder_signature import Signer, sign_folder
from components.artifacts.files import sha256_file
from components.artifacts.new_folder import new_folder
from components.artifacts.step_manifest import checkpoint_digest
from components.config.judging.verdict import GateVerdict
from components.release.bundle import PackedPolicy
from components.release.fleet.bill_of_materials import bill_of_materials
from components.release.fleet.model_card import model_card
from components.release.fleet.verify import check_content, judgement_of
from model_core.bundle import CONTRACT, MANIFEST, PACK_AGAIN, checked_manifest
from model_core.spec.contract import PolicyContract
from model_core.spec.documents import to_document
from model_core.spec.errors import CheckpointError, SpecError, require
from model_core.spec.files import atomic_write
from model_core.spec.fleet.release import (
    BUNDLE,
    CARD,
    DOCUMENT,
    SBOM,
    SIGNATURE,
    VERDICT,
    Base,
    Judgement,
    OfflineRule,
    Override,
    Release,
    ReleaseFile,
    part_of,
    read_release,
    written_release,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a release says beside the bundle. verdict: the gate's, None where none is known. evaluated: digests of checkpoints that these
    weights were taken out of (one of several embodiments is a part). lock: pinned libraries, lines NAME==VERSION. base: folder of a release
    whose files are referred to by digest instead of carried again. offline: what a cell does that lost its controller."""

    verdict: GateVerdict | None
    lock: str
    minimum_agent: str
    evaluated: frozenset[str] = frozenset()
    override: Override | None = None
    base: Path | None = None
    offline: OfflineRule = OfflineRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A release on this disk. is_new: False where it was there already."""

    folder: Path
    release: Release
    is_new: bool


def create_release(packed: PackedPolicy, to: Path, signer: Signer, facts: Facts) -> Made:
    """Write to/<first 16 digits of the digest>; equal inputs make an equal release, which is then left as it is.

    Raises `CheckpointError` for a damaged bundle or base and for a verdict on other weights, `SpecError` for a needless override.
    """
    if packed.bundle is None:
        raise CheckpointError(f"{packed.checkpoint} is a checkpoint and no bundle; {PACK_AGAIN}")
    manifest = checked_manifest(packed.bundle)
    sizes = {f"{BUNDLE}/{name}": _file(packed.bundle / name) for name in (*manifest.files, MANIFEST)}
    base = _base(facts.base, sizes) if facts.base else None
    documents = _documents(packed, sizes, facts)
    carried = {path: file for path, file in sizes.items() if base is None or path not in base.files}
    release = Release(
        model_version=manifest.model_version,
        contract_id=manifest.contract_id,
        checkpoint=checkpoint_digest(packed.checkpoint),
        reasoning=manifest.reasoning,
        minimum_agent=facts.minimum_agent,
        files=carried | {path: _text_file(text) for path, text in documents.items()},
        judgement=_judgement(packed, facts),
        override=facts.override,
        base=base,
        offline=facts.offline,
    )
    if facts.override and release.is_promoted:
        raise SpecError(f"the gate promotes {release.model_version}, so no override is needed. Fix: leave --override and --reason out")
    target = to / release.digest[:16]
    if target.exists():
        check_content(target, read_release(target))
        return Made(folder=target, release=release, is_new=False)
    with new_folder(target) as folder:
        for path in carried:
            _copy(packed.bundle / path.removeprefix(f"{BUNDLE}/"), folder / path)
        for path, text in (documents | {DOCUMENT: written_release(release)}).items():
            atomic_write(folder / path, text)
        check_content(folder, release)
        sign_folder(folder, folder / SIGNATURE, signer)
    return Made(folder=target, release=release, is_new=True)


def _judgement(packed: PackedPolicy, facts: Facts) -> Judgement | None:
    if facts.verdict is None:
        return None
    known = {checkpoint_digest(packed.checkpoint), *facts.evaluated}
    require(
        facts.verdict.candidate in known,
        f"the verdict is on checkpoint {facts.verdict.candidate[:12] or '(none named)'}, and {packed.checkpoint} is "
        f"{' or '.join(sorted(digest[:12] for digest in known))}. Fix: give the verdict on these weights",
        error=CheckpointError,
    )
    return judgement_of(facts.verdict)


def _documents(packed: PackedPolicy, files: Mapping[str, ReleaseFile], facts: Facts) -> dict[str, str]:
    assert packed.bundle is not None
    place = packed.bundle / CONTRACT
    contract = PolicyContract.from_json(
        json.loads((place if place.is_file() else packed.checkpoint / CONTRACT).read_text(encoding="utf-8"))
    )
    weights = {path: file for path, file in files.items() if part_of(path) in ("weights", "depth decoder")}
    documents = {
        SBOM: bill_of_materials(packed.model_version, facts.lock, weights),
        CARD: model_card(packed.model_version, contract, facts.verdict, facts.override, files),
    }
    if facts.verdict is not None:
        documents[VERDICT] = json.dumps(to_document(facts.verdict), indent=1, sort_keys=True) + "\n"
    return documents


def _base(folder: Path, files: Mapping[str, ReleaseFile]) -> Base:
    """The files that the base carries, whatever their names there."""
    release = read_release(folder)
    check_content(folder, release)
    if release.base is not None:
        raise SpecError(f"{folder} itself refers to base {release.base.digest[:16]}. Fix: name a base that carries all of its files")
    there = {(file.sha256, file.size) for file in release.files.values()}
    shared = {path: file for path, file in files.items() if (file.sha256, file.size) in there}
    if not any(part_of(path) == "weights" for path in shared):
        raise SpecError(f"the bundle shares no weights with {folder}, so that is not its base. Fix: name another base, or leave --base out")
    return Base(digest=release.digest, files=shared)


def _file(path: Path) -> ReleaseFile:
    return ReleaseFile(sha256=sha256_file(path), size=path.stat().st_size)


def _text_file(text: str) -> ReleaseFile:
    content = text.encode()
    return ReleaseFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)  # a copy and no link: a release does not change where the store's file does
