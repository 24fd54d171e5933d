"""Benchmark and certificate on a real, untrained checkpoint: every peer runs, tokens are compared, a flip is found and told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from components.evaluation.decoding.benchmark import DecodeBenchmark, _engines, bench_decode
from components.evaluation.decoding.benchmark_document import DRAFTS, FAITHFUL, MEMORY, OURS, PLAIN
from components.evaluation.decoding.equivalence import EquivalenceOptions, certify
from components.evaluation.decoding.hf_peer import Generation, GrammarMask, HfPeer
from components.evaluation.decoding.olmo2_peer import MatchingOlmo2, matches_olmo2
from components.evaluation.decoding.peer_prompt import Laps, Places
from components.evaluation.decoding.peers import GENERATE, LOOKUP_TOKENS, QWEN2_GENERATE
from components.evaluation.decoding.replay import Replay
from components.evaluation.observation_recording import Recording
from flows.commands.bench.commands import bench
from flows.commands.bench.commands import certify as certify_command
from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.decode_request import CompactLanguage
from model_core.spec.errors import SpecError
from model_core.tokenization.compact.layout import NO_SLOT, ReasoningMode
from tests.fakes import make_embodiment
from tests.tiny_checkpoint import INSTRUCTIONS, write_tiny_checkpoint
from tests.unit.test_published_packing import make_network, small_config


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None: ...


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "checkpoint"
    write_tiny_checkpoint(path, embodiment=make_embodiment(size=32))
    return path


@pytest.fixture(scope="module")
def checkpoint(folder) -> Checkpoint:
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def recording(checkpoint) -> Recording:
    body, rng = checkpoint.contract.embodiment, np.random.default_rng(0)
    sessions = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    return Recording(
        images={camera.name: rng.integers(0, 256, (8, camera.height, camera.width, 3), dtype=np.uint8) for camera in body.cameras},
        proprio_TP=np.tile((body.proprio.low + body.proprio.high) / 2, (8, 1)).astype(np.float32),
        instructions=INSTRUCTIONS,
        instruction_T=sessions % 2,
        session_T=sessions,
        consumed_T=np.array([0, 4, 4, 0, 4, 0, 2, 0]),
        source={"checkpoint_digest": "abc", "episodes": []},
    )


@pytest.mark.soak  # short: a peer's tokens and the engines' shared measurement below; the command's usage at the end
def test_bench_decode_runs_all_sides_with_the_same_tokens_and_prints_one_json_line(folder, recording, tmp_path):
    file = recording.save(tmp_path / "seen.npz")
    words = ["--recording", str(file), "--decisions", "2", "--peer-decisions", "2", "--sessions", "2", "--json"]
    places = ["--out", str(tmp_path / "decode.json"), "--picture", str(tmp_path / "pictures" / "split.png")]
    done = CliRunner().invoke(_app(), ["bench", "decode", str(folder), *words, *places])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["tokens_equal"]
    assert {"speedup_over_generate", "flips", "acceptance", "decisions"} <= set(told)
    assert (tmp_path / "pictures" / "split.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "decode.json").read_text())
    assert document["flips"] == 0
    rows = {row["side"]: row for row in document["rows"]}
    assert {PLAIN, DRAFTS, MEMORY, *GENERATE, *QWEN2_GENERATE} < set(rows)
    assert all(row["decisions_equal"] == row["decisions_compared"] == 2 for row in rows.values())
    assert rows["generate, dynamic cache"]["forwards"] > 130
    assert rows["generate, prompt lookup"]["forwards"] <= rows["generate, dynamic cache"]["forwards"]
    assert rows[DRAFTS]["forwards"] <= rows[PLAIN]["forwards"]
    assert set(document["acceptance"]) == {"depth", "trace", "action"}
    assert document["many_sessions"]["tokens_equal"]
    assert set(document["levels"]) == {"full", "reuse-depth", "trace+action", "action"}
    assert document["levels"]["action"]["forwards"] < document["levels"]["trace+action"]["forwards"]
    assert all(cost["served"] == 1.0 for level, cost in document["levels"].items() if level != "reuse-depth")
    assert document["machine"]["threads"] == 1
    assert document["machine"]["date"].endswith("UTC")
    assert document["model_digest"]


def test_the_class_of_transformers_computes_what_an_olmo2_decoder_does():
    network = make_network(small_config(olmo=True)).eval()
    assert matches_olmo2(network.config.llm)
    assert not matches_olmo2(small_config().llm)
    peer = MatchingOlmo2(network, None, Laps())
    x_BLD = torch.randn(2, 9, network.config.llm.hidden_size, generator=torch.Generator().manual_seed(0))
    places = torch.arange(9).expand(2, -1)
    with torch.inference_mode():
        found = peer.lm_head(peer.model(inputs_embeds=x_BLD, position_ids=places).last_hidden_state)
        assert torch.allclose(found, network.logits(network.trunk(x_BLD, places)), atol=1e-5)


def test_prompt_lookup_may_propose_image_tokens_and_none_is_allowed(checkpoint, recording):
    replay = Replay(checkpoint, recording)
    peer, question = HfPeer(checkpoint.model, replay.language, Generation(lookup=LOOKUP_TOKENS)), replay.items[0].question
    prompt, base = replay.language.prompt(question), checkpoint.model.config.llm.vocab_size
    assert prompt.ids_L.max() >= base, "image tokens stand behind the rows of the head"
    assert prompt.ids_L.max() < peer.model.config.vocab_size
    peer.places.start(prompt.places_L, replay.language.begin(question))
    ids, mask = torch.from_numpy(prompt.ids_L)[None], GrammarMask(peer.places)
    allowed = mask(ids, torch.zeros(1, peer.model.config.vocab_size)) == 0
    assert not allowed[0, base:].any()
    assert torch.equal(allowed[:, :base], mask(ids, torch.zeros(1, base)) == 0)
    assert allowed.any()


def test_engines_over_the_same_ids_share_what_is_measured_at_their_start(checkpoint, recording):
    engines = _engines(Replay(checkpoint, recording), torch.float32)
    assert set(engines) <= set(OURS)
    for name, engine in engines.items():
        like = engines[PLAIN] if OURS[name]["constrained"] else engines[FAITHFUL]
        assert engine.options.constrained == OURS[name]["constrained"]
        if engine.forward.computes == like.forward.computes:
            assert engine.numerics == like.numerics
            assert engine.costs is like.costs


def test_a_parallel_policy_has_no_peer(checkpoint, recording):
    contract = replace(checkpoint.contract, reasoning=replace(checkpoint.contract.reasoning, kind="parallel"))
    with pytest.raises(SpecError, match=r"parallel_block\.py"):
        bench_decode(replace(checkpoint, contract=contract), recording, Silent(), DecodeBenchmark(decisions=2))


def test_places_of_peers_are_the_slots_of_the_language(checkpoint):
    layout = checkpoint.layout
    places = Places(CompactLanguage(layout), layout.vocabulary.base_size)
    for points in (1, 3, 5):
        slot, slots, ids = layout.first_slot(ReasoningMode.FULL), [], [0] * layout.prompt_length
        while slot != NO_SLOT:
            ends = len(slots) == 100 + 2 * points
            slots.append(slot)
            ids.append(layout.vocabulary.trace_end if ends else layout.allowed(slot).start)
            slot = int(layout.next_slots(np.array([slot]), np.array([ids[-1]]))[0])
        places.start(np.arange(layout.prompt_length), layout.first_slot(ReasoningMode.FULL))
        told = torch.tensor([ids])
        found = places.of_last(told, LOOKUP_TOKENS)[0].tolist()
        assert found == slots[-LOOKUP_TOKENS:]
        assert places.next(told[:, :-1]) == slots[-1]


# short: the engine keeps its promise in both formats in test_engine_blocks
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.soak)])
def test_a_certificate_counts_no_flip(checkpoint, recording, tmp_path, dtype):
    made = certify(checkpoint, recording, Silent(), EquivalenceOptions(decisions=3, dtype=dtype, sessions=2), digest="d")
    assert made.flips == 0
    assert made.decisions == 3
    assert made.tokens >= 3 * (100 + 3 + 32)
    assert made.forwards["alone"] <= made.forwards["plain"]
    again = json.loads(made.write(tmp_path / "certificate.json").read_text())
    assert again["machine"]["dtype"] == dtype
    assert again["model_digest"] == "d"


def test_a_flip_is_found_told_and_exits_3(folder, checkpoint, recording, tmp_path, monkeypatch):
    """The fast engine gets other weights: every way must notice."""
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=32), seed=5)
    other, honest = load_checkpoint(tmp_path / "other"), Replay.engine

    def swapped(self: Replay, **options):
        fast = options.get("speculate", True)
        return honest(Replay(other, recording.first(1)) if fast else self, **options)

    monkeypatch.setattr(Replay, "engine", swapped)
    file = recording.save(tmp_path / "seen.npz")
    words = [
        str(folder),
        "--recording",
        str(file),
        "--decisions",
        "3",
        "--sessions",
        "2",
        "--out",
        str(tmp_path / "certificate.json"),
        "--json",
    ]
    done = CliRunner().invoke(_app(), ["certify", *words])
    assert done.exit_code == 3
    told = json.loads(done.stdout)
    assert told["flips"] == 9
    assert json.loads((tmp_path / "certificate.json").read_text())["flipped"][0]["position"] >= 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["certify", "--dtype", "float16"], "float32 or bfloat16"),
        (["bench", "decode", "--decisions", "0"], "Invalid value for '--decisions'"),
    ],
)
def test_wrong_usage_exits_2(words, hint):
    done = CliRunner().invoke(_app(), words)
    assert done.exit_code == 2
    assert hint in done.output


def _app():
    import typer

    made = typer.Typer()
    made.add_typer(bench, name="bench")
    made.command("certify")(certify_command)
    return made


def test_the_commands_are_registered():
    from flows.commands.main import command_line

    app = command_line()
    assert any(group.name == "bench" for group in app.registered_groups)
    assert any(command.callback is certify_command for command in app.registered_commands)
