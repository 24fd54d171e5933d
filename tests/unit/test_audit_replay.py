"""A recorded decision can be seen again and asked again: the same policy gives the same answer, another one is found out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from components.artifacts.audit_files import list_audits, read_audit
from components.deployment.audit_replay import ask_again, compare, contract_of, open_packed, pick_decision, request_of
from components.deployment.audit_view import decode_depth, view_of
from components.drawing.decision import draw_decision
from components.drawing.images import png_bytes
from components.release.bundle import find_packed
from flows.commands.audit.commands import audit_app
from model_core.policy import load_policy
from model_core.spec import conversion
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile
from model_core.spec.contract import DimSpec
from model_core.spec.errors import CheckpointError, ContractError, DatasetError, SpecError
from model_core.spec.execution.guard import Guarded
from model_core.spec.execution.requests import as_request_policy
from model_core.spec.protocol.wire import Chunk
from model_core.spec.types import ActionChunk, Decision, DecisionRequest, Refusal, RefusalCode, RequestPolicy, Trace
from model_core.tokenization.depth.codec import DepthCodec
from serving.workcell.audit.interface import ActionExecuted, DecisionMade, EpisodeEnded
from serving.workcell.audit.log import AuditLog
from serving.workcell.audit.retention import thin
from tests.audit_data import begun, decision, rewritten, tell_episode
from tests.fakes import make_contract, make_embodiment, make_observation
from tests.tiny_checkpoint import INSTRUCTIONS, write_tiny_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden" / "vqvae_small"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny_checkpoint(folder, embodiment=make_embodiment(size=32))
    return folder


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> RequestPolicy:
    torch.set_num_threads(1)
    return as_request_policy(load_policy(checkpoint, model_version="tiny/1"))


@pytest.fixture(scope="module")
def recorded(checkpoint: Path, policy: RequestPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode of the tiny model: plain, steered and with committed rows, half of each chunk executed."""
    contract = find_contract(checkpoint)
    audit = AuditLog(tmp_path_factory.mktemp("audit"))
    audit.begin_episode(replace(begun("ep", contract), model_version="tiny/1"))
    guarded = Guarded(policy=policy, contract=contract)
    observation = replace(make_observation(contract.embodiment, value=90), instruction=INSTRUCTIONS[1])
    drawn = Trace(points_N2=np.array([[10, 20], [200, 100]], np.int64))
    plain = DecisionRequest(observation=observation)
    steered = DecisionRequest(observation=replace(observation, steering=drawn))
    rows_DA = np.full((2, len(contract.embodiment.action)), 0.25, np.float32)
    for seq, request in enumerate((plain, steered, replace(plain, committed_DA=rows_DA), replace(plain, level="action")), 1):
        (answer,) = guarded.answer([request])
        assert answer.chunk is not None, answer.refusal
        chunk = chunk_of(answer, seq, contract.contract_id)
        if request.observation.steering is not None:
            chunk = replace(chunk, flags=("steering:rev1",), trace_N2=drawn.points_N2)
        asked = replace(decision(seq, t_s=100.0 + seq, contract=contract), observation=observation, chunk=chunk, level=request.level)
        audit.decision(replace(asked, committed_DA=request.committed_DA, installed_KA=chunk.actions_KA))
        for row in range(4):
            raw_A = chunk.actions_KA[row]
            step = {"t_s": 100.0 + seq + 0.05 * row, "episode_id": "ep", "step": row, "mode": "RUN"}
            audit.executed(ActionExecuted(**step, sent_A=raw_A, raw_A=raw_A, chunk_id=chunk.chunk_id, row=row))
    late = replace(decision(5, t_s=106.0, contract=contract), observation=observation, chunk=None, outcome="refused", code="DEADLINE")
    audit.decision(replace(late, installed_KA=None))
    audit.end_episode(EpisodeEnded(t_s=107.0, episode_id="ep", stop_reason="max_steps", success=False, steps=16))
    audit.close()
    (row,) = list_audits(audit._spool.folder)
    return Path(row["path"])


def find_contract(checkpoint: Path):
    from model_core.spec.contract import PolicyContract

    return PolicyContract.from_json(json.loads((checkpoint / "contract.json").read_text()))


def chunk_of(answer: Decision, seq: int, contract_id: str) -> Chunk:
    assert answer.chunk is not None
    assert answer.reasoning is not None
    said = answer.reasoning
    return Chunk(
        session_id="s1",
        epoch=1,
        seq=seq,
        chunk_id=f"s1-1-{seq}",
        contract_id=contract_id,
        model_version="tiny/1",
        actions_KA=np.ascontiguousarray(answer.chunk.actions_KA, np.float32),
        control_hz=answer.chunk.control_hz,
        expires_ms=400.0,
        depth_codes_G=None if said.depth is None else np.asarray(said.depth.codes_G, np.int64),
        trace_N2=None if said.trace is None else np.asarray(said.trace.points_N2, np.int64),
        timing_ms={"queue": 0.5, "model.depth": 20.0, "model": 20.0},
        level=answer.level,
    )


