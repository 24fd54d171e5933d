"""The console's pages: built of the sources that are here, over the API that is here; what models and lineage they are given."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from flows.web.__main__ import described
from flows.web.http.pages import STATIC
from tests.console_parts import GOLDEN_HOME, add_training, console_over

BUILDER = Path("infra/local/build_console.py")


def _builder():
    spec = importlib.util.spec_from_file_location("build_console", BUILDER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_built_pages_are_those_of_the_sources():
    built = json.loads((STATIC / "built_from.json").read_text())
    assert built["sources_sha256"] == _builder().source_digest(), "sources changed after the pages were built. Fix: `make console`"


def test_the_api_is_as_its_committed_document_says():
    committed = json.loads(Path("flows/web/openapi.json").read_text())
    assert committed == json.loads(json.dumps(described())), "the API changed. Fix: `make console`"
    roles = {(path, method): one["x-role"] for path, methods in committed["paths"].items() for method, one in methods.items()}
    assert all(role != "observe" for (_, method), role in roles.items() if method != "get")


def test_the_pages_load_nothing_from_elsewhere():
    import re

    for path in STATIC.rglob("*"):
        if path.suffix in {".html", ".css"}:
            assert not re.search(r"https?://", path.read_text()), path


def test_models_of_a_home_are_listed_and_told():
    client = console_over()
    listed = client.get("/api/models").json()["models"]
    assert [(one["name"], one["version"], one["outcome"]) for one in listed] == [("actwright-miniature", 1, "promote")]
    page = client.get("/api/models/actwright-miniature/1").json()
    assert page["tasks"][0] | {"low": 0, "high": 0} == {
        "task": "drawer-close-v3", "successes": 0, "trials": 1, "low": 0, "high": 0, "confidence": 0.95,
    }  # fmt: skip
    assert {one["stands"] for one in page["checks"]} == {"holds"}
    assert page["lineage"]["annotator.depth"].startswith("recorded-depth")
    curves = {one["name"]: one for one in client.get("/api/models/actwright-miniature/1/curves").json()["curves"]}
    assert curves["loss"]["steps"] == [1, 2, 3, 4, 5, 6]
    assert len(curves["validation_loss"]["values"]) == 3
    missing = client.get("/api/models/actwright-miniature/2")
    assert missing.status_code == 404
    assert "Fix:" in missing.json()["reason"]


def test_a_model_card_says_what_is_known_and_what_is_not():
    card = console_over().get("/api/models/actwright-miniature/1/card").json()
    [robot] = card["robots"]
    assert (robot["embodiment"], robot["contract_id"], robot["control_hz"]) == ("metaworld-sawyer", "275c1fbaa7e4d310", 20.0)
    assert [one["name"] for one in robot["cameras"]] == ["front"]
    assert len(robot["action"]) == 4
    assert (card["data"]["frames"], card["data"]["annotators"]["depth"]) == (18, "recorded-depth/1?near=0.4&far=3")
    assert card["tasks"][0] | {"low": 0, "high": 0} == {
        "task": "drawer-close-v3", "successes": 0, "trials": 1, "low": 0, "high": 0, "confidence": 0.95,
    }  # fmt: skip
    assert card["tasks"][0]["high"] == pytest.approx(0.975)  # exact; Wilson's 0.79 is not
    assert card["evaluations"][0]["image_swap_change"] == 1.0
    assert "How much each source of the data gave was not recorded." in card["unknown"]
    assert "It was compared with no champion." in card["unknown"]
    assert console_over().get("/api/models/actwright-miniature/7/card").status_code == 404


def test_a_home_without_models_has_none(tmp_path):
    assert console_over(tmp_path).get("/api/models").json() == {"models": []}


def test_lineage_of_a_home_without_a_fleet_says_that_robots_are_left_out():
    page = console_over().get("/api/lineage?of=recorded-depth").json()
    [start] = page["starts"]
    assert [line["id"].partition(":")[0] for line in start["made_with"]] == ["data set", "run", "weights", "version", "bundle", "bundle"]
    assert start["made_of"] == []
    assert any("robots are left out" in note for note in page["notes"])


def test_runs_are_listed_and_shown_beside_each_other(tmp_path):
    (tmp_path / "store").symlink_to(GOLDEN_HOME.resolve() / "store")
    shutil.copyfile(GOLDEN_HOME / "mlflow.db", tmp_path / "mlflow.db")
    add_training(tmp_path / "mlflow.db", "other")
    client = console_over(tmp_path)
    listed = client.get("/api/runs").json()["runs"]
    assert [one["id"] for one in listed] == ["other", "430f7fb52a20a68260037061"]
    assert listed[0]["loss"] == 2 * listed[1]["loss"]
    told = client.get("/api/runs/beside?of=430f,other").json()
    assert told["params"] == [{"name": "train.learning_rate", "values": ["0.001", "0.0005"]}]
    numbers = {(row["kind"], row["name"]): row["values"] for row in told["numbers"]}
    assert numbers["share", "expert"] == [None, 0.75]
    assert ("share", "nobody") not in numbers
    assert numbers["evaluation", "success rate"] == [0.0, None]  # of the one whose checkpoint was evaluated in this home
    loss = {line["run"]: line for curve in told["curves"] if curve["name"] == "train/loss" for line in curve["lines"]}
    assert (loss[0]["steps"], loss[1]["steps"]) == ([1, 2, 3, 4, 5, 6], [1, 3, 5])
    assert loss[1]["values"] == [2 * value for value in loss[0]["values"][::2]]
    assert "Fix:" in client.get("/api/runs/beside?of=none,other").json()["reason"]
    assert "expected one to 8 runs" in client.get(f"/api/runs/beside?of={','.join('abcdefghi')}").json()["reason"]


def test_a_home_without_records_says_how_to_get_some(tmp_path):
    assert "actwright run" in console_over(tmp_path).get("/api/runs").json()["absent"]
