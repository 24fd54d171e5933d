"""The graph of what came from what: forwards from an annotator to robots, back from a cell to recordings, and what is not guessed."""

from __future__ import annotations

import json
from dataclasses import replace

from typer.testing import CliRunner

from components.adapters.mlflow.reading.records import VersionRow
from components.artifacts.files import dataset_digest
from components.artifacts.step_store import StepStore
from components.release.lineage.documents import (
    KnownBundle,
    KnownCell,
    KnownDataset,
    KnownEpisode,
    KnownRelease,
    KnownTraining,
    LineageFacts,
)
from components.release.lineage.graph import both_ways, lineage_graph, made_of, made_with, named
from components.release.lineage.outline import outline
from flows.commands.main import command_line
from flows.pipeline.lineage.gather import lineage_of
from model_core.spec.errors import NotReady
from tests.console_parts import GOLDEN_HOME, platform_over


def version(number, dataset, weights, **tags):
    return VersionRow(
        name="arm", version=number, tags={"dataset_version": dataset, "checkpoint_digest": weights, "run_id": f"run-{weights}", **tags}
    )


# dataset-1 was labelled by depth/1; arm/2 goes on from arm/1's weights on other data; arm/3 is of other data and weights
FACTS = LineageFacts(
    datasets=(
        KnownDataset(version="dataset-1", facts={}, annotators={"depth": "depth/1"}, recorded=("raw-1",), sources={"expert": "3 episodes"}),
        KnownDataset(version="dataset-2", facts={}, annotators={"depth": "depth/2"}, sources={"policy:arm/1": "5 episodes"}),
    ),
    trainings=(
        KnownTraining(run_id="run-w2", checkpoint_digest="w2", dataset_version="dataset-2", recipe_digest="r" * 8, started_from="w1"),
    ),
    versions=(
        version(1, "dataset-1", "w1", contract_id="c1"),
        version(2, "dataset-2", "w2", **{"annotator.depth": "depth/2", "code_commit": "unknown"}),
        version(3, "dataset-3", "w3", code_commit="0123abcd"),
    ),
    releases=(
        KnownRelease(digest="release-1", model_version="arm/1"),
        KnownRelease(digest="release-2", model_version="arm/2", checkpoint="w2"),
        KnownRelease(digest="release-9", model_version="other/9"),
    ),
    cells=(
        KnownCell(cell="cell-1", site="lab", release="release-2", is_now=True),
        KnownCell(cell="cell-1", site="lab", release="release-1", is_now=False, when="from A to B"),
        KnownCell(cell="cell-2", site="lab", release="release-9", is_now=True),
    ),
)  # fmt: skip


def names(graph, kind):
    return [node.name for node in graph.nodes if node.kind == kind]


def test_a_wrong_annotator_is_followed_to_every_model_release_and_robot_also_through_weights_and_recordings():
    graph = lineage_graph(FACTS)
    made = made_with(graph, named(graph, "depth/1"))
    assert names(made, "version") == ["arm/1", "arm/2"]  # the second by its weights and by what the first one recorded
    assert names(made, "release") == ["release-1", "release-2"]
    assert names(made, "cell") == ["cell-1"]
    assert next(node for node in made.nodes if node.kind == "cell").facts == {"site": "lab", "runs": "release-2"}
    assert {edge.used: edge.how for edge in made.edges if edge.made == "cell:cell-1"} == {
        "release:release-1": "ran it from A to B",
        "release:release-2": "runs it",
    }
    of_other_data = made_with(graph, named(graph, "depth/2"))
    assert names(of_other_data, "version") == ["arm/2"]
    assert names(made_with(graph, named(graph, "0123abcd")), "version") == ["arm/3"]


def test_from_a_cell_back_to_recordings_and_nothing_else_that_came_of_them():
    graph = lineage_graph(FACTS)
    made = made_of(graph, ["cell:cell-1"])
    assert names(made, "recording") == ["raw-1"]
    assert names(made, "source") == ["expert", "policy:arm/1"]
    assert names(made, "annotator") == ["depth/1", "depth/2"]
    assert "arm/3" not in names(made, "version")
    around = both_ways(graph, ["release:release-1"])
    assert names(around, "release") == ["release-1"]
    assert (names(around, "annotator"), names(around, "cell")) == (["depth/1"], ["cell-1"])


