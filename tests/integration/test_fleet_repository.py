"""The repository of releases, read by TUF's own client over loopback HTTP: what is offered arrives; old, mixed and changed does not."""

from __future__ import annotations

import datetime
import json
import shutil

import pytest
from tuf.api.exceptions import BadVersionNumberError, DownloadError, ExpiredMetadataError, RepositoryError

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import refresh
from components.release.fleet.publish import offered_releases, publish
from model_core.spec.errors import SpecError, StorageError
from tests.fleet import bundle, release, verdict_on
from tests.robot_of_repository import home, offer, place, robot

__all__ = ["home", "place", "robot"]


def test_an_adapter_costs_at_most_a_tenth_more_than_its_own_bytes(home, place, robot):
    _, one, two = home
    offer(home, place, one)
    assert robot.fetch()["model_version"] == "arm/1"
    offer(home, place, two)
    before = robot.server.sent
    document = robot.fetch()
    adapter = two.release.files["bundle/checkpoint/adapter_model.safetensors"].size
    assert document["base"]["digest"] == one.release.digest
    assert adapter < robot.server.sent - before <= 1.1 * adapter


def test_a_site_is_offered_only_its_own_releases_and_a_second_offer_changes_nothing(home, place, robot):
    _, one, two = home
    with pytest.raises(SpecError, match="publish the base first"):
        offer(home, place, two)
    assert offer(home, place, one, "lab", "plant").added == ("lab", "plant")
    assert offer(home, place, two).added == ("lab",)
    before = (place / "metadata" / "timestamp.json").read_bytes()
    assert offer(home, place, two).added == ()
    assert (place / "metadata" / "timestamp.json").read_bytes() == before
    assert (robot.fetch("lab")["model_version"], robot.fetch("plant")["model_version"]) == ("arm/2", "arm/1")
    with pytest.raises(SpecError, match="no site moon; there are: lab, plant"):
        offer(home, place, one, "moon")


def test_the_person_who_overrides_is_in_the_list_that_robots_read(home, place, tmp_path):
    folder = home[0]
    packed = bundle(tmp_path / "b", "arm/3")
    held = verdict_on(packed, promote=False)
    refused = release(packed, tmp_path / "r", folder / "keys", verdict=held)
    with pytest.raises(SpecError, match="may not reach robots"):
        offer(home, place, refused)
    from model_core.spec.fleet.release import Override

    allowed = release(packed, tmp_path / "r", folder / "keys", verdict=held, override=Override(name="A. Person", reason="demo"))
    offer(home, place, allowed)
    rows = offered_releases(place, Keys(folder=folder / "keys"), "lab")
    assert [(row.number, row.override) for row in rows] == [(1, Override(name="A. Person", reason="demo"))]


def test_old_metadata_is_refused(home, place, robot, tmp_path):
    offer(home, place, home[1])
    old = shutil.copytree(place / "metadata", tmp_path / "old")
    refresh(place, Keys(folder=home[0] / "keys"))
    robot.check()
    shutil.copy(old / "timestamp.json", place / "metadata" / "timestamp.json")
    with pytest.raises(BadVersionNumberError):
        robot.check()


def test_an_expired_timestamp_is_refused(home, place, robot):
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    offer(home, place, home[1], now=then)
    with pytest.raises(ExpiredMetadataError, match=r"timestamp\.json"):
        robot.check()
    refresh(place, Keys(folder=home[0] / "keys"))
    assert robot.fetch()["model_version"] == "arm/1"


def test_a_mixture_of_old_and_new_metadata_is_refused(home, place, robot, tmp_path):
    offer(home, place, home[1])
    old = {name: (place / "metadata" / name).read_bytes() for name in ("2.site-lab.json", "2.snapshot.json")}
    offer(home, place, home[2])
    new = (place / "metadata" / "3.site-lab.json").read_bytes()
    (place / "metadata" / "3.site-lab.json").write_bytes(old["2.site-lab.json"])
    with pytest.raises(RepositoryError):
        robot.fetch()
    (place / "metadata" / "3.site-lab.json").write_bytes(new)
    snapshot = (place / "metadata" / "3.snapshot.json").read_bytes()
    (place / "metadata" / "3.snapshot.json").write_bytes(old["2.snapshot.json"])
    robot.folder = tmp_path / "second"
    for name in ("metadata", "targets"):
        (robot.folder / name).mkdir(parents=True)
    with pytest.raises(RepositoryError):
        robot.fetch()
    (place / "metadata" / "3.snapshot.json").write_bytes(snapshot)
    assert robot.fetch()["model_version"] == "arm/2"


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_a_changed_byte_anywhere_is_refused_by_the_client(home, place, robot, tmp_path, every):
    """every: metadata always, and each so many-th of the other files."""
    offer(home, place, home[1])
    newest = ["timestamp.json", "2.snapshot.json", "2.site-lab.json", "1.targets.json"]
    targets = sorted(path for path in (place / "targets").rglob("*") if path.is_file())[::every]
    for number, path in enumerate([place / "metadata" / name for name in newest] + targets):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        original = path.read_bytes()
        path.write_bytes(content)
        robot.folder = tmp_path / f"robot-{number}"
        for name in ("metadata", "targets"):
            (robot.folder / name).mkdir(parents=True)
        with pytest.raises((RepositoryError, DownloadError)):
            robot.fetch()
        path.write_bytes(original)


def test_what_another_signed_is_not_signed_again(home, place, tmp_path):
    offer(home, place, home[1])
    path = place / "metadata" / "2.site-lab.json"
    document = json.loads(path.read_bytes())
    document["signed"]["targets"]["sites/lab/evil"] = next(iter(document["signed"]["targets"].values()))
    path.write_text(json.dumps(document))
    with pytest.raises(StorageError, match="carries no signature that holds"):
        offer(home, place, home[2])
    make_keys(tmp_path / "other", ["lab"])
    with pytest.raises(StorageError, match="belongs to another root key"):
        refresh(place, Keys(folder=tmp_path / "other"))


def test_a_publication_that_ends_before_its_last_file_changes_nothing_for_robots(home, place, robot, monkeypatch):
    from components.adapters.signing import repository_files

    offer(home, place, home[1])
    written = repository_files.atomic_write

    def stopped(path, content):
        if path.name == "timestamp.json":
            raise OSError("no space left on device")
        written(path, content)

    monkeypatch.setattr(repository_files, "atomic_write", stopped)
    with pytest.raises(OSError, match="no space"):
        offer(home, place, home[2])
    assert robot.fetch()["model_version"] == "arm/1"
    monkeypatch.undo()
    offer(home, place, home[2])
    assert robot.fetch()["model_version"] == "arm/2"


def test_publishing_needs_no_offline_key(home, place, tmp_path):
    keys = shutil.copytree(home[0] / "keys", tmp_path / "keys")
    for name in ("root", "targets", "site-plant", "release"):
        (keys / f"{name}.pem").unlink()
    publish(home[1].folder, place, ("lab",), Keys(folder=keys), Trust(public_key=keys / "release.pub.pem"))
    with pytest.raises(SpecError, match="the private key site-plant is not in"):
        publish(home[1].folder, place, ("plant",), Keys(folder=keys), Trust(public_key=keys / "release.pub.pem"))
