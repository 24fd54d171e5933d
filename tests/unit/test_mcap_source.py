"""Robot logs as episodes: every schema gives the numbers and images that were logged; nothing is resampled or dropped in silence."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.data.sources.mcap.draft import draft_mapping
from components.data.sources.mcap.mapping import TopicMapping, read_mapping
from components.data.sources.mcap.resampling import count_stream, grid_ns, pick
from components.data.sources.mcap.source import McapSource
from components.data.sources.mcap.topics import list_topics
from model_core.spec.documents import from_document
from model_core.spec.errors import DatasetError, SpecError
from tests.mcap_data import (
    BODY,
    MAPPING,
    NAMES,
    NS,
    START,
    arm_entries,
    base64_of,
    encoded,
    head,
    json_time,
    picture,
    protobuf_classes,
    write_json,
    write_protobuf,
    write_ros2,
)


def mapping(**changes: Any) -> TopicMapping:
    return from_document(TopicMapping, {**copy.deepcopy(MAPPING), **changes})


def source(path: Path, **changes: Any) -> McapSource:
    return McapSource(path, mapping(**changes), BODY)


def without(entries, topic, when):
    return [e for e in entries if not (e[1] == topic and when((e[0] - START) / NS))]


def test_a_ros2_log_is_resampled_as_its_mapping_says(tmp_path):
    made = source(write_ros2(tmp_path / "a.mcap", arm_entries()))
    (row,) = made.rows
    assert (row.episode_id, row.length, row.instruction, row.success) == ("a", 11, "push the button", None)
    episode = made.episode(0)
    t = np.arange(11) / 10
    np.testing.assert_allclose(episode.proprio_TP, np.stack([t, 2 * t, -t], axis=1), atol=1e-6)
    np.testing.assert_array_equal(episode.actions_TA[:, 0], np.arange(11))
    np.testing.assert_array_equal(episode.images["front"], [picture(2 * k) for k in range(11)])
    np.testing.assert_allclose(episode.timestamps_T, t, atol=1e-9)
    counts = made.account()["episodes"]["a"]["fields"]
    assert counts["camera front"] == {"messages": 21, "exact": 11, "resampled": 0, "duplicated": 0, "dropped": 10, "worst_gap_s": 0.0}
    assert not made.episode(0, images=False).images
    made.close()


def test_joints_are_found_by_name_in_whatever_order_they_come(tmp_path):
    made = source(write_ros2(tmp_path / "a.mcap", arm_entries(order=("gripper", "shoulder", "elbow"))))
    np.testing.assert_allclose(made.episode(0, images=False).proprio_TP[10], [1, 2, -1], atol=1e-6)
    other = source(
        write_ros2(tmp_path / "b.mcap", arm_entries(order=NAMES)), state=[{**MAPPING["state"][0], "keys": ["a", "elbow", "gripper"]}]
    )
    with pytest.raises(DatasetError, match="name has 'a' 0 times"):
        _ = other.rows


def test_the_clock_is_the_declared_one(tmp_path):
    path = write_ros2(tmp_path / "a.mcap", arm_entries(delay_ns=20_000_000))
    by_stamp = source(path).episode(0, images=False)
    by_log = source(path, clock="log").episode(0, images=False)
    np.testing.assert_allclose(by_stamp.proprio_TP[:10, 0] - by_log.proprio_TP[:10, 0], 0, atol=1e-6)  # both begin with their first state
    # commands have no stamp: by the log's clock they come 20 ms before the states that were taken with them
    assert by_stamp.actions_TA[1, 0] == 1
    assert by_log.actions_TA[0, 0] == 0
    with pytest.raises(DatasetError, match=r"header stamp none.*clock: log"):
        _ = source(path, actions=[{**MAPPING["actions"][0], "clock": ""}]).rows


def test_a_stamp_of_zero_is_no_time(tmp_path):
    entries = arm_entries()
    first = next(e for e in entries if e[1] == "/joint_states")
    first[3].header.stamp = SimpleNamespace(sec=0, nanosec=0)
    with pytest.raises(DatasetError, match="header stamp 0"):
        _ = source(write_ros2(tmp_path / "a.mcap", entries)).rows


def test_a_step_without_evidence_refuses_the_episode_or_ends_it(tmp_path):
    hole = without(arm_entries(), "/front/compressed", lambda t: 0.44 < t < 0.58)  # images at 0.45, 0.5 and 0.55 are lost
    path = write_ros2(tmp_path / "a.mcap", hole)
    refusing = source(path)
    with pytest.raises(DatasetError, match=r"step 5 \(at 0.500 s\): camera front.*gap of 0.1000 s, at most 0.04 s"):
        _ = refusing.rows
    ending = source(path, episodes={"on_gap": "end"})
    assert ending.rows[0].length == 5
    assert "step 5" in ending.account()["episodes"]["a"]["ended"]
    wider = source(path, cameras={"front": {"topic": "/front/compressed", "max_gap_s": 0.11}})
    assert wider.account()["episodes"]["a"]["fields"]["camera front"] | {"messages": 18, "dropped": 0} == {
        "messages": 18,
        "exact": 10,
        "resampled": 1,
        "duplicated": 1,
        "dropped": 0,
        "worst_gap_s": pytest.approx(0.1),
    }


def test_a_topic_that_starts_late_cuts_the_beginning_or_refuses(tmp_path):
    late = write_ros2(tmp_path / "a.mcap", without(arm_entries(), "/command", lambda t: t < 0.25))
    made = source(late)
    assert made.account()["episodes"]["a"]["trimmed_s"][0] == pytest.approx(0.3)
    np.testing.assert_array_equal(made.episode(0).images["front"][0], picture(6))
    with pytest.raises(DatasetError, match=r"actions shoulder, elbow, gripper begins 0.300 s after the episode, at most 0.2 s"):
        _ = source(late, episodes={"max_trim_s": 0.2}).rows


def test_episodes_are_marked_by_a_topic(tmp_path):
    def mark(at_s, word):
        return (START + int(at_s * NS), "/episode", "std_msgs/msg/String", SimpleNamespace(data=word))

    told = [
        mark(0.1, "start"),
        mark(0.5, "stop"),
        mark(0.9, "start"),
        mark(1.4, "start"),
        mark(1.9, "stop"),
        mark(2.0, "stop"),
        mark(2.1, "start"),
    ]
    sentence = (START, "/task", "std_msgs/msg/String", SimpleNamespace(data="open the drawer"))
    won = (START + int(0.45 * NS), "/won", "std_msgs/msg/Bool", SimpleNamespace(data=True))
    entries = sorted([*arm_entries(seconds=2.2), *told, sentence, won], key=lambda e: e[0])
    rule = {"by": "topic", "topic": "/episode", "start": ["start"], "stop": ["stop"]}
    made = source(
        write_ros2(tmp_path / "a.mcap", entries),
        episodes=rule,
        clock="log",
        instruction={"topic": "/task"},
        outcome={"topic": "/won"},
        task="drawer",
    )
    assert [(r.episode_id, r.length, r.start, r.success, r.task, r.instruction) for r in made.rows] == [
        ("a-0000", 5, 0, True, "drawer", "open the drawer"),
        ("a-0002", 6, 5, None, "drawer", "open the drawer"),
    ]
    assert {name: reason.split(": ", 1)[1] for name, reason in made.refused.items()} == {
        "a-0001": "/episode starts it, then starts another one before a stop",
        "a-0003": "/episode stops an episode that it did not start",
        "a-0004": "/episode starts it and never stops it",
    }
    np.testing.assert_allclose(made.episode(1, images=False).proprio_TP[0, 0], 1.4 - 0.003, atol=1e-6)


def test_two_sentences_in_one_episode_are_refused(tmp_path):
    said = [(START + int(at * NS), "/task", "std_msgs/msg/String", SimpleNamespace(data=text)) for at, text in ((0, "push"), (0.5, "pull"))]
    entries = sorted([*arm_entries(), *said], key=lambda e: e[0])
    with pytest.raises(DatasetError, match="2 instructions"):
        _ = source(write_ros2(tmp_path / "a.mcap", entries), instruction={"topic": "/task"}, clock="log").rows


def raw(encoding: str, channels: int, order: tuple[int, ...], step: int) -> SimpleNamespace:
    image = picture(7)
    pixels = np.zeros((6, 8, channels), np.uint8)
    for place, channel in enumerate(order):
        pixels[..., channel] = image[..., place]
    rows = np.zeros((6, step), np.uint8)
    rows[:, : 8 * channels] = pixels.reshape(6, -1)
    return head(START, height=6, width=8, encoding=encoding, is_bigendian=0, step=step, data=rows.tobytes())


@pytest.mark.parametrize(("encoding", "channels", "order"), [("rgb8", 3, (0, 1, 2)), ("bgr8", 3, (2, 1, 0)), ("bgra8", 4, (2, 1, 0))])
def test_raw_images_of_every_order_and_with_padded_rows(tmp_path, encoding, channels, order):
    entries = [e for e in arm_entries() if e[1] != "/front/compressed"]
    for k in range(11):
        message = raw(encoding, channels, order, step=8 * channels + 5)
        message.header.stamp = SimpleNamespace(sec=(START + k * NS // 10) // NS, nanosec=(k * NS // 10) % NS)
        entries.append((START + k * NS // 10, "/raw", "sensor_msgs/msg/Image", message))
    made = source(
        write_ros2(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[0])), cameras={"front": {"topic": "/raw", "max_gap_s": 0.04}}
    )
    np.testing.assert_array_equal(made.episode(0).images["front"][3], picture(7))


def test_an_image_whose_colours_are_not_known_is_refused_unless_the_mapping_knows(tmp_path):
    entries = [e for e in arm_entries() if e[1] != "/front/compressed"]
    entries += [(START + k * NS // 10, "/raw", "sensor_msgs/msg/Image", raw("8UC3", 3, (2, 1, 0), 24)) for k in range(11)]
    path = write_ros2(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[0]))
    camera = {"topic": "/raw", "max_gap_s": 0.04, "clock": "log"}
    with pytest.raises(DatasetError, match=r"encoding '8UC3'.*cameras.NAME.encoding"):
        source(path, cameras={"front": camera}).episode(0)
    known = source(path, cameras={"front": {**camera, "encoding": "bgr8"}})
    np.testing.assert_array_equal(known.episode(0).images["front"][0], picture(7))
    wide = McapSource(path, known.mapping, replace(BODY, cameras=(replace(BODY.cameras[0], width=9),)))
    with pytest.raises(DatasetError, match="8x6, the embodiment states 9x6"):
        wide.episode(0)


def test_foxglove_json_and_protobuf_give_the_same_episode_as_ros2(tmp_path):
    expected = source(write_ros2(tmp_path / "ros.mcap", arm_entries())).episode(0)
    json_entries, proto_entries, classes = [], [], protobuf_classes()
    for log_ns, topic, _, message in arm_entries():
        stamp = message.header.stamp if topic != "/command" else SimpleNamespace(sec=log_ns // NS, nanosec=log_ns % NS)
        time_ns = stamp.sec * NS + stamp.nanosec
        if topic == "/front/compressed":
            image = np.asarray(__import__("PIL.Image", fromlist=["open"]).open(__import__("io").BytesIO(message.data)))
            json_entries.append(
                (
                    log_ns,
                    topic,
                    "foxglove.CompressedImage",
                    {"timestamp": json_time(time_ns), "format": "png", "data": base64_of(message.data)},
                )
            )
            made = classes["RawImage"](width=8, height=6, encoding="rgb8", step=24, data=image.tobytes())
        else:
            values = message.position if topic == "/joint_states" else message.data
            json_entries.append((log_ns, topic, "arm.Numbers", {"timestamp": json_time(time_ns), "values": list(values)}))
            made = classes["Numbers"](values=list(values))
        made.timestamp.seconds, made.timestamp.nanos = stamp.sec, stamp.nanosec
        proto_entries.append((log_ns, topic, made))
    fields = {part: [{**MAPPING[part][0], "field": "values", "keys": []}] for part in ("state", "actions")}
    for path in (write_json(tmp_path / "j.mcap", json_entries), write_protobuf(tmp_path / "p.mcap", proto_entries)):
        got = source(path, **fields).episode(0)
        np.testing.assert_array_equal(got.images["front"], expected.images["front"])
        np.testing.assert_array_equal(got.proprio_TP, expected.proprio_TP)
        np.testing.assert_array_equal(got.actions_TA, expected.actions_TA)


def test_poses_scales_and_several_topics_fill_one_vector(tmp_path):
    entries = [e for e in arm_entries() if e[1] != "/joint_states"]
    for k in range(51):
        at = START + k * NS // 50
        point, turn = SimpleNamespace(x=k * 20.0, y=0.0, z=1.0), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        entries.append((at, "/pose", "geometry_msgs/msg/PoseStamped", head(at, pose=SimpleNamespace(position=point, orientation=turn))))
        entries.append((at, "/grip", "std_msgs/msg/Bool", SimpleNamespace(data=k >= 25)))
    near = {"max_gap_s": 0.05}
    state = [
        {"topic": "/grip", "field": "data", "dims": ["gripper"], "clock": "log", "method": "previous", **near},
        {"topic": "/pose", "field": "pose.position.x", "dims": ["shoulder"], "method": "linear", "scale": 0.001, "offset": 1, **near},
        {"topic": "/pose", "field": "pose.position.z", "dims": ["elbow"], **near},
    ]
    episode = source(write_ros2(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[0])), state=state).episode(0, images=False)
    np.testing.assert_allclose(episode.proprio_TP[10], [2.0, 1.0, 1.0], atol=1e-6)
    np.testing.assert_array_equal(episode.proprio_TP[:, 2], [0] * 5 + [1] * 6)
    with pytest.raises(SpecError, match="no rotation"):
        source(tmp_path / "a.mcap", state=[{**state[1], "field": "pose.orientation.x"}])


def test_angles_go_the_shorter_way_round():
    picks = pick(np.array([0, NS], np.int64), np.array([NS // 2], np.int64), "linear", 2.0)
    around = picks.values(np.array([[3.1], [-3.1]]), angle=True)
    assert abs(abs(around[0, 0]) - np.pi) < 1e-9
    assert picks.values(np.array([[3.1], [-3.1]]))[0, 0] == 0


def test_damage_is_refused_and_named(tmp_path):
    whole = write_ros2(tmp_path / "a.mcap", arm_entries(), chunk_size=4096)
    data = bytearray(whole.read_bytes())
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(DatasetError, match=r"cut is no whole MCAP file.*mcap recover"):
        _ = source(tmp_path / "cut.mcap").rows
    plain = write_ros2(tmp_path / "plain.mcap", arm_entries(), chunk_size=4096, compression=_none()).read_bytes()
    place = plain.index(b"shoulder") + 300
    (tmp_path / "bit.mcap").write_bytes(plain[:place] + bytes([plain[place] ^ 1]) + plain[place + 1 :])
    with pytest.raises(DatasetError, match="damaged"):
        _ = source(tmp_path / "bit.mcap").rows
    (tmp_path / "none.mcap").write_bytes(b"no log at all")
    with pytest.raises(DatasetError, match="no whole MCAP file"):
        _ = source(tmp_path / "none.mcap").rows


def _none():
    from mcap.writer import CompressionType

    return CompressionType.NONE


def test_one_bad_file_of_a_folder_is_told_and_the_others_are_read(tmp_path):
    write_ros2(tmp_path / "good.mcap", arm_entries())
    write_ros2(tmp_path / "poor.mcap", without(arm_entries(), "/command", lambda t: True))
    made = source(tmp_path)
    assert [row.episode_id for row in made.rows] == ["good"]
    assert "no message of /command" in made.refused["poor"]
    assert made.account()["refused"] == made.refused


def test_the_digest_is_of_contents_and_settings_and_not_of_the_place(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    for folder in ("x", "y"):
        write_ros2(tmp_path / folder / "a.mcap", arm_entries())
    assert source(tmp_path / "x").digest == source(tmp_path / "y").digest
    assert source(tmp_path / "x").digest != source(tmp_path / "x", clock="log").digest
    write_ros2(tmp_path / "y" / "a.mcap", arm_entries(seconds=1.2))
    assert source(tmp_path / "x").digest != source(tmp_path / "y").digest


def test_a_mapping_must_fill_the_embodiment_exactly(tmp_path):
    path = write_ros2(tmp_path / "a.mcap", arm_entries())
    with pytest.raises(SpecError, match="state: embodiment 'two-joints' has shoulder, elbow, gripper"):
        source(path, state=[{**MAPPING["state"][0], "dims": ["shoulder", "elbow"], "keys": []}])
    with pytest.raises(SpecError, match="cameras"):
        source(path, cameras={"side": MAPPING["cameras"]["front"]})


def test_topics_are_listed_and_a_draft_waits_for_a_person(tmp_path):
    path = write_ros2(tmp_path / "a.mcap", without(arm_entries(), "/joint_states", lambda t: 0.41 < t < 0.55))
    topics = {topic.name: topic for topic in list_topics(path)}
    joints = topics["/joint_states"]
    assert (joints.schema, joints.encoding, joints.stamped) == ("sensor_msgs/msg/JointState", "cdr", 1.0)
    assert joints.rate_hz == pytest.approx(50)
    assert joints.largest_gap_s == pytest.approx(0.16)
    assert joints.log_after_stamp_s == pytest.approx(0.003)
    assert (joints.numbers[0].path, joints.numbers[0].keys) == ("position", NAMES)
    assert topics["/front/compressed"].image == (6, 8)
    (tmp_path / "draft.yaml").write_text(draft_mapping(tuple(topics.values())))
    with pytest.raises(SpecError, match=r"1 entries: instruction.text"):
        read_mapping(tmp_path / "draft.yaml")
    decided = yaml.safe_load((tmp_path / "draft.yaml").read_text())
    decided["instruction"]["text"] = "push the button"
    read = from_document(TopicMapping, decided)
    assert read.clock == "log"  # commands carry no stamp
    assert read.state[0].keys == NAMES
    assert [one.topic for one in read.actions] == ["/command"]


@given(
    st.lists(st.integers(0, 2 * NS), min_size=1, max_size=40, unique=True),
    st.sampled_from(["nearest", "previous", "linear"]),
    st.floats(0.01, 1),
)
def test_every_pick_keeps_its_promise(times, method, most_s):
    times_N = np.array(sorted(times), np.int64)
    grid_T = grid_ns(0, 2 * NS, 13)
    picks = pick(times_N, grid_T, method, most_s)
    for t, at in enumerate(grid_T):
        first, second = times_N[picks.first_T[t]], times_N[picks.second_T[t]]
        distances = np.abs(times_N - at)
        if not picks.is_known_T[t]:
            continue
        if method == "previous":
            assert first <= at
            assert first == times_N[times_N <= at].max()
            assert at - first <= most_s * NS + 1
        elif method == "nearest":
            assert abs(first - at) == distances.min() <= most_s * NS + 1
        else:
            assert first <= at <= second
            assert second - first <= most_s * NS + 1
            assert first + picks.share_T[t] * (second - first) == pytest.approx(at, abs=2)
    if picks.is_known_T.all():
        count = count_stream(times_N, grid_T, picks)
        assert count.exact + count.resampled == len(grid_T)
        assert count.dropped <= count.messages


def test_steps_are_one_period_apart_and_end_in_time():
    grid_T = grid_ns(5, 5 + NS, 30)
    assert len(grid_T) == 31
    assert grid_T[-1] == 5 + NS
    assert np.abs(np.diff(grid_T) - NS / 30).max() <= 1
    assert len(grid_ns(0, NS - 1000, 30)) == 30


def test_jpeg_is_read_and_damaged_images_are_refused(tmp_path):
    entries = [e for e in arm_entries() if e[1] != "/front/compressed"]
    kind = "sensor_msgs/msg/CompressedImage"
    good = [
        (START + k * NS // 10, "/jpg", kind, head(START, format="rgb8; jpeg compressed bgr8", data=encoded(picture(9), "JPEG")))
        for k in range(11)
    ]
    camera = {"front": {"topic": "/jpg", "max_gap_s": 0.04, "clock": "log"}}
    made = source(write_ros2(tmp_path / "a.mcap", sorted([*entries, *good], key=lambda e: e[0])), cameras=camera)
    assert np.abs(made.episode(0).images["front"][0].astype(int) - picture(9)).max() <= 3
    good[5][3].data = good[5][3].data[:40]
    torn = source(write_ros2(tmp_path / "b.mcap", sorted([*entries, *good], key=lambda e: e[0])), cameras=camera)
    with pytest.raises(DatasetError, match=r"camera front .*cannot be decoded"):
        torn.episode(0)


def test_parts_of_one_recording_are_no_episodes(tmp_path):
    for part in ("bag_0", "bag_1", "other"):
        write_ros2(tmp_path / f"{part}.mcap", arm_entries())
    parts = {"rosbag2_bagfile_information": {"relative_file_paths": ["bag_0.mcap", "bag_1.mcap"]}}
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(parts))
    made = source(tmp_path)
    assert [row.episode_id for row in made.rows] == ["other"]
    assert sorted(made.refused) == ["bag_0", "bag_1"]
    assert "one of 2 parts" in made.refused["bag_0"]
    parts["rosbag2_bagfile_information"]["relative_file_paths"] = ["bag_0.mcap"]
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(parts))
    assert len(source(tmp_path).rows) == 3


def test_the_account_is_told_in_sentences_and_rows_can_be_chosen(tmp_path):
    entries = arm_entries()
    states = [e for e in entries if e[1] == "/joint_states"]
    entries.append(states[10])  # one stamp twice
    states[20][3].header.stamp = SimpleNamespace(sec=START // NS, nanosec=990_000_000)  # the clock jumped ahead and came back
    write_ros2(tmp_path / "a.mcap", sorted(entries, key=lambda e: e[0]))
    write_ros2(tmp_path / "b.mcap", without(arm_entries(), "/command", lambda t: True))
    write_ros2(tmp_path / "c.mcap", arm_entries(seconds=1.2))
    whole = source(tmp_path)
    told = "\n".join(whole.notes)
    assert "episode b is left out: b has no message of /command" in told
    assert "camera front: 24 of 24 steps have a message of their time, 0 were resampled, 0 repeat the one before; 22 of 46" in told
    assert "1 messages had the time of another one" in told
    assert "1 messages had an earlier time" in told
    second = McapSource(tmp_path, mapping(), BODY, chosen=lambda rows: rows[1:], settings={"include": ["c"]})
    assert [(row.index, row.start, row.episode_id, row.length) for row in second.rows] == [(0, 0, "c", 13)]
    assert "1 episodes are left out by include or tasks" in second.notes[0]
    assert second.episode(0, images=False).episode_id == "c"
    assert second.digest != whole.digest


def test_a_log_without_an_index_is_refused_since_its_checksums_would_not_be_read(tmp_path):
    from mcap.writer import IndexType, Writer

    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file, index_types=IndexType.NONE)
        writer.start()
        channel = writer.register_channel("/t", "json", writer.register_schema("n", "jsonschema", b"{}"))
        writer.add_message(channel, START, b'{"value": 1}', START)
        writer.finish()
    with pytest.raises(DatasetError, match=r"no index of its messages.*mcap recover"):
        list_topics(tmp_path / "a.mcap")


ARM = """format: 1
name: two_joints
control_hz: 10
cameras: [{name: front, width: 8, height: 6, role: front}]
proprio:
  {unit: rad, frame: base, dims: [{name: shoulder, low: -4, high: 4}, {name: elbow, low: -4, high: 4}, {name: gripper, low: -4, high: 4}]}
