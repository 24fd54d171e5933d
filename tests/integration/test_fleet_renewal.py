"""A repository of releases over the years: further sites, other keys, another year, a release that is withdrawn; by TUF's own client."""

from __future__ import annotations

import datetime
import json
import shutil

import pytest
from tuf.api.exceptions import RepositoryError

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import add_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import Renewed, refresh, renew
from components.release.fleet.publish import offered_releases, publish, withdraw
from model_core.spec.errors import SpecError, StorageError
from tests.robot_of_repository import home, offer, place, robot

__all__ = ["home", "place", "robot"]


def test_a_withdrawn_release_is_no_target_and_comes_back_under_its_number(home, place, robot):
    _, one, two = home
    keys = Keys(folder=home[0] / "keys")
    offer(home, place, one)
    offer(home, place, two)
    with pytest.raises(SpecError, match=f"is built on {one.release.digest[:16]}"):
        withdraw(one.release.digest, place, ["lab"], keys)
    assert withdraw(two.release.digest, place, ["lab", "plant"], keys) == ("lab",)
    updater = robot.check()
    assert updater.get_targetinfo(f"sites/lab/releases/{two.release.digest}.sig") is None
    assert updater.get_targetinfo(f"sites/lab/releases/{one.release.digest}.sig") is not None
    assert withdraw(two.release.digest, place, ["lab"], keys) == ()
    assert offer(home, place, two).added == ("lab",)
    assert robot.fetch()["model_version"] == "arm/2"
    assert [row.number for row in offered_releases(place, keys, "lab")] == [1, 2]


def test_a_renewal_adds_a_site_and_lasts_another_year(home, place, robot, tmp_path):
    offer(home, place, home[1])
    keys = shutil.copytree(home[0] / "keys", tmp_path / "keys")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=300)
    add_keys(keys, ["site-garage"])
    assert renew(place, Keys(folder=keys, now=later)) == Renewed(added=("garage",), replaced=(), root=2)
    assert robot.fetch()["model_version"] == "arm/1"
    publish(home[1].folder, place, ["garage"], Keys(folder=keys), Trust(public_key=keys / "release.pub.pem"))
    assert robot.fetch("garage")["model_version"] == "arm/1"
    assert refresh(place, Keys(folder=keys))["root"].date() == (later + datetime.timedelta(days=365)).date()
    (keys / "site-plant.pub.pem").unlink()
    with pytest.raises(SpecError, match="holds no key of site plant"):
        renew(place, Keys(folder=keys))


def other_keys(former, folder, *names):
    """A copy of a folder of keys, with other keys of these roles."""
    shutil.copytree(former, folder)
    for name in names:
        (folder / f"{name}.pem").unlink()
        (folder / f"{name}.pub.pem").unlink()
    add_keys(folder, names)
    return folder


def test_robots_follow_keys_that_are_replaced_and_believe_the_former_ones_no_more(home, place, robot, tmp_path):
    offer(home, place, home[1])
    former, roles = home[0] / "keys", ("root", "targets", "snapshot", "timestamp", "site-lab")
    keys = other_keys(former, tmp_path / "keys", *roles)
    stolen = shutil.copytree(place, tmp_path / "stolen")
    with pytest.raises(StorageError, match="belongs to another root key"):
        renew(place, Keys(folder=keys))
    assert renew(place, Keys(folder=keys, former=former)).replaced == roles
    assert robot.fetch()["model_version"] == "arm/1"
    publish(home[2].folder, place, ["lab"], Keys(folder=keys), Trust(public_key=keys / "release.pub.pem"))
    assert robot.fetch()["model_version"] == "arm/2"
    with pytest.raises(StorageError, match="belongs to another root key"):
        refresh(place, Keys(folder=former))
    for _ in range(9):
        refresh(stolen, Keys(folder=former))  # whoever has the former keys signs as often as is wanted
    shutil.copy(stolen / "metadata" / "timestamp.json", place / "metadata" / "timestamp.json")
    with pytest.raises(RepositoryError, match="timestamp"):
        robot.check()


def test_a_key_that_was_replaced_signs_nothing_more_by_mistake(home, place, robot, tmp_path):
    offer(home, place, home[1])
    keys = other_keys(home[0] / "keys", tmp_path / "keys", "timestamp", "site-lab")
    renew(place, Keys(folder=keys, former=home[0] / "keys"))
    with pytest.raises(SpecError, match=r"timestamp\.pem is not the key of timestamp"):
        refresh(place, Keys(folder=home[0] / "keys"))
    mixed = other_keys(keys, tmp_path / "mixed")
    shutil.copy(home[0] / "keys" / "site-lab.pem", mixed / "site-lab.pem")
    with pytest.raises(SpecError, match=r"site-lab\.pem is not the key of site-lab"):
        withdraw(home[1].release.digest, place, ["lab"], Keys(folder=mixed))
    assert robot.fetch()["model_version"] == "arm/1"


def test_a_renewal_that_ends_before_its_last_file_leaves_robots_what_they_had(home, place, robot, tmp_path, monkeypatch):
    from components.adapters.signing import update_repository

    offer(home, place, home[1])
    keys = Keys(folder=other_keys(home[0] / "keys", tmp_path / "keys", "root", "snapshot", "timestamp"), former=home[0] / "keys")
    written = update_repository.atomic_write

    def stopped(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(update_repository, "atomic_write", stopped)  # the root is the last, and the only one that is written there
    with pytest.raises(OSError, match="no space"):
        renew(place, keys)
    assert robot.fetch()["model_version"] == "arm/1"
    monkeypatch.setattr(update_repository, "atomic_write", written)
    assert renew(place, keys).root == 2
    assert robot.fetch()["model_version"] == "arm/1"


def test_the_list_of_a_site_is_signed_again_in_the_second_half_of_its_time(home, place, robot, tmp_path):
    keys = shutil.copytree(home[0] / "keys", tmp_path / "keys")
    (keys / "site-plant.pem").unlink()
    now = datetime.datetime.now(datetime.UTC)
    then = now - datetime.timedelta(days=60)
    offer(home, place, home[1], "lab", "plant", now=then)
    ends = refresh(place, Keys(folder=keys))
    assert next(iter(ends)) == "timestamp"
    assert (ends["site-lab"] - now).days >= 89
    assert (ends["site-plant"] - now).days < 30
    assert robot.fetch()["model_version"] == "arm/1"
    assert json.loads((place / "metadata" / "timestamp.json").read_bytes())["signed"]["version"] == 3
    refresh(place, Keys(folder=keys))
    assert not (place / "metadata" / "4.site-lab.json").exists()  # it has its time again
