"""A small published checkpoint by command line: adopt, serve, probe and steer, drive a robot, ask its audit again, certify.

Of 7B-D's style with one camera, 7 dimensions and chunks of 2; in soak of 7B-O's too, with two cameras, 14 dimensions and chunks of 8.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.embodiments.of_spec import document_of_spec
from components.deployment.probe import probe
from components.deployment.service_address import ServiceCredentials
from components.evaluation.observation_recording import Recording
from components.release.package import probe_observations
from model_core.checkpoint import load_checkpoint
from model_core.port.of_checkpoint import port_of
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.protocol.wire import Chunk
from model_core.spec.types import DecisionRequest
from tests.faults.fork_server import Done, ForkServer
from tests.integration.loop_runs import serving
from tests.plain_loop import plain_answer
from tests.published_checkpoint import KEY, Family, published_body, write_published_checkpoint

# short: adoption by command in test_adoption, the service's engine against the plain loop in test_published_policy
pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.soak]


@dataclass(frozen=True, kw_only=True)
class Style:
    """family: whose network, processor and tokenizer."""

    family: Family
    views: int
    dims: int
    chunk: int

    @property
    def body(self) -> EmbodimentSpec:
        return published_body(views=self.views, dims=self.dims)


STYLE_D, STYLE_O = Style(family="d", views=1, dims=7, chunk=2), Style(family="o", views=2, dims=14, chunk=8)


@dataclass(frozen=True, kw_only=True)
class Adopted:
    root: Path
    style: Style


@dataclass(frozen=True, kw_only=True)
class Served:
    root: Path
    style: Style
    told: dict[str, str]
    ranks: ForkServer

    def actwright(self, *words: object) -> Done:
        return command(self.ranks, self.root, *words)


def command(ranks: ForkServer, root: Path, *words: object) -> Done:
    return ranks.run(*(str(word) for word in words), under=root)


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACTWRIGHT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "ACTWRIGHT_HOME": str(root / "home")}


@pytest.fixture(scope="module", params=[pytest.param(STYLE_D, id="7b-d"), pytest.param(STYLE_O, id="7b-o", marks=pytest.mark.soak)])
def adopted(request: pytest.FixtureRequest, ranks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    root, style = tmp_path_factory.mktemp("published"), request.param
    write_published_checkpoint(root / "MolmoAct-small", family=style.family, dims=style.dims)
    document = {**document_of_spec(style.body), "confirmed": {"by": "a test", "on": "2026-11-29"}}
    (root / "arm.yaml").write_text(json.dumps(document))  # JSON is YAML
    asked = ("model", "adopt", "MolmoAct-small", "--embodiment", "arm.yaml", "--chunk-length", style.chunk)
    unchosen = command(ranks, root, *asked)
    assert unchosen.code == 2, unchosen.told
    assert f"norm_stats has 1 keys ({KEY}); none was chosen. Fix: name one with --norm-key" in unchosen.told
    served = command(ranks, root, "serve", "MolmoAct-small", "--port", 0)
    assert served.code == 1, served.told
    assert "actwright model adopt MolmoAct-small" in served.told
    done = command(ranks, root, *asked, "--norm-key", KEY)
    assert done.code == 0, done.told
    told = json.loads(done.said)
    assert (told["embodiment"], told["chunk"], told["decoding"]) == (style.body.name, [style.chunk] * 2, "constrained")
    assert "note      cameras are shown in this order: " + ", ".join(camera.name for camera in style.body.cameras) in done.told
    return Adopted(root=root, style=style)


@pytest.fixture(scope="module")
def served(ranks: ForkServer, adopted: Adopted) -> Iterator[Served]:
    with serving(adopted.root, environment(adopted.root), "MolmoAct-small", "--port", "0") as (_, told):
        yield Served(root=adopted.root, style=adopted.style, told=told, ranks=ranks)


def test_the_service_answers_token_for_token_what_the_plain_loop_gives(served: Served) -> None:
    torch.set_num_threads(1)
    probed = probe(served.told["policy"], ServiceCredentials(timeout_s=60))
    assert served.told["model_version"] == "MolmoAct-small"
    assert probed.parts == ("depth", "trace")
    assert isinstance(probed.answer, Chunk)
    checkpoint = load_checkpoint(served.root / "MolmoAct-small")
    port = port_of(checkpoint)
    (asked,) = probe_observations(checkpoint.contract, 1, None)
    question = port.question(DecisionRequest(observation=asked), "full")
    expected = port.language.parse(plain_answer(checkpoint.model, port.language, question), question)
    assert expected.depth is not None
    assert expected.trace is not None
    assert probed.answer.depth_codes_G is not None
    assert probed.answer.depth_codes_G.tolist() == expected.depth.codes_G.tolist()
    assert probed.answer.trace_N2 is not None
    assert probed.answer.trace_N2.tolist() == expected.trace.points_N2.tolist()
    assert np.array_equal(probed.answer.actions_KA, port.actions_of(expected.bins_KA))


def test_a_line_is_drawn_for_the_model(served: Served) -> None:
    done = served.actwright("probe", served.told["policy"], "--steer", "2,3 20,20 28,9", "--timeout-s", 60, "--out", "steered.png")
    assert done.code == 0, done.told
    told = json.loads(done.said)
    assert told["flags"] == ["steering:rev1"]
    assert told["depth_tokens"] is False
    assert np.abs(np.array(told["trace"]) - np.array([[2, 3], [20, 20], [28, 9]]) * 255 / 31).max() <= 8
    assert (served.root / "steered.png").stat().st_size > 5000


def test_a_cell_works_and_its_audit_gives_the_same_answers_again(served: Served) -> None:
    (served.root / "line.json").write_text(json.dumps({"points": [[2, 3], [25, 20]]}))
    steps = 3 * served.style.chunk  # three decisions
    done = served.actwright(
        *("workcell", "run", "--robot", "strict", "--option", "contract=MolmoAct-small/contract.json", "--option", f"steps={steps}"),
        *("--task", "close the drawer", "--url", served.told["policy"], "--audit", "audit", "--deadline-ms", 60_000, "--episodes", 2),
        *("--steer", "line.json"),
    )
    assert done.code == 0, done.told
    told = json.loads(done.said)
    assert (told["episodes"], told["model_version"]) == (2, "MolmoAct-small")
    first = sorted((served.root / "audit" / "cell-1").glob("*.mcap"))[0]
    again = served.actwright("audit", "replay", first, "--all", "--out", "look.png")
    assert again.code == 0, again.told
    asked = json.loads(again.said)
    assert (asked["equal"], asked["same_bundle"]) == (True, True)
    assert asked["all"]["equal"] == asked["all"]["asked"] >= 3


@pytest.mark.soak  # short: test_int8 asks the copy through its policy
def test_its_int8_copy_is_served_under_its_own_name(ranks: ForkServer, adopted: Adopted) -> None:
    root, file = adopted.root, recording(adopted)
    made = command(ranks, root, "model", "quantize", "MolmoAct-small", "MolmoAct-int8", "--recording", file, "--decisions", 3)
    assert made.code == 0, made.told
    told = json.loads(made.said)
    assert (told["decisions"], told["answered"], told["int8_weights"]) == (3, 3, 29)
    assert told["bytes"]["int8"] < told["bytes"]["original"]
    with serving(root, environment(root), "MolmoAct-int8", "--port", "0") as (_, told):
        probed = probe(told["policy"], ServiceCredentials(timeout_s=60))
    assert told["model_version"] == "MolmoAct-int8"
    assert isinstance(probed.answer, Chunk)
    bundled = Path(told["bundle"]) / "checkpoint" / "int8_report.json"
    assert bundled.read_bytes() == (root / "MolmoAct-int8" / "int8_report.json").read_bytes()


def recording(adopted: Adopted) -> Path:
    body, rng = adopted.style.body, np.random.default_rng(0)
    made = Recording(
        images={camera.name: rng.integers(0, 256, (4, camera.height, camera.width, 3), dtype=np.uint8) for camera in body.cameras},
        proprio_TP=np.zeros((4, 2), np.float32),
        instructions=("close the drawer", "open the drawer"),
        instruction_T=np.array([0, 0, 1, 1]),
        session_T=np.array([0, 0, 1, 1]),
        consumed_T=np.array([0, 1, 0, 2]),
    )
    return made.save(adopted.root / "seen.npz")


@pytest.mark.soak  # short: test_published_policy compares drafted answers with the plain loop
def test_its_decoding_is_certified(ranks: ForkServer, adopted: Adopted) -> None:
    file = recording(adopted)
    words = ("MolmoAct-small", "--recording", file, "--decisions", 3, "--sessions", 2, "--json")
    certified = command(ranks, adopted.root, "certify", *words, "--out", "certificate.json")
    assert certified.code == 0, certified.told
    assert json.loads(certified.said)["flips"] == 0


@pytest.mark.soak  # a peer scores all 152,064 ids for each of 231 tokens; short: test_decode_bench runs every side on a compact checkpoint
def test_its_decoding_is_timed_against_its_peers_with_equal_tokens(ranks: ForkServer, adopted: Adopted) -> None:
    file, few = recording(adopted), ("--decisions", 2, "--peer-decisions", 2, "--sessions", 2)
    places = ("--out", "decode.json", "--picture", "split.png")
    timed = command(ranks, adopted.root, "bench", "decode", "MolmoAct-small", "--recording", file, *few, *places, "--json")
    assert timed.code == 0, timed.told
    told = json.loads(timed.said)
    assert (told["tokens_equal"], told["flips"], told["decisions"]) == (True, 0, 2)
    rows = {row["side"]: row for row in json.loads((adopted.root / "decode.json").read_text())["rows"]}
    peer = f"{'Qwen2' if adopted.style.family == 'd' else 'Olmo2'} generate, dynamic cache"
    assert rows[peer]["decisions_equal"] == 2
    assert rows["ours, temporal drafts"]["forwards"] < rows["ours, plain"]["forwards"] < rows["plain loop, static cache"]["forwards"]
