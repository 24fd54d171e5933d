"""A packed policy on this disk, however it is given: a built bento, the bundle in it, or a plain checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.adoption.document import not_adopted
from model_core.bundle import CHECKPOINT, CONTRACT, MANIFEST, read_manifest
from model_core.spec.contract import digest_of
from model_core.spec.errors import CheckpointError

BUNDLE_IN_BENTO = Path("src") / "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPolicy:
    """Where the parts of a policy are. bento, bundle: None where there is none (then only `checkpoint` can be used)."""

    checkpoint: Path
    bundle: Path | None = None
    bento: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_version(self) -> str:
        """Whose answers these are; "" of a plain checkpoint."""
        return str(self.manifest.get("model_version", ""))

    @property
    def digest(self) -> str:
        """As a service tells it with every chunk: of the manifest, which lists every file's digest; "" of a plain checkpoint."""
        return digest_of(self.manifest) if self.manifest else ""

    @property
    def reasoning(self) -> str:
        """The level that it answers at by default."""
        return str(self.manifest.get("reasoning", "full"))

    @property
    def codebook(self) -> Path:
        """The depth codec beside the weights, where there is one."""
        return self.checkpoint / "vqvae"


def find_packed(folder: Path) -> PackedPolicy:
    """What `folder` is. Raises CheckpointError saying what was looked for."""
    nested = folder / "bento"
    for bundle, bento in ((folder, None), (folder / BUNDLE_IN_BENTO, folder), (nested / BUNDLE_IN_BENTO, nested)):
        if (bundle / MANIFEST).is_file():
            manifest = read_manifest(bundle).document
            is_bento = bento is not None and (bento / "bento.yaml").is_file()
            return PackedPolicy(checkpoint=bundle / CHECKPOINT, bundle=bundle, bento=bento if is_bento else None, manifest=manifest)
    for checkpoint in (folder, folder / CHECKPOINT):
        if (checkpoint / CONTRACT).is_file():
            return PackedPolicy(checkpoint=checkpoint)
    if advice := not_adopted(folder):
        raise CheckpointError(f"{folder}: {advice}")
    what = "no such folder" if not folder.is_dir() else "it is neither a bento, a bundle (bundle.json) nor a checkpoint (contract.json)"
    raise CheckpointError(f"{folder}: {what}; give the folder of a packed policy, or a name such as actwright-metaworld or champion")
