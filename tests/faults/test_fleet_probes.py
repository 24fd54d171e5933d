"""F34 with the real policy service: a signed release whose recorded answers this computer does not give."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from components.adapters.signing.key_files import make_keys
from components.adapters.signing.repository_files import Keys
from components.adapters.signing.update_repository import make_repository
from components.config.recipe import PackageConfig
from components.release.package import write_bundle
from model_core.bundle import MANIFEST, file_digests
from model_core.spec.protocol.wire import Chunk, decode_message, encode_message
from tests.fakes import make_embodiment
from tests.faults.verdicts import covers
from tests.fleet import release
from tests.fleet_agent import Offered, offer, robot_of
from tests.tiny_checkpoint import write_tiny_checkpoint

GATEWAY = [sys.executable, "-m", "serving.gateway", "--bundle", "{bundle}", "--port", "{port}"]


def with_other_answers(bundle) -> None:
    """Recorded elsewhere: every answer of the probes is another one, and the manifest agrees with the files."""
    for path in (bundle / "probes").glob("*.chunk"):
        chunk = decode_message(path.read_bytes())
        assert isinstance(chunk, Chunk)
        path.write_bytes(encode_message(replace(chunk, actions_KA=np.clip(1.0 - chunk.actions_KA, -1.0, 1.0).astype(np.float32))))
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "model_version": "tiny/2", "files": file_digests(bundle)}))


@covers("F34", I9="the real service does not become ready, the release is refused with its probes' words, and what ran runs on")
@pytest.mark.soak  # loads torch twice; the short form, with a light service, is in test_fleet_faults.py
def test_a_release_whose_golden_probes_are_answered_otherwise_here(tmp_path) -> None:
    make_keys(tmp_path / "keys", ["lab"])
    make_repository(tmp_path / "repository_", Keys(folder=tmp_path / "keys"))
    write_tiny_checkpoint(tmp_path / "checkpoint", embodiment=make_embodiment(size=32))
    for name in ("good", "bad"):
        write_bundle(PackageConfig(golden_probes=1), tmp_path / "checkpoint", "tiny/1", tmp_path / name, None)
    with_other_answers(tmp_path / "bad")
    good, bad = (release(tmp_path / name, tmp_path / "releases", tmp_path / "keys") for name in ("good", "bad"))
    site = Offered(keys=tmp_path / "keys", repository=tmp_path / "repository_", made=(good, bad))
    with robot_of(site, tmp_path, service=GATEWAY) as robot:
        offer(site, robot.place, bad)
        robot.controller.propose(good.release.digest)
        robot.turn_until(lambda: robot.runs(good.release.digest), 300.0)
        robot.controller.propose(bad.release.digest)
        robot.turn_until(lambda: robot.controller.reports and robot.controller.reports[-1].error, 300.0)
        error = robot.controller.reports[-1].error
        assert (error.code, error.release) == ("PROBES", bad.release.digest)
        assert "golden probes failed" in error.message
        assert robot.permit.release == good.release.digest
        robot.turn_until(lambda: robot.runs(good.release.digest))
