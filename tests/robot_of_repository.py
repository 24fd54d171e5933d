"""A repository with two releases, and a robot that reads it by TUF's own client over loopback HTTP."""

from __future__ import annotations

import json
import shutil

import pytest
from tuf.ngclient import Updater

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import make_repository
from components.release.fleet.publish import publish
from tests.fleet import bundle, release, served


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Keys, a repository, and two releases: version 1, and version 2 that adds an adapter to its weights."""
    folder = tmp_path_factory.mktemp("fleet")
    make_keys(folder / "keys", ["lab", "plant"])
    make_repository(folder / "repository", Keys(folder=folder / "keys"))
    one = release(bundle(folder / "one"), folder / "releases", folder / "keys")
    packed = bundle(folder / "two", "arm/2", adapter=600)
    two = release(packed, folder / "releases", folder / "keys", base=one.folder)
    return folder, one, two


@pytest.fixture
def place(home, tmp_path):
    """A repository without a release."""
    return shutil.copytree(home[0] / "repository", tmp_path / "repository")


def offer(home, place, made, *sites, now=None):
    keys = Keys(folder=home[0] / "keys", now=now)
    return publish(made.folder, place, sites or ("lab",), keys, Trust(public_key=home[0] / "keys" / "release.pub.pem"))


class Robot:
    """TUF's own client, with what it keeps between checks."""

    def __init__(self, folder, server, root):
        self.folder, self.root = folder, root
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def check(self) -> Updater:
        updater = Updater(
            str(self.folder / "metadata"),
            f"{self.url}/metadata/",
            str(self.folder / "targets"),
            f"{self.url}/targets/",
            bootstrap=self.root,
        )
        updater.refresh()
        return updater

    def fetch(self, site="lab") -> dict:
        """The newest release of the site, with every file that is not here already."""
        updater = self.check()
        newest = json.loads(self._file(updater, f"sites/{site}/releases.json", keep=False).read_bytes())["releases"][-1]
        document = json.loads(self._file(updater, f"sites/{site}/releases/{newest['digest']}.json").read_bytes())
        self._file(updater, f"sites/{site}/releases/{newest['digest']}.sig")
        for file in document["files"].values():
            self._file(updater, f"sites/{site}/files/{file['sha256']}")
        return document

    def _file(self, updater, name, *, keep=True):
        told = updater.get_targetinfo(name)
        assert told is not None, f"{name} is not offered"
        there = self.folder / "targets" / name.replace("/", "_")
        if not (keep and there.exists()):
            updater.download_target(told, str(there))
        return there


@pytest.fixture
def robot(place, tmp_path):
    with served(place) as server:
        made = Robot(tmp_path / "robot", server, (place / "metadata" / "1.root.json").read_bytes())
        made.server = server
        yield made