def test_a_foreign_or_damaged_index_hides_no_episode(recorded, tmp_path):
    copied = tmp_path / recorded.name
    copied.write_bytes(recorded.read_bytes())
    strange = tmp_path / "site" / "index"
    strange.mkdir(parents=True)
    (strange / "collector.py").write_text("import os")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / f"{recorded.stem}.parquet").write_text("torn")
    (row,) = list_audits(tmp_path)
    assert row["path"] == str(copied)
    assert row["decisions"] == 5


# --- asking again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_same_policy_gives_the_same_answer(recorded: Path, policy: RequestPolicy, number: int) -> None:
    found = read_audit(recorded)
    same, again = ask_again(found, pick_decision(found, number), policy)
    assert same.is_equal, (same, again.refusal)
    assert ("nothing to compare" in same.detail) == (number == 5)


def test_the_question_comes_back_whole(recorded: Path) -> None:
    found = read_audit(recorded)
    plain, steered, committed, action = (request_of(found, pick_decision(found, n)) for n in (1, 2, 3, 4))
    assert np.array_equal(plain.observation.images["front"], make_observation(make_embodiment(size=32), value=90).images["front"])
    assert plain.observation.instruction == INSTRUCTIONS[1]
    assert plain.observation.steering is None
    assert steered.observation.steering is not None
    assert steered.observation.steering.points_N2.tolist() == [[10, 20], [200, 100]]
    assert committed.committed_DA is not None
    assert committed.committed_DA.tolist() == [[0.25] * 4] * 2
    assert action.level == "action"


def test_a_cell_in_other_units_and_with_another_camera_name_is_asked_again_in_its_own_words(
    recorded: Path, policy: RequestPolicy, tmp_path: Path
) -> None:
    contract = contract_of(read_audit(recorded))
    metres = contract.embodiment.proprio
    offered = replace(contract.embodiment, proprio=replace(metres, dims=tuple(in_millimetres(dim) for dim in metres.dims)))
    conversions = conversion.compare(contract, offered).conversions
    assert [c.kind for c in conversions] == ["unit scale"] * 4
    seen = replace(make_observation(contract.embodiment, value=90), instruction=INSTRUCTIONS[1])
    seen = replace(seen, proprio_P=np.array([1500.0, 0, 0, 0], np.float32))
    converted = conversion.convert_observation(conversions, seen, contract.embodiment)
    (answer,) = Guarded(policy=policy, contract=contract).answer([DecisionRequest(observation=converted)])
    audit = AuditLog(tmp_path)
    audit.begin_episode(replace(begun("ep", contract), body=offered))
    audit.decision(replace(decision(1, t_s=100.0), observation=seen, chunk=chunk_of(answer, 1, contract.contract_id), level=""))
    audit.close()
    found = read_audit(next(tmp_path.glob("*.mcap")))
    assert request_of(found, pick_decision(found, 1)).observation.proprio_P[0] == 1500.0
    assert ask_again(found, pick_decision(found, 1), policy)[0].is_equal


def in_millimetres(dim: DimSpec) -> DimSpec:
    return replace(dim, unit="mm", low=1000 * dim.low, high=1000 * dim.high)


def test_another_policy_is_found_out(recorded: Path, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=32), seed=3)
    other = open_packed(find_packed(tmp_path / "other"), found := read_audit(recorded))
    same, _ = ask_again(found, pick_decision(found, 1), other)
    assert not same.is_equal


def test_a_bundle_with_another_contract_is_refused(recorded: Path, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=48))
    with pytest.raises(ContractError, match="give the bundle it ran with"):
        open_packed(find_packed(tmp_path / "other"), read_audit(recorded))


def test_what_differs_is_counted(recorded: Path, policy: RequestPolicy) -> None:
    found = read_audit(recorded)
    record = pick_decision(found, 1)
    (again,) = policy.answer([request_of(found, record)])
    chunk = dict(record.body["chunk"])
    chunk["depth_codes_G"] = [chunk["depth_codes_G"][0] ^ 1, *chunk["depth_codes_G"][1:]]
    chunk["actions_KA"] = (np.asarray(chunk["actions_KA"]) + 0.01).tolist()
    found_out = compare({**record.body, "chunk": chunk}, again)
    assert (found_out.is_equal, found_out.depth_differing, found_out.trace_differing) == (False, 1, 0)
    assert found_out.max_action_difference == pytest.approx(0.01, abs=1e-5)


