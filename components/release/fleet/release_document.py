"""What a release says of itself: release.json, from whose canonical form the release has its digest.

release.json     this document; it lists every other file of the release by digest, apart from the signature
bundle/          the packed policy: bundle.json, contract.json, checkpoint/ (weights, language, depth decoder), probes/
evidence/        verdict.json, the gate's verdict on the weights
sbom.cdx.json    software bill of materials, CycloneDX 1.6
model_card.md    for a person
release.sig      signature of the folder by `model-signing`; the digest does not depend on it, so signers can differ
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from components.config.judging.verdict import GateVerdict, Outcome
from model_core.spec.contract import digest_of
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import CheckpointError, SpecError, require

FORM = 1
DOCUMENT, SIGNATURE, BUNDLE, VERDICT, SBOM, CARD = (
    "release.json",
    "release.sig",
    "bundle",
    "evidence/verdict.json",
    "sbom.cdx.json",
    "model_card.md",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """One file: SHA-256 (hex, 64) and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the gate found. evaluated: digest of the checkpoint that it judged. study, ledger: where its paired trials are on record and the
    last hash of that chain; "" where it was compared with no champion."""

    outcome: Outcome
    promote: bool
    evaluated: str
    study: str = ""
    ledger: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """The person who lets a release reach robots that the gate did not promote, and why."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        require(bool(self.name.strip() and self.reason.strip()), "an override needs the name of a person and a reason. Fix: give both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The release whose files a smaller one uses. files: path in the new release -> the file, which the base carries under its digest."""

    digest: str
    files: Mapping[str, ReleaseFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The whole of release.json.

    checkpoint: digest of the weights' folder. minimum_agent: the oldest agent version that may run it. files: those that the release
    carries itself. judgement: None where no verdict was found. override: None where the verdict decides.
    """

    model_version: str
    contract_id: str
    checkpoint: str
    reasoning: str
    minimum_agent: str
    files: Mapping[str, ReleaseFile]
    judgement: Judgement | None = None
    override: Override | None = None
    base: Base | None = None
    form: int = field(default=FORM)

    def __post_init__(self) -> None:
        require(self.form == FORM, f"release.json is of form {self.form}, expected {FORM}. Fix: use a newer Actwright")
        both = set(self.files) & set(self.base.files if self.base else ())
        require(not both, f"{sorted(both)[:3]} are listed both as carried and as the base's. Fix: make the release again")
        for path in (*self.files, *(self.base.files if self.base else ())):
            parts = PurePosixPath(path).parts
            ok = parts and ".." not in parts and not path.startswith("/") and "\\" not in path and PurePosixPath(path).as_posix() == path
            require(bool(ok), f"{path!r} is no path inside a release. Fix: do not use this release, it was not made by Actwright")
            require(path not in (DOCUMENT, SIGNATURE), f"release.json lists {path}, which it cannot name. Fix: make the release again")

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 64) of the document, and so of every file of the release."""
        return digest_of(to_document(self))

    @property
    def is_promoted(self) -> bool:
        """Whether the gate's verdict promotes these weights."""
        return self.judgement is not None and self.judgement.promote and self.judgement.outcome == "promote"

    @property
    def may_reach_robots(self) -> bool:
        """By the verdict, or by a named person."""
        return self.is_promoted or self.override is not None

    @property
    def all_files(self) -> dict[str, ReleaseFile]:
        """Carried files and the base's."""
        return {**self.files, **(self.base.files if self.base else {})}

    @property
    def carried_bytes(self) -> int:
        """Sum of the sizes of the carried files."""
        return sum(file.size for file in self.files.values())


def judgement_of(verdict: GateVerdict) -> Judgement:
    """What release.json says of a verdict."""
    return Judgement(
        outcome=verdict.decided, promote=verdict.promote, evaluated=verdict.candidate, study=verdict.study, ledger=verdict.head
    )


def written_release(release: Release) -> str:
    """The text of release.json."""
    return json.dumps(to_document(release), indent=1, sort_keys=True) + "\n"


def read_release(folder: Path) -> Release:
    """The document of a release folder; its files are not looked at. Raises `CheckpointError` saying what is wrong."""
    path = folder / DOCUMENT
    try:
        return from_document(Release, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no release: it has no {DOCUMENT}. Fix: make one with `actwright fleet release create`"
        ) from error
    except (OSError, ValueError) as error:  # SpecError is a ValueError
        raise CheckpointError(f"{path} cannot be read: {error}. Fix: fetch or make the release again") from error


def who_allows(release: Release) -> str:
    """A sentence: why the release may reach robots, or why not."""
    found = f"the gate's outcome is {release.judgement.outcome!r}" if release.judgement else "no verdict of the gate is known"
    if release.override:
        return f"OVERRIDE by {release.override.name}: {release.override.reason} ({found})"
    if release.is_promoted:
        return "the gate promotes it"
    return f"it may not reach robots: {found}"


def check_may_reach_robots(release: Release) -> None:
    """Raises `SpecError` for a release that neither the gate nor a named person lets through."""
    if not release.may_reach_robots:
        raise SpecError(
            f"release {release.digest[:16]} of {release.model_version}: {who_allows(release)}. "
            "Fix: publish a version that the gate promotes, or make the release with --override NAME --reason TEXT, which is signed with it"
        )


def part_of(path: str) -> str:
    """Which part of the release a file is of: "weights", "contract", "language", "depth decoder", "golden probes", "evidence" or
    "documents"."""
    parts = PurePosixPath(path).parts
    if parts[:2] == (BUNDLE, "checkpoint"):
        if "vqvae" in parts[2:]:
            return "depth decoder"
        if parts[-1] == "contract.json":
            return "contract"
        return "weights" if parts[-1].endswith((".safetensors", ".safetensors.index.json")) else "language"
    if parts[:2] == (BUNDLE, "probes"):
        return "golden probes"
    if path == f"{BUNDLE}/contract.json":
        return "contract"
    return "evidence" if parts[0] == "evidence" else "documents"
