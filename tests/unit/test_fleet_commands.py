"""`actwright fleet ...` from keys to a published release, and where the verdict of a release is found."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from typer.testing import CliRunner

from components.artifacts.step_store import StepStore
from components.release.bundle import find_packed
from flows.commands.fleet.release_facts import facts_of
from flows.commands.main import command_line
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.documents import to_document
from model_core.spec.errors import CheckpointError, SpecError
from tests.fleet import GOLDEN, bundle, verdict_on


@pytest.fixture
def actwright(tmp_path, monkeypatch):
    """Run a command in an empty home; returns (exit code, the JSON line or {}, everything printed). Errors of ours are raised."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ACTWRIGHT_STORAGE", f"folder:{tmp_path / 'objects'}")

    def call(*words: object) -> tuple[int, dict[str, Any], str]:
        done = CliRunner().invoke(command_line("fleet"), ["fleet", *map(str, words)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return done.exit_code, json.loads(lines[-1]) if lines else {}, done.output

    return call


def test_from_keys_to_a_published_release(actwright, tmp_path):
    packed = bundle(tmp_path / "bundle")
    (tmp_path / "verdict.json").write_text(json.dumps(to_document(verdict_on(packed, promote=False))))
    _, keys, _ = actwright("keys", "new", "keys", "--site", "lab", "--site", "plant")
    assert (len(keys["keys"]), keys["offline"]) == (7, ["root", "targets"])
    assert actwright("repository", "new", "repository", "--keys", "keys")[1]["sites"] == ["lab", "plant"]
    create = ("release", "create", packed, "--key", "keys/release.pem", "--verdict", "verdict.json")
    _, held, told = actwright(*create)
    assert (held["promoted"], held["may_reach_robots"]) == (False, False)
    assert "it may not reach robots: the gate's outcome is 'reject'" in told
    publish = ("repository", "--keys", "keys", "--site", "lab")
    with pytest.raises(SpecError, match="may not reach robots"):
        actwright("release", "publish", held["folder"], *publish)
    assert actwright(*create, "--override", "A. Person")[0] == 2
    _, made, told = actwright(*create, "--override", "A. Person", "--reason", "pilot cell")
    assert made["override"] == {"name": "A. Person", "reason": "pilot cell"}
    for words in (("show", made["folder"]), ("verify", made["folder"], "--key", "keys/release.pub.pem")):
        _, found, told = actwright("release", *words)
        assert found["digest"] == made["digest"]
        assert "OVERRIDE by A. Person: pilot cell (the gate's outcome is 'reject')" in told
    _, offer, told = actwright("release", "publish", made["folder"], *publish)
    assert (offer["added"], "OVERRIDE by A. Person" in told) == (["lab"], True)
    assert actwright("release", "publish", made["folder"], *publish)[1]["added"] == []
    assert "expires" in actwright("repository", "refresh", "repository", "--keys", "keys")[1]
    assert actwright("release", "verify", made["folder"])[0] == 2


def test_the_verdict_on_the_weights_is_found_in_this_home(tmp_path):
    for stage in ("gate", "package", "train"):
        shutil.copytree(GOLDEN / stage, tmp_path / "home" / "store" / stage)
    settings = Settings(home=tmp_path / "home")  # pyright: ignore[reportCallIssue]
    platform = Platform(settings=settings, store=StepStore(tmp_path / "home" / "store"))
    packed = find_packed(next((tmp_path / "home" / "store" / "package").iterdir()) / "bento")
    asked: dict[str, Any] = {"override": ("", ""), "base": None, "minimum_agent": ""}
    facts = facts_of(platform, packed, verdict=None, **asked)
    assert facts.verdict is not None
    assert (facts.verdict.decided, facts.minimum_agent) == ("promote", "0.1.0")
    assert facts.verdict.candidate in facts.evaluated
    assert any(line.startswith("torch==") for line in facts.lock.splitlines())
    other = find_packed(bundle(tmp_path / "other"))
    assert facts_of(platform, other, verdict=None, **asked).verdict is None
    (tmp_path / "home" / "studies" / "s1").mkdir(parents=True)
    (tmp_path / "verdict.json").write_text(json.dumps(to_document(verdict_on(tmp_path / "other"))))
    with pytest.raises(CheckpointError, match="evidence that was changed releases nothing"):
        facts_of(platform, other, verdict=tmp_path / "verdict.json", **asked)
    with pytest.raises(SpecError, match="is no verdict"):
        facts_of(platform, other, verdict=tmp_path / "none.json", **asked)
