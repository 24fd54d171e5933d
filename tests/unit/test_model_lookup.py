"""Which bundle a registered version is: the one of its checkpoint, whatever else was packed under the same label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.step_manifest import checkpoint_digest
from components.artifacts.step_store import StepStore, run_step
from components.config.recipe import PackageConfig
from components.config.records import ModelVersion
from flows.pipeline.model_lookup import packed_model
from flows.pipeline.recipes import get_recipe
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from model_core.spec.contract import PROTOCOL_VERSION
from model_core.spec.errors import NotReady, SpecError, TrackingError
from tests.tracking_twins import MemoryRegistry

LABEL = "arm/1"


class HomeWithoutServers(Platform):
    """A platform whose registry is in memory."""

    def __init__(self, home: Path) -> None:
        super().__init__(settings=Settings(home=home), store=StepStore(home / "store"))  # pyright: ignore[reportCallIssue]
        object.__setattr__(self, "kept", MemoryRegistry())

    def registry(self) -> MemoryRegistry:
        return self.__dict__["kept"]


def packed(platform: Platform, weights: str) -> Path:
    """Pack a checkpoint with `weights` as LABEL, as the stage does; returns the checkpoint in the bundle."""

    def work(out: Path) -> Mapping[str, Any]:
        bundle = out / "bento" / "src" / "bundle"
        (bundle / "probes").mkdir(parents=True)
        (bundle / "checkpoint").mkdir()
        (bundle / "checkpoint" / "model.safetensors").write_text(weights)
        (bundle / "bundle.json").write_text(json.dumps({"model_version": LABEL, "contract_id": "c" * 16, "files": {}}))
        (bundle / "probes" / "00.observe").write_bytes(bytes([PROTOCOL_VERSION, 0]))
        return {"model_version": LABEL}

    made = run_step(platform.store, stage="package", config=PackageConfig(), inputs={"checkpoint": weights}, work=work, code_version="1")
    return made.step.path / "bento" / "src" / "bundle" / "checkpoint"


def register(platform: HomeWithoutServers, digest: str) -> None:
    platform.registry().create_version("arm", checkpoint_uri="", checkpoint_digest=digest, contract_id="c", run_id="r", lineage={})


class RegistryAway(MemoryRegistry):
    """A registry that does not answer."""

    def versions(self, name: str) -> list[ModelVersion]:
        raise TrackingError(f"MLflow does not answer for {name}")


@pytest.mark.parametrize("registry", [MemoryRegistry, RegistryAway])
def test_a_label_that_was_packed_once_is_served_where_no_registry_knows_better(
    tmp_path: Path, registry: type[MemoryRegistry], capsys: pytest.CaptureFixture[str]
) -> None:
    platform = HomeWithoutServers(tmp_path)
    object.__setattr__(platform, "kept", registry())
    only = packed(platform, "first")
    assert packed_model(platform, LABEL).checkpoint == only
    assert ("served by its label" in capsys.readouterr().err) == (registry is RegistryAway)


@pytest.mark.parametrize("name", [LABEL, "arm@champion"])
def test_a_label_of_other_weights_than_the_registered_ones_is_not_served(tmp_path: Path, name: str) -> None:
    platform = HomeWithoutServers(tmp_path)
    of_an_older_registry = packed(platform, "first")
    register(platform, "b" * 64)
    platform.registry().promote(platform.registry().versions("arm")[0], expected=None)
    with pytest.raises(NotReady, match=f"{LABEL} is registered, but its checkpoint bbbbbbbbbbbb is not in .*Fix: run its recipe again"):
        packed_model(platform, name)
    assert of_an_older_registry.is_dir()


@pytest.mark.parametrize("registered", ["first", "second"])
def test_of_two_checkpoints_under_one_label_the_registered_one_is_served(tmp_path: Path, registered: str) -> None:
    platform = HomeWithoutServers(tmp_path)
    checkpoints = {weights: packed(platform, weights) for weights in ("first", "second")}
    register(platform, checkpoint_digest(checkpoints[registered]))
    assert packed_model(platform, LABEL).checkpoint == checkpoints[registered]


def test_two_checkpoints_under_one_label_and_neither_registered_is_refused(tmp_path: Path) -> None:
    platform = HomeWithoutServers(tmp_path)
    for weights in ("first", "second"):
        packed(platform, weights)
    with pytest.raises(NotReady, match=f"no model {LABEL} is registered here"):
        packed_model(platform, LABEL)
    register(platform, "a" * 64)
    with pytest.raises(NotReady, match="its checkpoint aaaaaaaaaaaa is not in"):
        packed_model(platform, LABEL)


def test_the_only_champion_here_is_the_champion_and_is_found_by_its_name_and_its_recipe_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A team whose recipe names a model of its own: the loop's model was never trained here."""
    platform = HomeWithoutServers(tmp_path)
    only = packed(platform, "first")
    own = get_recipe("loop").to_json()
    (tmp_path / "own.json").write_text(json.dumps({**own, "package": {**own["package"], "model_name": "arm"}}))
    with pytest.raises(NotReady, match="arm has no champion yet"):
        packed_model(platform, "arm")
    register(platform, checkpoint_digest(only))
    platform.registry().promote(platform.registry().versions("arm")[0], expected=None)
    for named in ("arm", str(tmp_path / "own.json"), "arm@champion"):
        assert packed_model(platform, named).checkpoint == only
        assert capsys.readouterr().err == ""
    assert packed_model(platform, "champion").checkpoint == only
    assert "arm is the only model here that has one" in capsys.readouterr().err
    with pytest.raises(NotReady, match=r"has no champion yet.*`actwright serve arm@champion`"):
        packed_model(platform, "metaworld_5")
    with pytest.raises(SpecError, match=r"no model that was packed here \(arm\)"):
        packed_model(platform, "leg")
