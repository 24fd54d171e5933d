"""What a controller proposes follows from the signed update metadata of each site, and not from what a person says of a release."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from components.adapters.signing.folder_signature import Trust
from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import make_repository
from components.release.fleet.publish import publish, withdraw
from serving.fleet.controller.app import create_app
from serving.fleet.controller.service import Controller
from serving.fleet.controller.site_offers import SiteOffers
from serving.fleet.controller.store.database import Database
from tests.fleet import bundle, release, served
from tests.simulated_fleet import SimulatedCell

OLD = "b" * 64


@dataclass
class Fleet:
    client: TestClient
    controller: Controller
    folder: Path
    server: ThreadingHTTPServer
    cells: list[SimulatedCell] = field(default_factory=list)

    def post(self, path, body, expect=200):
        reply = self.client.post(path, json=body)
        assert reply.status_code == expect, reply.text
        return reply.json()

    def report(self):
        """Every cell reports once and takes what is proposed; cell -> what it runs then."""
        for cell in self.cells:
            reply = self.client.post(f"/v1/cells/{cell.name}/report", content=cell.report(1e6))
            cell.answered(reply.content, self.controller.key.public_key())
        return {cell.name: cell.running for cell in self.cells}

    def look(self):
        self.client.portal.call(self.controller.read_offers)
        self.client.portal.call(self.controller.look)

    def publish(self, made, *sites):
        publish(made.folder, self.folder / "repository", sites, self.keys, Trust(public_key=self.folder / "keys" / "release.pub.pem"))

    def withdraw(self, made, site):
        """The site's list still has the row, its signed targets no document."""
        assert withdraw(made.release.digest, self.folder / "repository", [site], self.keys) == (site,)

    @property
    def keys(self):
        return Keys(folder=self.folder / "keys")


@pytest.fixture
def fleet(tmp_path):
    make_keys(tmp_path / "keys", ["lab", "plant"])
    make_repository(tmp_path / "repository", Keys(folder=tmp_path / "keys"))
    with served(tmp_path / "repository") as server:
        root = tmp_path / "repository" / "metadata" / "1.root.json"
        offers = SiteOffers(f"http://127.0.0.1:{server.server_address[1]}", root, tmp_path / "metadata")
        database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
        controller = Controller(database, Ed25519PrivateKey.generate(), clock=lambda: 1e6, offers=offers)
        with TestClient(create_app(controller, None, look_every_s=0.0)) as client:
            here = Fleet(client=client, controller=controller, folder=tmp_path, server=server)
            for name, site in (("lab-1", "lab"), ("lab-2", "lab"), ("plant-1", "plant")):
                cell = SimulatedCell(name=name, site=site, running=OLD)
                here.post(f"/v1/cells/{name}/enrol", cell.enrolment)
                here.cells.append(cell)
            here.report()
            yield here


def test_only_what_a_site_signed_is_proposed_to_its_cells(fleet):
    made = release(bundle(fleet.folder / "one"), fleet.folder / "releases", fleet.folder / "keys")
    digest = made.release.digest
    told = {"digest": digest, "model_version": "arm/1", "allowed_by": "the gate promotes it"}
    plan = {"name": "all", "release": digest, "stages": [{"name": "all", "share": 1.0, "hold_out": 0.0, "minimum_episodes": 1}]}
    assert "to no site" in fleet.post("/v1/releases", told, 409)["reason"]
    fleet.publish(made, "lab")
    assert "the site signed ('arm/1', '', '')" in fleet.post("/v1/releases", {**told, "model_version": "arm/9"}, 409)["reason"]
    fleet.post("/v1/releases", told)
    assert "plant do not offer release" in fleet.post("/v1/rollouts", {"plan": plan}, 409)["reason"]

    fleet.publish(made, "plant")
    started = fleet.post("/v1/rollouts", {"plan": plan})["id"]
    fleet.withdraw(made, "plant")
    fleet.look()
    running = fleet.report()
    assert running.pop("plant-1") == OLD
    assert sorted(running.values()) == sorted([OLD, digest]), "one of the two cells of the other site, for one stays on the old version"
    (shown,) = [one for one in fleet.client.get("/v1/cells").json() if one["site"] == "plant"]
    assert shown["proposed"] == OLD
    assert "do not offer the new release" in shown["reason"]

    fleet.post(f"/v1/rollouts/{started}/rollback", {"reason": "over"})
    fleet.server.shutdown()  # a repository that does not answer is no reason to forget what was signed
    fleet.look()
    assert digest in fleet.controller.offers.digests["lab"]
    assert set(fleet.report().values()) == {OLD}, "the old release comes back, whatever is offered"


def bare(fleet, name, site="lab"):
    """A cell that joins and never ran anything."""
    cell = SimulatedCell(name=name, site=site)
    fleet.post(f"/v1/cells/{name}/enrol", cell.enrolment)
    fleet.cells.append(cell)
    return cell


def test_a_cell_that_never_ran_a_release_gets_one_by_rule(fleet):
    """What a person named; then what the newest rollout left behind; nothing that its site is not offered."""
    first = release(bundle(fleet.folder / "one"), fleet.folder / "releases", fleet.folder / "keys")
    second = release(bundle(fleet.folder / "two", "arm/2"), fleet.folder / "releases", fleet.folder / "keys")
    for made in (first, second):
        fleet.publish(made, "lab")
        facts = {"digest": made.release.digest, "model_version": made.release.model_version, "allowed_by": "the gate promotes it"}
        fleet.post("/v1/releases", facts)
    one, two = first.release.digest, second.release.digest
    early = bare(fleet, "lab-3")
    elsewhere = bare(fleet, "plant-2", "plant")
    fleet.report()
    fleet.look()
    fleet.report()
    assert (early.running, elsewhere.running) == ("", ""), "nothing was named and nothing rolled out"
    assert "plant do not offer" in fleet.post("/v1/first-release", {"release": one}, 409)["reason"]
    assert "no cell is enrolled at moon" in fleet.post("/v1/first-release", {"release": one, "sites": ["moon"]}, 409)["reason"]
    fleet.post("/v1/first-release", {"release": one, "sites": ["lab"], "reason": "the bench liked it"})
    assert {name: ran for name, ran in fleet.report().items() if ran != OLD} == {"lab-3": one, "plant-2": ""}

    stages = [{"name": "all", "share": 1.0, "minimum_episodes": 1}]
    plan = {"name": "to two", "release": two, "sites": ["lab"], "stages": stages}
    number = fleet.post("/v1/rollouts", {"plan": plan, "baseline": OLD})["id"]
    joined = bare(fleet, "lab-4")
    fleet.report()
    fleet.look()
    assert fleet.report()["lab-4"] in (OLD, two), "an open rollout tells it, as any cell of it"
    fleet.post(f"/v1/rollouts/{number}/skip", {"reason": "a bench is enough"})
    late = bare(fleet, "lab-5")
    fleet.report()
    fleet.look()
    fleet.report()
    assert (joined.running, late.running, elsewhere.running) == (two, two, "")
    (shown,) = [cell for cell in fleet.client.get("/v1/cells").json() if cell["name"] == "lab-5"]
    assert shown["reason"] == "its first release: what to two left behind (passed)"
    told = [entry for entry in fleet.client.get("/v1/log").json() if entry["action"] == "first release"]
    assert [entry["subject"] for entry in told] == ["loopback", "controller", "controller"]