def test_refusals_are_compared_by_their_code() -> None:
    contract_id = make_contract().contract_id
    refused = Decision(contract_id=contract_id, refusal=Refusal(code=RefusalCode.UNSAFE, reason="outside"))
    answered = Decision(contract_id=contract_id, chunk=ActionChunk(actions_KA=np.zeros((8, 4), np.float32), control_hz=20.0))
    assert compare({"chunk": None, "code": "UNSAFE"}, refused).is_equal
    assert not compare({"chunk": None, "code": "CONTRACT"}, refused).is_equal
    assert not compare({"chunk": None, "code": "UNSAFE"}, answered).is_equal
    assert compare({"chunk": None, "code": "OVERLOAD"}, answered).is_equal


def test_frames_that_were_given_up_can_be_looked_at_but_not_asked(recorded: Path, policy: RequestPolicy, tmp_path: Path) -> None:
    copy = rewritten(recorded, tmp_path / "000001-x.mcap", lambda ms: ms)
    assert thin(copy) > 0
    found = read_audit(copy)
    assert found.is_proven
    with pytest.raises(DatasetError, match="can be looked at"):
        ask_again(found, pick_decision(found, 1), policy)
    draw_decision(view_of(found, pick_decision(found, 1), []))


# --- looking --------------------------------------------------------------------------------------------------------


def test_a_decision_is_a_picture_and_equal_decisions_are_equal_pictures(recorded: Path) -> None:
    found = read_audit(recorded)
    view = view_of(found, pick_decision(found, 1), [], "the verdict")
    assert len(view.executed) == 4
    assert view.notes[-1] == "the verdict"
    assert "level full, answered" in view.notes[1]
    assert "level trace+action (steering:rev1), answered" in view_of(found, pick_decision(found, 2), []).notes[1]
    assert list(view.timing_ms) == ["queue", "depth"]
    assert png_bytes(draw_decision(view)) == png_bytes(draw_decision(view_of(found, pick_decision(found, 1), [], "the verdict")))
    assert png_bytes(draw_decision(replace(view, trace=None))) != png_bytes(draw_decision(view))


def test_depth_is_decoded_by_the_codec_of_that_digest_only(tmp_path: Path) -> None:
    codec = DepthCodec.load(GOLDEN)
    codes_G = np.zeros(int(np.prod(codec.config.grid)), np.int64)
    depth_HW = decode_depth(codes_G, codec.digest, [tmp_path / "nothing here", GOLDEN])
    assert depth_HW is not None
    assert np.array_equal(depth_HW, codec.decode(codes_G[None])[0])
    assert decode_depth(codes_G, "0" * 64, [GOLDEN]) is None
    assert decode_depth(None, codec.digest, [GOLDEN]) is None


def test_many_dimensions_and_odd_values_are_drawn(tmp_path: Path) -> None:
    from components.drawing.decision import DecisionView
    from model_core.spec.contract import DimSpec, VectorSpec

    spec = VectorSpec(dims=tuple(DimSpec(name=f"joint {i}", unit="rad", low=-1, high=1) for i in range(14)), mode="absolute")
    raw_KA = np.full((8, 14), np.nan)
    view = DecisionView(title="bimanual", images={}, action=spec, raw_KA=raw_KA, executed=[(20.0, np.full(14, 9.0))], notes=["a " * 400])
    assert draw_decision(view).width > 700


def test_decisions_are_counted_from_one_and_from_the_end(recorded: Path) -> None:
    found = read_audit(recorded)
    assert pick_decision(found, -1).n == pick_decision(found, 5).n
    for wrong in (0, 6, -6):
        with pytest.raises(SpecError, match=r"decisions 1\.\.5"):
            pick_decision(found, wrong)
    with pytest.raises(DatasetError, match="no decision"):
        pick_decision(AuditFile(path=Path("x.mcap")), 1)


# --- the commands ---------------------------------------------------------------------------------------------------


def actwright_audit(*words: object) -> tuple[int, dict, str]:
    done = CliRunner().invoke(audit_app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def test_replay_shows_and_asks(recorded: Path, checkpoint: Path, tmp_path: Path) -> None:
    code, told, _ = actwright_audit("replay", recorded, "--decision", 2, "--bundle", checkpoint, "--out", tmp_path / "look.png")
    assert (code, told["equal"], told["asked_again"], told["proven"]) == (0, True, True, True)
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")


def test_replay_of_every_decision_counts_them(recorded: Path, checkpoint: Path, tmp_path: Path) -> None:
    code, told, said = actwright_audit("replay", recorded, "--all", "--bundle", checkpoint, "--out", tmp_path / "look.png")
    assert (code, told["all"]) == (0, {"decisions": 5, "asked": 5, "equal": 5, "without_frames": 0, "first_differing": 0})
    assert "5 of 5 decisions" in said
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=32), seed=3)
    code, told, _ = actwright_audit("replay", recorded, "--all", "--bundle", tmp_path / "other", "--out", tmp_path / "look.png")
    assert (code, told["all"]["first_differing"]) == (3, 1)


