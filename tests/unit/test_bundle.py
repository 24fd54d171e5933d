"""The manifest of a bundle: what it must say, what may be left out, and that every file is compared with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.bundle import MANIFEST, checked_manifest, file_digests, read_manifest
from model_core.spec.contract import digest_of
from model_core.spec.errors import CheckpointError


def written(folder: Path, **changes: object) -> Path:
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    document = {"model_version": "arm/3", "contract_id": "c0ffee", "files": file_digests(folder), **changes}
    (folder / MANIFEST).write_text(json.dumps(document))
    return folder


def test_a_manifest_is_read_with_its_defaults_and_its_digest_is_that_of_the_document(tmp_path: Path) -> None:
    manifest = checked_manifest(written(tmp_path / "b", note="kept"))
    assert (manifest.model_version, manifest.contract_id, manifest.reasoning, manifest.torch_threads) == ("arm/3", "c0ffee", "full", 1)
    assert list(manifest.files) == ["checkpoint/model.safetensors"]
    assert manifest.document["note"] == "kept"
    assert manifest.digest == digest_of(json.loads((tmp_path / "b" / MANIFEST).read_text()))
    assert checked_manifest(written(tmp_path / "c", reasoning="action", torch_threads=4)).torch_threads == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a map"),
        ('{"model_version": "a", "contract_id": "b"}', "expected a map"),
        ('{"model_version": "a", "files": {}}', "contract_id, got None"),
        ('{"model_version": 3, "contract_id": "b", "files": {}}', "model_version, got 3"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_with_its_path_and_the_advice(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError) as error:
        read_manifest(tmp_path)
    assert says in str(error.value).replace("expected a text for ", "")
    assert str(tmp_path) in str(error.value)
    assert "actwright export" in str(error.value)


def test_a_folder_without_a_manifest_and_a_changed_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has no bundle\.json"):
        read_manifest(tmp_path)
    bundle = written(tmp_path / "b")
    (bundle / "checkpoint" / "model.safetensors").write_bytes(b"wEights")
    assert read_manifest(bundle).model_version == "arm/3"  # only the check looks at the files
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was packed: expected sha256"):
        checked_manifest(bundle)
    (bundle / "checkpoint" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        checked_manifest(bundle)
