"""Data sets exported as robot logs: our own source and the public readers give back every number and pixel, or nothing appears."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.data.embodiments.file import read_embodiment
from components.data.embodiments.of_spec import document_of_spec
from components.data.embodiments.writing import text_of
from components.data.export.mcap.export_logs import Described, export_logs
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.sources.raw_index import open_source
from model_core.spec.errors import DatasetError, SpecError
from tests.episodes import BODY, episode, write_dataset
from tests.own_data import own_embodiment, write_own_set
from tests.plain_set import plain_episode, write_plain_set

SIGNED = Described(given=None, signed_by="a test", on="2026-11-29")
FLAGS = np.array([False, True, True, False, False, True])


def logs(root) -> Any:
    return open_source(SourceConfig(name="logs", kind="mcap", path=str(root), embodiment=str(root / "embodiment.yaml")))


def raw_set(root, *, flags=(FLAGS, FLAGS[::-1], ~FLAGS), success=(True, False, None), **changes):
    parts = [
        episode(
            n, length=6, intervention_T=flags[n], success=success[n], timestamps_T=np.arange(6) / BODY.control_hz + 0.001 * n, **changes
        )
        for n in range(3)
    ]
    return DatasetReader(write_dataset(root, parts))


def test_our_own_source_reads_every_number_and_pixel_back(tmp_path):
    source = raw_set(tmp_path / "raw")
    told = export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    assert (told.episodes, told.frames, told.psnr_db, told.largest_difference) == (3, 18, None, 0)
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]
    assert sorted(os.listdir(tmp_path / "out")) == ["embodiment.yaml", "mapping.yaml", *(f"square-{n:04d}.mcap" for n in range(3))]
    read = logs(tmp_path / "out")
    assert read.embodiment == source.embodiment
    assert all(" 0 were resampled" in line for line in read.notes if "resampled" in line)
    for index, row in enumerate(read.rows):
        one, other = source.episode(index), read.episode(index)
        assert (other.episode_id, other.instruction, other.success) == (one.episode_id, one.instruction, one.success)
        assert row.provenance.producer == "expert:test"
        for name in ("proprio_TP", "actions_TA", "tcp_T3", "intervention_T"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.images["front"], other.images["front"])
        np.testing.assert_allclose(other.timestamps_T, np.arange(6) / BODY.control_hz, atol=1e-9)
    assert any(line.startswith("left out, since logs have no place for it: depth of front (3 episodes)") for line in told.left_out)


def test_the_public_readers_decode_every_message(tmp_path):
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    source = raw_set(tmp_path / "raw")
    export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    one = source.episode(1)
    found: dict[str, list] = {}
    with (tmp_path / "out/square-0001.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        metadata = next(iter(reader.iter_metadata())).metadata
        for schema, channel, message, decoded in reader.iter_decoded_messages():
            assert schema is not None
            found.setdefault(channel.topic, []).append((schema.name, message.log_time, decoded))
    assert metadata["episode_id"] == "square-0001"
    assert json.loads(metadata["provenance"])["seed"] == 1
    names = {"/action", "/state", "/front/compressed", "/instruction", "/intervention", "/outcome", "/tool_centre"}
    assert set(found) == names
    for step, (schema, log_ns, image) in enumerate(found["/front/compressed"]):
        assert (schema, image.format) == ("sensor_msgs/msg/CompressedImage", "png")
        assert abs(log_ns - 10**9 - step * 1e9 / BODY.control_hz) < 1
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.data))), one.images["front"][step])
    states = [message for _, _, message in found["/state"]]
    assert states[0].name == [dim.name for dim in BODY.proprio.dims]
    np.testing.assert_array_equal(np.array([message.position for message in states], np.float32), one.proprio_TP)
    assert [message.data for _, _, message in found["/outcome"]] == [False]
    assert [message.data for _, _, message in found["/intervention"]] == FLAGS[::-1].tolist()


def test_jpeg_tells_what_it_lost_and_keeps_the_numbers(tmp_path):
    source = raw_set(tmp_path / "raw")
    told = export_logs(source, tmp_path / "out", Silent(), codec="jpeg", described=SIGNED)
    assert told.images.startswith("lossy")
    assert told.psnr_db is not None
    assert told.psnr_db > 30
    np.testing.assert_array_equal(logs(tmp_path / "out").episode(2).actions_TA, source.episode(2).actions_TA)


def test_what_only_some_episodes_have_is_left_out_and_told(tmp_path):
    source = raw_set(tmp_path / "raw", flags=(FLAGS, None, None), success=(None, None, None), task="pick")
    told = export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    assert any("where a person acted, which other episodes do not say (1 episodes)" in line for line in told.left_out)
    document = yaml.safe_load((tmp_path / "out/mapping.yaml").read_text())
    assert {"intervention", "outcome"}.isdisjoint(document)
    read = logs(tmp_path / "out").episode(0, images=False)
    assert (read.intervention_T, read.success, read.task) == (None, None, "pick")


def test_files_are_numbered_where_their_names_would_change_the_order(tmp_path):
    parts = [episode(n, length=3, episode_id=name) for n, name in enumerate(("b", "a/c", "a"))]
    source = DatasetReader(write_dataset(tmp_path / "raw", parts))
    told = export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    assert [row.episode_id for row in logs(tmp_path / "out").rows] == ["000000-b", "000001-a_c", "000002-a"]
    assert any("b is 000000-b.mcap" in line for line in told.left_out)


def test_equal_episodes_make_equal_files_whatever_stands_before_them(tmp_path):
    for name, numbers in (("one", (0, 1)), ("two", (1,))):
        source = DatasetReader(write_dataset(tmp_path / f"raw-{name}", [episode(n, length=4) for n in numbers]))
        export_logs(source, tmp_path / name, Silent(), codec="lossless", described=SIGNED)
    assert (tmp_path / "one/square-0001.mcap").read_bytes() == (tmp_path / "two/square-0001.mcap").read_bytes()


def test_a_set_that_does_not_describe_its_robot_needs_its_file_which_must_fit(tmp_path):
    plain = DatasetReader(write_own_set(tmp_path / "own", 2))
    with pytest.raises(DatasetError, match=r"does not describe its robot.*--embodiment FILE"):
        export_logs(plain, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    body = own_embodiment()
    file = tmp_path / "arm.yaml"
    for wrong, said in ((replace(body, control_hz=7), "control_hz"), (replace(body, cameras=body.cameras[:1]), "cameras")):
        file.write_text(text_of({**document_of_spec(wrong), "confirmed": {"by": "a test", "on": "2026-11-29"}}))
        with pytest.raises(DatasetError, match=rf"{said}.* differ\. Fix"):
            export_logs(plain, tmp_path / "out", Silent(), codec="lossless", described=replace(SIGNED, given=file))
    assert not (tmp_path / "out").exists()


def test_a_plain_set_with_the_file_of_its_robot_is_read_back(tmp_path):
    source = DatasetReader(write_plain_set(tmp_path / "plain", [plain_episode(n, length=5, size=32) for n in range(2)]))
    file = tmp_path / "arm.yaml"
    file.write_text(text_of({**document_of_spec(BODY), "confirmed": {"by": "a test", "on": "2026-11-29"}}))
    export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=replace(SIGNED, given=file))
    assert (tmp_path / "out/embodiment.yaml").read_text() == file.read_text()
    np.testing.assert_array_equal(logs(tmp_path / "out").episode(1).images["front"], source.episode(1).images["front"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instruction": " "}, r"has no instruction.*relabel"),
        ({"actions_TA": np.array([[0, 0, np.nan, 0]] * 4, np.float32)}, r"step 0: action .* is nan, expected a number.*select"),
    ],
)
def test_what_no_log_can_hold_is_refused_and_nothing_appears(tmp_path, changes, said):
    class Source:
        name, embodiment = "made-up", BODY
        parts = (episode(0, length=4, **changes),)
        rows = DatasetReader(write_dataset(tmp_path / "raw", [episode(0, length=4)])).rows
        rows = tuple(replace(row, instruction=part.instruction) for row, part in zip(rows, parts, strict=True))

        digest = "0" * 64

        def episode(self, index, *, images=True, depth=True):
            return self.parts[index]

        def close(self):
            pass

    with pytest.raises(DatasetError, match=said):
        export_logs(Source(), tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    assert os.listdir(tmp_path) == ["raw"]


def test_images_of_a_bgr_camera_are_stored_as_they_look_and_read_as_they_were(tmp_path):
    body = replace(BODY, cameras=tuple(replace(camera, color="bgr") for camera in BODY.cameras))
    with DatasetWriter(tmp_path / "raw", body) as writer:
        writer.add(episode(0, length=3))
    source = DatasetReader(tmp_path / "raw")
    export_logs(source, tmp_path / "out", Silent(), codec="lossless", described=SIGNED)
    np.testing.assert_array_equal(logs(tmp_path / "out").episode(0).images["front"], source.episode(0).images["front"])


@pytest.mark.parametrize("change", [{}, {"rotation": "axis-angle"}, {"gripper_threshold": 0.5}, {"hold": (0.5, 0.0, 0.0, None)}])
def test_an_embodiment_written_as_a_file_is_read_back_equal(tmp_path, change):
    body = replace(BODY, **change)
    (tmp_path / "arm.yaml").write_text(text_of({**document_of_spec(body), "confirmed": {"by": "a test", "on": "2026-11-29"}}))
    assert read_embodiment(tmp_path / "arm.yaml") == body


def test_a_gripper_whose_values_are_not_stated_is_no_embodiment_file():
    with pytest.raises(SpecError, match=r"which values close and open.*--embodiment"):
        document_of_spec(replace(BODY, gripper_range=None))
