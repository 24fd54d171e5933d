"""Logs that the public writers wrote (tests/data/robot_logs): rosbags for ROS 2, the Foxglove SDK for Protobuf and JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.data.sources.mcap.mapping import TopicMapping
from components.data.sources.mcap.source import McapSource
from components.data.sources.mcap.topics import list_topics
from model_core.spec.documents import from_document
from tests.mcap_data import BODY, MAPPING, NAMES, picture

LOGS = Path(__file__).parents[1] / "data" / "robot_logs"
STATE, COMMAND = MAPPING["state"][0], MAPPING["actions"][0]
PARTS = {"rosbags": {"state": [STATE], "actions": [COMMAND]}}
PARTS["foxglove"] = {
    "state": [{**STATE, "field": "values", "keys": []}],
    "actions": [{**COMMAND, "field": "values"}],
}
SCHEMAS = {
    "rosbags": ("sensor_msgs/msg/JointState", "cdr", "sensor_msgs/msg/Image", "cdr"),
    "foxglove": ("", "json", "foxglove.RawImage", "protobuf"),
}


@pytest.mark.parametrize("writer", ["rosbags", "foxglove"])
def test_a_log_of_a_public_writer_gives_what_was_logged(writer):
    cameras = {"front": {"topic": "/front/image_raw", "max_gap_s": 0.04}}
    document = {**MAPPING, "cameras": cameras, **PARTS[writer]}
    made = McapSource(LOGS / f"{writer}.mcap", from_document(TopicMapping, document), BODY)
    episode = made.episode(0)
    t = np.arange(11) / 10
    np.testing.assert_allclose(episode.proprio_TP, np.stack([t, 2 * t, -t], axis=1), atol=1e-6)
    np.testing.assert_array_equal(episode.actions_TA, np.stack([np.arange(11), np.full(11, 0.5), np.ones(11)], axis=1))
    np.testing.assert_array_equal(episode.images["front"], [picture(2 * k) for k in range(11)])
    assert made.refused == {}


@pytest.mark.parametrize("writer", ["rosbags", "foxglove"])
def test_its_topics_are_listed(writer):
    topics = {topic.name: topic for topic in list_topics(LOGS / f"{writer}.mcap")}
    joints, front = topics["/joint_states"], topics["/front/image_raw"]
    assert (joints.encoding, front.schema, front.encoding) == SCHEMAS[writer][1:]
    assert (joints.messages, front.messages, front.image) == (51, 21, (6, 8))
    assert front.log_after_stamp_s == pytest.approx(0.003)
    if writer == "rosbags":
        assert joints.schema == SCHEMAS[writer][0]
        assert set(joints.numbers[0].keys) == set(NAMES)
