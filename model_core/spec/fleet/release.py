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
from typing import Literal

from model_core.spec.contract import digest_of
from model_core.spec.documents import LATER, from_document, identity_document
from model_core.spec.errors import CheckpointError, SpecError, require

FORM = 1
NO_RELEASE = "0" * 64  # stands for the release of a cell that never ran one, where a rollout names its old release
GateOutcome = Literal["promote", "reject", "not enough", "invalid"]
OfflineEnd = Literal["stop", "finish", "episodes"]
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

    outcome: GateOutcome
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
class OfflineRule:
    """What a cell does that has not heard of its controller for `after_s`.

    then: "stop" ends the running episode in a hold, "finish" lets it end, "episodes" lets so many more begin; none begins after that.
    """

    then: OfflineEnd = "finish"
    after_s: float = 86_400.0
    episodes: int = 0

    def __post_init__(self) -> None:
        require(0 < self.after_s <= 366 * 86_400, "offline.after_s must be above 0 and at most a year, in seconds", got=self.after_s)
        require((self.episodes > 0) == (self.then == "episodes"), "offline.episodes is a number above 0 for the rule 'episodes' alone")
        require(self.episodes <= 10**6, "offline.episodes must be at most a million", got=self.episodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The whole of release.json.

    checkpoint: digest of the weights' folder. minimum_agent: the oldest agent version that may run it. files: those that the release
    carries itself. judgement: None where no verdict was found. override: None where the verdict decides. offline: for cells that lose
    their controller; left out of the document where it is the rule of releases that were made before there was one.
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
    offline: OfflineRule = field(default=OfflineRule(), metadata=LATER)
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
        return digest_of(identity_document(self))

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


def offline_rule(text: str, after_s: float) -> OfflineRule:
    """ "stop", "finish", or "episodes:N". Raises `SpecError` for another text."""
    then, _, number = text.partition(":")
    if then == "episodes" and number.isascii() and number.isdigit():
        return OfflineRule(then="episodes", after_s=after_s, episodes=int(number))
    if text == "stop" or text == "finish":
        return OfflineRule(then=text, after_s=after_s)
    raise SpecError(f"the offline rule must be stop, finish or episodes:N, got {text!r}. Fix: such as episodes:50")


def described_rule(rule: OfflineRule) -> str:
    """What a cell then does, for a person."""
    told = {
        "stop": "stops at once",
        "finish": "ends its episode and begins none",
        "episodes": f"begins {rule.episodes} more episodes, then none",
    }
    return told[rule.then]


def written_release(release: Release) -> str:
    """The text of release.json."""
    return json.dumps(identity_document(release), indent=1, sort_keys=True) + "\n"


def read_release(folder: Path) -> Release:
    """The document of a release folder; its files are not looked at. Raises `CheckpointError` saying what is wrong."""
    path = folder / DOCUMENT
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is no release: it has no {DOCUMENT}. Fix: make one with `actwright fleet release create`"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fix: fetch or make the release again") from error
    return parsed_release(content, str(path))


def parsed_release(content: bytes, where: str) -> Release:
    """A release from the bytes of its document. Raises `CheckpointError` saying what is wrong."""
    try:
        return from_document(Release, json.loads(content), where=where)
    except ValueError as error:  # SpecError is a ValueError
        raise CheckpointError(f"{where} cannot be read: {error}. Fix: fetch or make the release again") from error


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
