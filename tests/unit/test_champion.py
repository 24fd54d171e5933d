"""The champion's bundle in a served folder: whole or not there, exchanged in one step, nothing taken from under a reader."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.config.judging.champion_entry import ChampionEntry
from components.release.export import export_bundle
from model_core.bundle import checked_manifest
from model_core.spec.errors import CheckpointError, JobError
from tests.fake_bento import make_bento

WEIGHTS = "checkpoint/model.safetensors"


def test_a_newer_champion_replaces_the_older_one_and_its_files_stay(tmp_path):
    folder = tmp_path / "champion"
    first = export_bundle(make_bento(tmp_path / "one", weights=b"one"), folder)
    assert first["changed"]
    assert (folder / "bundle" / WEIGHTS).read_bytes() == b"one"
    reading = (folder / "bundle").resolve()
    second = export_bundle(make_bento(tmp_path / "two", weights=b"two"), folder)
    assert second["digest"] != first["digest"]
    assert (folder / "bundle" / WEIGHTS).read_bytes() == b"two"
    assert (reading / WEIGHTS).read_bytes() == b"one", "a pod that started with the older one still finds its files"
    assert not os.path.isabs(os.readlink(folder / "bundle")), "the claim may be mounted elsewhere"
    again = export_bundle(tmp_path / "two", folder)
    assert not again["changed"]
    for number in range(4):
        export_bundle(make_bento(tmp_path / f"more-{number}", weights=bytes([number])), folder)
    assert len(list((folder / "bundles").iterdir())) == 3
    assert (folder / "bundle" / WEIGHTS).read_bytes() == bytes([3])


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"to"), lambda path: path.unlink()], ids=["torn", "lost"])
@pytest.mark.parametrize("name", [WEIGHTS, "bundle.json"])
def test_an_exported_bundle_that_was_damaged_is_replaced_by_the_next_export(tmp_path, name, harm):
    bento, folder = make_bento(tmp_path / "one", weights=b"one"), tmp_path / "champion"
    export_bundle(bento, folder)
    harm(folder / "bundle" / name)
    assert export_bundle(bento, folder)["changed"]
    assert checked_manifest(folder / "bundle").model_version == "actwright/1"
    assert (folder / "bundle" / WEIGHTS).read_bytes() == b"one"
    assert len(list((folder / "bundles").iterdir())) == 1
    assert not export_bundle(bento, folder)["changed"]


def test_two_pods_write_the_same_bundle_at_once(tmp_path):
    bento, folder = make_bento(tmp_path / "one"), tmp_path / "champion"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: export_bundle(bento, folder), range(8)))
    assert len({entry["digest"] for entry in told}) == 1
    assert [p.name for p in (folder / "bundles").iterdir()] == [told[0]["digest"]]
    assert sorted(p.name for p in folder.iterdir()) == ["bundle", "bundles"]


def test_what_is_not_whole_or_not_ours_is_refused(tmp_path):
    bento, folder = make_bento(tmp_path / "one"), tmp_path / "champion"
    (bento / "src/bundle" / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"model.safetensors is not what was packed: expected sha256 .*, got"):
        export_bundle(bento, folder)
    assert not (folder / "bundle").exists()
    with pytest.raises(CheckpointError, match="no such folder"):
        export_bundle(tmp_path / "nothing", folder)
    (folder / "bundle").mkdir(parents=True)
    with pytest.raises(JobError, match="no link of ours"):
        export_bundle(make_bento(tmp_path / "two"), folder)


def test_an_older_champion_never_replaces_a_newer_one(tmp_path):
    folder, bentos = tmp_path / "champion", [make_bento(tmp_path / name, weights=name.encode()) for name in ("one", "two")]
    first, second = (ChampionEntry(model="arm", number=n, version=n, replaced=n - 1 or None, how="gate") for n in (1, 2))
    assert export_bundle(bentos[1], folder, second)["number"] == 2
    with pytest.raises(JobError, match=r"holds champion number 2 of arm, expected 1 or less.*run the same command again"):
        export_bundle(bentos[0], folder, first)
    assert (folder / "bundle" / WEIGHTS).read_bytes() == b"two"
    rolled_back = ChampionEntry(model="arm", number=3, version=1, replaced=2, how="rollback")
    assert export_bundle(bentos[0], folder, rolled_back)["changed"]
    assert (folder / "bundle" / WEIGHTS).read_bytes() == b"one"
    assert export_bundle(bentos[1], folder, ChampionEntry(model="leg", number=1, version=1, replaced=None, how="gate"))["changed"]
