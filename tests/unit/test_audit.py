"""The audit: everything that was done can be rebuilt from it, nothing can be changed in it unseen, and it never holds up control."""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mcap.reader import make_reader
from PIL import Image

from components.artifacts.audit_files import read_audit
from model_core.spec.audit.format import Kind, plain
from model_core.spec.audit.foxglove import encode_frame, image_schema
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import NotReady, SpecError
from serving.workcell.audit.append_file import Disk
from serving.workcell.audit.live_feed import LiveAudit
from serving.workcell.audit.log import AuditLog
from serving.workcell.audit.retention import thin
from serving.workcell.launch import _await_room
from tests.audit_data import begun, decision, rewritten, tell_episode, wait_until
from tests.fakes import make_contract, make_embodiment


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mcap"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """One whole episode."""
    audit = AuditLog(tmp_path / "audit")
    tell_episode(audit)
    audit.close()
    return files(tmp_path / "audit")[0]


# --- what is in it --------------------------------------------------------------------------------------------------


def test_every_executed_command_can_be_rebuilt_from_the_file(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    done = tell_episode(audit, decisions=4)
    audit.close()
    found = read_audit(files(tmp_path)[0])
    assert found.is_proven, found.problem
    assert found.of(Kind.SEAL)[0].body["complete"] is True
    chunks = {r.body["chunk"]["chunk_id"]: r.body["chunk"] for r in found.of(Kind.DECISION)}
    steps = [r.body for r in found.of(Kind.EXECUTED)]
    assert len(steps) == len(done) == 16
    for step, action in zip(steps, done, strict=True):
        raw_A = np.asarray(chunks[step["chunk_id"]]["actions_KA"], np.float32)[step["row"]]
        assert np.array_equal(raw_A, action.raw_A)
        assert np.array_equal(np.asarray(step["sent_A"], np.float32), action.sent_A)


def test_ids_contract_depth_and_trace_are_kept_and_frames_come_back_bit_for_bit(written: Path) -> None:
    found = read_audit(written)
    assert PolicyContract.from_json(found.contract).contract_id == make_contract().contract_id
    body = found.of(Kind.DECISION)[1].body
    asked = decision(2, t_s=100.2)
    for name in ("session_id", "epoch", "seq", "episode_id", "outcome", "level"):
        assert body[name] == getattr(asked, name)
    assert (body["model_version"], body["bundle_digest"], body["contract_id"]) == ("echo/1", "b" * 64, make_contract().contract_id)
    assert asked.chunk is not None
    assert body["chunk"]["depth_codes_G"] == list(asked.chunk.depth_codes_G)  # pyright: ignore[reportArgumentType]
    assert body["chunk"]["trace_N2"] == np.asarray(asked.chunk.trace_N2).tolist()
    frame = found.frames[body["frames"]["front"]["digest"]]
    with Image.open(io.BytesIO(frame.data)) as image:
        assert np.array_equal(np.asarray(image), asked.observation.images["front"])


def test_a_plain_mcap_reader_sees_channels_with_schemas_that_viewers_know(written: Path) -> None:
    """Independent of our reader: the mcap package, and Google's Protobuf with the schema that is in the file."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    with written.open("rb") as file:
        seen = [(schema, channel, message) for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages()]
    topics = {channel.topic for _, channel, _ in seen}
    assert {"/camera/front", "/camera/front/trace", "/actwright/decision", "/actwright/executed", "/actwright/seal"} <= topics
    images = [(schema, message) for schema, channel, message in seen if channel.topic == "/camera/front"]
    assert len(images) == 3
    schema = images[0][0]
    assert schema is not None
    assert (schema.name, schema.encoding) == ("foxglove.CompressedImage", "protobuf")
    pool = descriptor_pool.DescriptorPool()
    for described in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
        pool.Add(described)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.CompressedImage"))
    picture = kind.FromString(images[0][1].data)
    assert (picture.frame_id, picture.format) == ("front", "png")  # pyright: ignore[reportAttributeAccessIssue]
    assert picture.timestamp.seconds * 10**9 + picture.timestamp.nanos == images[0][1].log_time  # pyright: ignore[reportAttributeAccessIssue]
    records = [json.loads(m.data) for s, c, m in seen if c.topic.startswith("/actwright/")]
    assert [r["n"] for r in sorted(records, key=lambda r: r["n"])] == list(range(len(records)))