def test_replay_of_another_model_exits_3(recorded: Path, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "other", embodiment=make_embodiment(size=32), seed=3)
    code, told, said = actwright_audit("replay", recorded, "--bundle", tmp_path / "other", "--out", tmp_path / "look.png")
    assert (code, told["equal"]) == (3, False)
    assert "DIFFERS" in said


def test_replay_without_a_policy_only_looks(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTWRIGHT_HOME", str(tmp_path / "no home"))
    code, told, said = actwright_audit("replay", recorded, "--decision", "-1", "--out", tmp_path / "x.png")
    assert (code, told["asked_again"]) == (0, False)
    assert "name one with --bundle" in said
    assert not (tmp_path / "no home").exists()


def test_list_shows_episodes_and_what_to_type_next(recorded: Path) -> None:
    code, told, said = actwright_audit("list", recorded.parent)
    assert code == 0
    assert [(row["episode_id"], row["decisions"], row["executed"]) for row in told["episodes"]] == [("ep", 5, 16)]
    assert f"actwright audit replay {recorded}" in said


def test_list_shows_what_a_killed_recorder_left(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "000001-torn.mcap").write_bytes(recorded.read_bytes()[: recorded.stat().st_size * 2 // 3])
    code, told, said = actwright_audit("list", tmp_path)
    assert (code, told["episodes"][0]["sealed"]) == (0, False)
    assert 0 < told["episodes"][0]["decisions"] < 5
    assert "torn" in said
    (tmp_path / "000001-torn.mcap").unlink()
    with pytest.raises(DatasetError, match="no audit under"):
        actwright_audit("list", tmp_path)


def test_verify_proves_a_folder_and_finds_a_file_that_was_taken_out(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    for name in ("a", "b", "c"):
        tell_episode(audit, episode_id=name)
    audit.close()
    code, told, _ = actwright_audit("verify", tmp_path)
    assert (code, told["proven"], len(told["files"])) == (0, True, 3)
    tip = told["files"][-1]["tip"]
    assert actwright_audit("verify", tmp_path, "--tip", tip[:12])[0] == 0
    assert actwright_audit("verify", tmp_path, "--tip", "0" * 12)[0] == 3
    for name, followed in (("000002-b", True), ("000001-a", True), ("000003-c", False)):
        taken = (tmp_path / f"{name}.mcap").rename(tmp_path / "elsewhere")
        code, told, said = actwright_audit("verify", tmp_path)
        assert (code, told["proven"], told["missing"]) == (3, False, [str(tmp_path / f"{name}.mcap")])
        assert (f"{name}.mcap, which is not there" in said) == followed
        taken.rename(tmp_path / f"{name}.mcap")
    assert actwright_audit("verify", tmp_path / "000002-b.mcap")[0] == 0
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "000001-a.mcap").unlink()
    assert actwright_audit("verify", tmp_path)[0] == 3


def test_verify_names_the_first_broken_record(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit")
    tell_episode(audit)
    audit.close()
    (path,) = (tmp_path / "audit").glob("*.mcap")
    forged = rewritten(
        path, tmp_path / "forged.mcap", lambda ms: [m for m in ms if not (m[0].startswith("/actwright") and m[1].sequence == 5)]
    )
    code, told, said = actwright_audit("verify", forged)
    assert (code, told["files"][0]["broken_at"]) == (3, 5)
    assert "record 5 is missing" in said


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert actwright_audit("verify", tmp_path / "nowhere.mcap")[0] == 2
    assert actwright_audit("verify", tmp_path)[0] == 2
    (tmp_path / "x.mcap").write_bytes(b"")
    with pytest.raises(DatasetError, match="no decision can be read"):
        actwright_audit("replay", tmp_path / "x.mcap")
    with pytest.raises(CheckpointError, match="no such folder"):
        find_packed(tmp_path / "nothing")


def test_a_decision_that_was_made_on_nothing_is_not_made_up(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    audit.begin_episode(begun())
    made: DecisionMade = decision(1, t_s=100.0)
    audit.decision(replace(made, observation=replace(made.observation, images={})))
    audit.close()
    found = read_audit(next(tmp_path.glob("*.mcap")))
    assert found.of(Kind.DECISION)
    with pytest.raises(DatasetError):
        request_of(found, pick_decision(found, 1))