action:
  mode: absolute
  unit: rad
  frame: base
  dims: [{name: shoulder, low: -4, high: 4}, {name: elbow, low: -4, high: 4}, {name: gripper, low: -4, high: 4}]
gripper: {dim: gripper, values: [-1, 1], open: 1, threshold: 0}
confirmed: {by: Ada Lovelace, on: 2026-11-29}
"""


def test_a_recipe_opens_logs_by_their_mapping_and_its_embodiment_file(tmp_path):
    from components.config.source_config import SourceConfig, source_opener
    from components.data.sources.mcap.open import open_mcap

    for name in ("a", "b"):
        write_ros2(tmp_path / f"{name}.mcap", arm_entries())
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(MAPPING))
    (tmp_path / "arm.yaml").write_text(ARM)
    assert source_opener("mcap") == "components.data.sources.mcap.open:open_mcap"
    config = SourceConfig(name="logs", kind="mcap", path=str(tmp_path), embodiment=str(tmp_path / "arm.yaml"), include=("b",))
    made = open_mcap(config)
    assert (made.name, [row.episode_id for row in made.rows]) == ("logs", ["b"])
    np.testing.assert_array_equal(made.episode(0).images["front"][3], picture(6))
    for change, reason in (
        ({"options": {"mapping": "../mapping.yaml"}}, "no mapping file"),
        ({"options": {"rate": 1}}, "option 'rate'"),
        ({"embodiment": ""}, "does not describe its robot"),
        ({"stride": 2}, "stride of logs are in"),
        ({"path": ""}, "the folder of the logs"),
    ):
        with pytest.raises(SpecError, match=reason):
            open_mcap(replace(config, **change))