def test_the_same_picture_is_stored_once(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    audit.begin_episode(begun())
    for seq in range(1, 6):
        audit.decision(decision(seq, t_s=100.0 + seq, noise=False))
    audit.close()
    found = read_audit(files(tmp_path)[0])
    assert len(found.of(Kind.DECISION)) == 5
    assert len(found.frames) == 1


def test_numbers_that_are_none_and_values_that_are_not_json_do_not_lose_the_record(tmp_path: Path) -> None:
    assert plain(np.array([0.1, np.nan, -np.inf], np.float32)) == [0.1, "NaN", "-Infinity"]
    audit = AuditLog(tmp_path)
    audit.begin_episode(begun())
    audit.decision(replace(decision(1, t_s=100.0), steering=object()))
    audit.close()
    assert "unwritable" in read_audit(files(tmp_path)[0]).of(Kind.DECISION)[0].body["steering"]


def test_a_camera_that_gives_no_picture_costs_its_frame_only(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    audit.begin_episode(begun())
    made = decision(1, t_s=100.0)
    odd = {**made.observation.images, "odd": np.zeros((2, 2, 7), np.float64)}
    audit.decision(replace(made, observation=replace(made.observation, images=odd)))  # pyright: ignore[reportArgumentType]
    audit.close()
    found = read_audit(files(tmp_path)[0])
    assert found.is_proven, found.problem
    frames = found.of(Kind.DECISION)[0].body["frames"]
    assert "digest" in frames["front"]
    assert frames["odd"]["lost"].startswith("no picture")


def test_the_index_is_a_table_of_episodes_and_decisions(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    tell_episode(audit, episode_id="a")
    tell_episode(audit, episode_id="b", decisions=2)
    audit.close()
    table = pq.read_table(tmp_path / "index").to_pylist()
    episodes = [row for row in table if row["row"] == "episode"]
    assert [(row["episode_id"], row["decisions"], row["outcome"], row["sealed"]) for row in episodes] == [
        ("a", 3, "success", True),
        ("b", 2, "success", True),
    ]
    assert [row["chunk_id"] for row in table if row["row"] == "decision" and row["episode_id"] == "b"] == ["s1-1-1", "s1-1-2"]
    first, second = (read_audit(path) for path in files(tmp_path))
    assert episodes[0]["tip"] == first.tip
    assert second.records[0].body["before"] == {"file": first.path.name, "tip": first.tip}


# --- the chain ------------------------------------------------------------------------------------------------------


def test_any_flipped_byte_is_seen(written: Path, tmp_path: Path) -> None:
    data = written.read_bytes()
    target = tmp_path / "flipped.mcap"
    rng = random.Random(0)
    for place in sorted(rng.sample(range(len(data)), 100)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        target.write_bytes(damaged)
        assert read_audit(target).problem, f"byte {place} of {len(data)}"


@pytest.mark.parametrize("gone", range(12))
def test_a_record_left_out_is_named(written: Path, tmp_path: Path, gone: int) -> None:
    found = read_audit(
        rewritten(written, tmp_path / "x.mcap", lambda ms: [m for m in ms if not (m[0].startswith("/act") and m[1].sequence == gone)])
    )
    assert found.broken_at == gone
    assert f"record {gone}" in found.problem
    assert len(found.records) == gone


def test_records_that_changed_places_are_named(written: Path, tmp_path: Path) -> None:
    def swap(messages):
        places = [i for i, (topic, _) in enumerate(messages) if topic == "/actwright/executed"]
        messages[places[2]], messages[places[3]] = messages[places[3]], messages[places[2]]
        return messages

    found = read_audit(rewritten(written, tmp_path / "x.mcap", swap))
    assert found.broken_at == 4
    assert not found.is_proven


def test_a_changed_action_breaks_the_record_after_it(written: Path, tmp_path: Path) -> None:
    def forge(messages):
        for _, message in messages:
            if message.sequence == 3 and b'"mode":"RUN"' in message.data:
                message.data = message.data.replace(b'"mode":"RUN"', b'"mode":"HLT"')
        return messages

    found = read_audit(rewritten(written, tmp_path / "x.mcap", forge))
    assert found.broken_at == 4


def test_a_frame_that_was_changed_or_taken_out_is_seen(written: Path, tmp_path: Path) -> None:
    def darken(messages):
        for topic, message in messages:
            if topic == "/camera/front":
                message.data = message.data[:90] + bytes([message.data[90] ^ 1]) + message.data[91:]
                break
        return messages

    assert "frames" in read_audit(rewritten(written, tmp_path / "x.mcap", darken)).problem
    without = read_audit(rewritten(written, tmp_path / "y.mcap", lambda ms: [m for m in ms if m[0] != "/camera/front"]))
    assert without.problem.startswith("3 camera frames are missing")


def test_an_untouched_rewrite_is_proven(written: Path, tmp_path: Path) -> None:
    assert read_audit(rewritten(written, tmp_path / "x.mcap", lambda ms: ms)).is_proven


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.8, 0.97])
def test_a_torn_tail_is_readable_up_to_the_last_whole_batch(tmp_path: Path, share: float) -> None:
    audit = AuditLog(tmp_path)
    tell_episode(audit, decisions=20)
    audit.close()
    path = files(tmp_path)[0]
    whole = read_audit(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    torn = read_audit(path)
    assert torn.problem
    assert torn.broken_at == len(torn.records)
    assert [r.digest for r in torn.records] == [r.digest for r in whole.records[: len(torn.records)]]
    if share >= 0.5:
        assert len(torn.records) > 10


def test_what_a_killed_recorder_left_is_indexed_and_the_chain_goes_on(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path)
    tell_episode(audit, decisions=20, episode_id="killed")
    audit.close()
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for index in (tmp_path / "index").glob("*"):
        index.unlink()
    again = AuditLog(tmp_path)
    assert again.can_begin
    tell_episode(again, episode_id="next")
    again.close()
    rows = [row for row in pq.read_table(tmp_path / "index").to_pylist() if row["row"] == "episode"]
    assert [(row["episode_id"], row["sealed"]) for row in rows] == [("killed", False), ("next", True)]
    torn, later = (read_audit(p) for p in files(tmp_path))
    assert later.records[0].body["before"]["tip"] == torn.tip


def test_a_recorder_that_is_really_killed_leaves_what_it_had_written(tmp_path: Path) -> None:
    code = f"""
import itertools, sys, time
from pathlib import Path
from serving.workcell.audit.log import AuditLog
from tests.audit_data import begun, decision
audit = AuditLog(Path({str(tmp_path / "audit")!r}))
audit.begin_episode(begun())
for seq in itertools.count(1):
    audit.decision(decision(seq, t_s=100.0 + seq))
    time.sleep(0.01)
    if seq == 20:
        sys.stdout.write("twenty")
        sys.stdout.flush()
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.read(6) == b"twenty"
        wait_until(lambda: (path := next((tmp_path / "audit").glob("*.mcap"), None)) and path.stat().st_size > 20_000)
        recorder.kill()
    (path,) = files(tmp_path / "audit")
    found = read_audit(path)
    assert "not sealed" in found.problem or "ends here" in found.problem
    assert len(found.of(Kind.DECISION)) >= 5
    assert len(found.frames) >= len(found.of(Kind.DECISION))
    again = AuditLog(tmp_path / "audit")
    assert again.can_begin, again.reason  # the lock of a dead recorder is nobody's
    again.close()


def test_a_file_that_is_no_audit_is_a_finding_and_one_that_is_not_there_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.mcap").write_bytes(b"hello")
    assert read_audit(tmp_path / "x.mcap").problem
    with pytest.raises(SpecError, match=r"cannot read .*nowhere.mcap"):
        read_audit(tmp_path / "nowhere.mcap")


# --- the spool ------------------------------------------------------------------------------------------------------


def big_contract() -> PolicyContract:
    return make_contract(make_embodiment(size=64))


def test_frames_of_old_files_go_before_records_do(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path, max_bytes=600_000, min_free_bytes=0)
    for i in range(8):
        wait_until(lambda: audit.waiting == 0 and audit.can_begin)
        tell_episode(audit, episode_id=f"e{i}", decisions=8, contract=big_contract())
    audit.close()
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 600_000
    found = [read_audit(p) for p in files(tmp_path)]
    assert len(found) == 8
    assert all(f.is_proven and len(f.of(Kind.EXECUTED)) == 32 for f in found)
    kept = [len(f.frames) for f in found]
    assert kept[0] == 0 < kept[-1]
    assert found[0].thinned == found[0].missing_frames == 8


def test_thinning_keeps_every_record_byte_for_byte(written: Path) -> None:
    before = read_audit(written)
    assert thin(written) == 3
    after = read_audit(written)
    assert after.is_proven
    assert [r.digest for r in after.records] == [r.digest for r in before.records]
    assert thin(written) == 0


def test_a_spool_that_is_full_of_records_refuses_new_episodes_until_files_are_moved_away(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path, max_bytes=150_000, min_free_bytes=0)
    for i in range(20):  # a cell that does not ask whether it may
        tell_episode(audit, episode_id=f"e{i}", decisions=4)
    wait_until(lambda: audit.waiting == 0 and "spool is full" in audit.reason)
    kept = [read_audit(p) for p in files(tmp_path)]
    assert 2 < len(kept) < 20
    assert all(f.is_proven and f.of(Kind.SEAL)[0].body["complete"] for f in kept)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 160_000
    for path in [*files(tmp_path), *(tmp_path / "index").glob("*.parquet")]:
        path.unlink()
    wait_until(lambda: audit.can_begin)
    audit.close()


def test_a_folder_has_one_recorder(tmp_path: Path) -> None:
    first, second = AuditLog(tmp_path), AuditLog(tmp_path)
    assert first.can_begin
    assert "another recorder" in second.reason
    second.close()
    first.close()


# --- trouble with the disk ------------------------------------------------------------------------------------------


class TroubledDisk(Disk):
    """A disk whose writes or flushes can be made to fail or hang."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.error is not None:
            raise self.error
        return super().write(descriptor, data[:5000])  # a part at a time, as a disk may

    def sync(self, descriptor: int) -> None:
        self.gate.wait(30)
        super().sync(descriptor)


def test_a_disk_that_fills_up_stops_new_episodes_and_loses_nothing_when_space_returns(tmp_path: Path) -> None:
    disk = TroubledDisk()
    audit = AuditLog(tmp_path, disk=disk)
    audit.begin_episode(begun())
    audit.decision(decision(1, t_s=100.0))
    wait_until(lambda: audit.waiting == 0)
    disk.error = OSError(28, "No space left on device")
    for seq in range(2, 6):
        audit.decision(decision(seq, t_s=100.0 + seq))
    wait_until(lambda: not audit.can_begin)
    assert "the disk is full" in audit.reason
    disk.error = None
    wait_until(lambda: audit.can_begin)
    audit.close()
    found = read_audit(files(tmp_path)[0])
    assert found.is_proven, found.problem
    assert len(found.of(Kind.DECISION)) == 5


def test_a_hanging_disk_never_holds_up_control_and_bounds_what_waits(tmp_path: Path) -> None:
    disk = TroubledDisk()
    audit = AuditLog(tmp_path, disk=disk, max_queue=50, max_queue_bytes=200_000, stall_s=0.2)
    disk.gate.clear()
    tell_episode(audit, episode_id="first", contract=big_contract())  # sealing it hangs in the flush
    wait_until(lambda: not audit.can_begin)
    assert "has not taken a write" in audit.reason
    slowest = 0.0
    audit.begin_episode(begun("second", big_contract()))
    for seq in range(1, 200):
        began = time.perf_counter()
        audit.decision(decision(seq, t_s=100.0 + seq, contract=big_contract()))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1.0  # it takes microseconds; the flush would have held it for half a minute
    assert audit.waiting <= 51
    disk.gate.set()
    wait_until(lambda: audit.can_begin, 20.0)
    audit.close()
    first, second = (read_audit(p) for p in files(tmp_path))
    assert first.is_proven
    assert second.is_proven
    seal = second.of(Kind.SEAL)[0].body
    assert seal["complete"] is False
    assert seal["counts"]["decisions"] + seal["counts"]["lost_records"] == 199
    assert seal["counts"]["lost_frames"] > 0
    assert any(r.body["event"] == "lost" for r in second.of(Kind.EVENT))


def test_closing_on_a_dead_disk_takes_bounded_time(tmp_path: Path) -> None:
    disk = TroubledDisk()
    audit = AuditLog(tmp_path, disk=disk)
    disk.error = OSError(5, "Input/output error")
    tell_episode(audit)
    began = time.monotonic()
    audit.close(timeout_s=0.5)
    assert time.monotonic() - began < 20
    assert not audit.can_begin


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_small_disk_that_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "700k") as folder:
        audit = AuditLog(folder / "audit", min_free_bytes=100_000)
        assert audit.can_begin, audit.reason
        (folder / "other").write_bytes(bytes(500_000))
        audit.begin_episode(begun("big", big_contract()))
        for seq in range(1, 60):
            audit.decision(decision(seq, t_s=100.0 + seq, contract=big_contract()))
        wait_until(lambda: not audit.can_begin)
        assert "full" in audit.reason or "left" in audit.reason
        (folder / "other").unlink()
        audit.close()
        found = read_audit(files(folder / "audit")[0])
        assert found.records, found.problem
        assert found.broken_at is None or found.broken_at == len(found.records)


def test_a_read_only_folder_begins_nothing_and_hurts_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        audit = AuditLog(folder / "audit", min_free_bytes=0)
        assert "read-only" in audit.reason
        tell_episode(audit)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        wait_until(lambda: audit.can_begin)
        audit.close()
        assert read_audit(files(folder / "audit")[0]).is_proven


def test_a_folder_that_cannot_be_made_begins_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    audit = AuditLog(tmp_path / "file" / "audit")
    assert not audit.can_begin
    assert str(tmp_path) in audit.reason
    audit.close(timeout_s=0.2)


def test_the_frame_message_is_what_foxglove_itself_writes() -> None:
    """Recorded from foxglove-sdk 0.30.3: CompressedImage(timestamp=5 s 7 ns, frame_id="front", data=b"abc", format="png")."""
    from model_core.spec.audit.foxglove import Frame

    frame = Frame(camera="front", format="png", data=b"abc", time_ns=5 * 10**9 + 7)
    assert encode_frame(frame) == b'\n\x04\x08\x05\x10\x07\x12\x03abc\x1a\x03png"\x05front'
    assert b"CompressedImage" in image_schema()


def test_a_cell_waits_for_room_and_then_says_why_it_begins_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    audit = AuditLog(tmp_path / "file" / "audit")
    with pytest.raises(NotReady, match="none is begun: the audit cannot be written to"):
        _await_room(audit, 0.3)
    (tmp_path / "file").unlink()
    _await_room(audit, 30.0)
    assert audit.can_begin
    audit.close()


def test_what_is_overheard_is_told_as_lines_and_passed_on(tmp_path: Path) -> None:
    lines: list[str] = []
    live = LiveAudit(AuditLog(tmp_path), lines.append, every_s=0.05)
    assert live.can_begin
    assert live.reason == ""
    tell_episode(live)
    wait_until(lambda: lines and json.loads(lines[-1])["live"]["finished"] == 1)
    told = json.loads(lines[-1])["live"]
    assert (told["episode"], told["successes"], told["decisions"], told["mode"]) == (1, 1, 3, "RUN")
    assert told["modes"] == {"RUN": 12}
    assert told["p50_ms"] == told["p99_ms"] == pytest.approx(40.0)
    live.event(0.0, "part", {"seq": 1, "field": "depth"})
    wait_until(lambda: json.loads(lines[-1])["live"]["thinking"] == "depth")
    tell_episode(live, episode_id="another")
    live.close()
    assert json.loads(lines[-1])["live"]["thinking"] == ""
    assert json.loads(lines[-1])["live"]["finished"] == 2
    assert read_audit(files(tmp_path)[0]).is_proven
