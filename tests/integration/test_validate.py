"""The gate of a data set with Great Expectations: verdicts, quarantine with reasons, pages, and when it stops the flow.

Run: .venv/bin/python -m pytest tests/integration/test_validate.py
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from components.artifacts.step_manifest import folder_digests
from components.config.data_config import ValidateConfig
from components.data.ingest import IngestOptions, ingest
from components.data.inspection.rules import inspect_episode
from components.data.validate import validate
from model_core.spec.errors import GateError
from tests.episodes import BODY, Tally, episode, write_dataset

pytestmark = pytest.mark.xdist_group("gx")


def with_value(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


def spoilt():
    """Fourteen good episodes and one of each fault, by id."""
    base = [episode(i) for i in range(100, 107)]
    nan, wild, black, frozen, hidden, bang, late = base
    still = hidden.images["front"][:1].repeat(12, axis=0)
    return {
        "nan": (replace(nan, actions_TA=with_value(nan.actions_TA, (2, 1), np.nan)), "not_finite"),
        "wild": (replace(wild, proprio_TP=with_value(wild.proprio_TP, (3, 0), 4.0)), "out_of_range"),
        "black": (replace(black, images={"front": with_value(black.images["front"], 5, 0)}), "black_frames"),
        "frozen": (replace(frozen, images={"front": still + 1}), "frozen_frames"),
        "hidden": (replace(hidden, tcp_T3=np.full((12, 3), 3.0, np.float32)), "gripper_visibility"),
        "short": (episode(107, length=5), "episode_length"),
        "bang": (replace(bang, actions_TA=np.where(bang.actions_TA > 0, 1, -1).astype(np.float32)), "action_clipping"),
        "late": (replace(late, timestamps_T=with_value(late.timestamps_T, slice(6, 12), late.timestamps_T[6:] + 0.2)), "timestamps"),
        "twin": (replace(episode(0), episode_id="twin"), "duplicate"),
    }


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    root = tmp_path_factory.mktemp("validate")
    bad = {name: (replace(made, episode_id=name), check) for name, (made, check) in spoilt().items()}
    dataset = write_dataset(root / "dataset", [episode(i) for i in range(14)] + [made for made, _ in bad.values()])
    cfg = ValidateConfig(max_bad_fraction=0.5, frozen_frames_limit=8)
    return root, dataset, {name: check for name, (_, check) in bad.items()}, validate(cfg, dataset, root / "out", Tally())


def test_each_fault_is_found_and_nothing_else(judged):
    root, _, expected, record = judged
    verdicts = json.loads((root / "out/valid.json").read_text())
    assert {name for name, good in verdicts.items() if not good} == set(expected)
    for name, check in expected.items():
        document = json.loads((root / "out/quarantine" / f"{name}.json").read_text())
        assert [f["check"] for f in document["findings"]] == [check], name
        assert all(len(f["reason"]) > 20 for f in document["findings"])
    assert record["quarantined"] == len(expected)
    assert record["valid"] == 14


def test_reasons_say_what_was_expected_and_got(judged):
    reason = json.loads((judged[0] / "out/quarantine/wild.json").read_text())["findings"][0]["reason"]
    assert reason == "expected: state hand_x is within -0.5..0.5 m; got in 1 frames, first 4"


def test_pages_need_no_network(judged):
    docs = judged[0] / "out/undigested/data_docs"
    pages = list(docs.rglob("*.html"))
    assert len(pages) >= 5
    text = "\n".join(p.read_text() for p in pages)
    assert not re.search(r"""(src|href)\s*=\s*["']https?:|url\(\s*['"]?https?:|@import""", text)
    assert "<script" not in text
    assert "hand_x" in text
    index = (docs / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert len(links) == 4
    assert all((docs / link).exists() for link in links)


def test_judging_again_gives_the_same_bytes(judged, tmp_path):
    cfg = ValidateConfig(max_bad_fraction=0.5, frozen_frames_limit=8, data_docs=False)
    record = validate(cfg, judged[1], tmp_path, Tally())
    assert {k: v for k, v in record.items() if k != "undigested"} == {k: v for k, v in judged[3].items() if k != "undigested"}
    assert folder_digests(tmp_path) == folder_digests(judged[0] / "out")


def test_too_many_bad_ones_stop_the_flow_with_one_message(judged, tmp_path):
    with pytest.raises(GateError) as stopped:
        validate(ValidateConfig(max_bad_fraction=0.1, frozen_frames_limit=8, data_docs=False), judged[1], tmp_path, Tally())
    text = str(stopped.value)
    assert text.startswith("9 of 23 episodes are bad, at most 10% may be:")
    assert "Fix:" in text
    assert len(list((tmp_path / "quarantine").glob("*.json"))) == 9
    assert not (tmp_path / "valid.json").exists()


def test_one_threshold_decides_at_recording_and_at_the_gate(tmp_path):
    made = [episode(i) for i in range(8)]
    for number, brightness in enumerate((1, 3, 4, 5, 20)):
        frames = np.full((12, 32, 32, 3), brightness, np.uint8)
        frames[:, 0, 0, 0] = np.arange(12) + number * 12  # images differ, so they are dark and not frozen
        made[number] = replace(made[number], episode_id=f"dim-{brightness}", images={"front": frames})
    wild = replace(made[5], proprio_TP=with_value(made[5].proprio_TP, (3, 2), 0.55 + 0.06 * 0.55), episode_id="outside the slack")
    near = replace(made[6], proprio_TP=with_value(made[6].proprio_TP, (3, 2), 0.55 + 0.04 * 0.55), episode_id="inside the slack")
    made[5:7] = [wild, near]
    cfg = ValidateConfig(data_docs=False, max_bad_fraction=1.0)
    validate(cfg, write_dataset(tmp_path / "set", made), tmp_path / "out", Tally())
    verdicts = json.loads((tmp_path / "out/valid.json").read_text())
    assert verdicts == {one.episode_id: not inspect_episode(one, BODY, cfg) for one in made}
    assert {name for name, good in verdicts.items() if not good} == {"dim-1", "dim-3", "dim-4", "outside the slack"}


def test_both_rooms_agree_which_episodes_are_one_recording(tmp_path):
    first = episode(0)
    executed = replace(first, episode_id="other-execution", executed_TA=first.executed_TA * np.float32(0.5))
    state = replace(first, episode_id="other-state", proprio_TP=first.proprio_TP + np.float32(0.001))
    copy = replace(first, episode_id="copy", timestamps_T=first.timestamps_T + 100.0)
    dataset = write_dataset(tmp_path / "set", [first, executed, state, copy])
    validate(ValidateConfig(data_docs=False, max_bad_fraction=1.0), dataset, tmp_path / "out", Tally())
    verdicts = json.loads((tmp_path / "out/valid.json").read_text())
    assert verdicts == {"square-0000": True, "other-execution": True, "other-state": True, "copy": False}
    record = ingest([dataset], tmp_path / "taken", Tally(), IngestOptions(max_bad_fraction=1.0))
    assert record["quarantined"] == {"copy": ["duplicate"]}
    assert record["episodes"] == 3