def test_what_is_known_by_name_alone_says_so_and_a_strange_contract_is_no_link():
    graph = lineage_graph(FACTS)
    assert next(node for node in graph.nodes if node.name == "other/9").facts["known"].startswith("by its name alone")
    bundle = KnownBundle(digest="b1", model_version="arm/1", contract_id="c1 with probes", checkpoint="w1")
    episode = KnownEpisode(episode="e1", cell="cell-1", model_version="arm/1", contract_id="c1 with probes", bundle="b1")

    def facts_of(episode, bundle=bundle):
        graph = lineage_graph(replace(FACTS, bundles=(bundle,), episodes=(episode,)))
        [node] = [node for node in graph.nodes if node.kind == "episode"]
        return node.facts, names(made_of(graph, ["episode:e1"]), "annotator"), names(made_of(graph, ["episode:e1"]), "version")

    assert facts_of(episode)[1:] == (["depth/1"], ["arm/1"])
    facts, annotators, _ = facts_of(replace(episode, contract_id="c2"))
    assert (facts["not linked"], annotators) == ("the bundle that it names promises contract c1 with probes", [])
    facts, annotators, _ = facts_of(replace(episode, bundle="elsewhere"))
    assert ("by its label alone" in facts["linked"], annotators) == (True, ["depth/1"])
    # a bundle of another registry carries the label of arm/1 and other weights
    assert facts_of(episode, replace(bundle, checkpoint="w2"))[2] == ["arm/1"]  # by w2, which began as w1
    assert facts_of(episode, replace(bundle, checkpoint="w3"))[2] == []


def test_things_are_found_by_name_digits_or_a_fact_and_never_by_too_few_digits():
    graph = lineage_graph(FACTS)
    assert named(graph, "arm/1") == ["version:arm/1"]
    assert named(graph, "release-") == ["release:release-1", "release:release-2", "release:release-9"]
    assert named(graph, "rel") == []
    assert named(lineage_graph(replace(FACTS, versions=(version(1, "dataset-1", "w1", contract_id="275c1f"),))), "275c") == [
        "version:arm/1"
    ]


def test_an_outline_goes_each_way_once():
    graph = lineage_graph(FACTS)
    lines = outline(graph, "cell:cell-1", backwards=True)
    assert [line.id for line in lines if line.depth == 1] == ["release:release-1", "release:release-2"]
    assert [line.is_again for line in lines if line.id == "version:arm/1"] == [False, True]
    assert len([line for line in lines if line.id == "weights:w1"]) == 2  # of arm/1, and where arm/2 began; its own parts stand once


def test_an_audited_episode_goes_back_to_what_its_policy_was_made_of(monkeypatch):
    monkeypatch.setenv("ACTWRIGHT_HOME", str(GOLDEN_HOME))
    audit = next(GOLDEN_HOME.glob("store/workcells/*/undigested/audit/cell-01/*.mcap"))
    done = CliRunner().invoke(command_line("lineage"), ["lineage", str(audit), "--no-fleet"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    kinds = {node["kind"]: node["name"] for node in told["graph"]["nodes"]}
    assert (kinds["version"], kinds["annotator"]) == ("actwright-miniature/1", "tcp-projection/1?occlusion=0.1")
    assert kinds["bundle"] == next(node for node in told["graph"]["nodes"] if node["kind"] == "episode")["facts"]["bundle"]


def test_this_home_and_a_controller_are_joined_and_what_does_not_answer_is_noted():
    digest = "a" * 64
    answers = {
        "/v1/releases": [{"digest": digest, "model_version": "actwright-miniature/1", "allowed_by": "the gate promotes it"}],
        "/v1/status": {"cells": [{"name": "cell-1", "site": "lab", "running": digest, "seen_at_s": 60.0, "is_stale": False}]},
        f"/v1/ran/{digest}": {
            "cells": [
                {"cell": "cell-1", "site": "lab", "from_s": 0.0, "until_s": 60.0, "is_now": True},
                {"cell": "cell-2", "site": "lab", "from_s": 0.0, "until_s": 120.0, "is_now": False},
            ]
        },
    }
    found = lineage_of(platform_over(GOLDEN_HOME), "recorded-depth", answers.__getitem__)
    assert names(found.graph, "cell") == ["cell-1", "cell-2"]
    assert found.notes == ()

    def silent(path):
        raise NotReady(f"no controller answers {path}")

    found = lineage_of(platform_over(GOLDEN_HOME), "recorded-depth", silent)
    assert names(found.graph, "version") == ["actwright-miniature/1"]
    assert found.notes == ("robots are left out: no controller answers /v1/releases",)


def test_a_training_that_went_on_from_weights_is_known_by_the_digest_of_their_folder(tmp_path):
    store = StepStore(tmp_path / "store")
    record = {"run_id": "", "checkpoint_digest": "", "dataset_version": "d", "undigested": {"recipe_digest": "r"}}

    def trained(key, digest, inputs):
        folder = store.open("train", key) / "checkpoint"
        (folder / "vqvae").mkdir(parents=True)
        for name in ("vqvae/config.json", "model.safetensors", "vqvae.json"):
            (folder / name).write_text(f"{key} {name}")
        return store.commit("train", key, inputs, {}, {**record, "run_id": key, "checkpoint_digest": digest})

    first = trained("one", "w1", {})
    trained("two", "w2", {"start": dataset_digest(first.path / "checkpoint")})
    graph = (
        lineage_of(platform_over(tmp_path), "w1", None).graph if named(lineage_of(platform_over(tmp_path), "", None).graph, "w1") else None
    )
    assert graph is not None
    assert [edge.how for edge in graph.edges if (edge.used, edge.made) == ("weights:w1", "run:two")] == ["start of the training"]
