"""What a recording says of its body is compared with the recipe's, field by field: converted without loss, or refused with the field.

Run: .venv/bin/python -m pytest tests/unit/test_body_of_recordings.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.config.records import Silent
from components.data.ingest import IngestOptions, ingest
from components.data.inspection.body import check_dataset, check_recording, converted
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode
from model_core.spec.errors import GateError
from model_core.spec.protocol.wire import encode_episode
from tests.episodes import BODY, episode
from tests.plain_set import PlainLayout, change_info, plain_episode, write_plain_set

WIDE = replace(BODY, cameras=(replace(BODY.cameras[0], width=80, height=80),))


def own_set(root: Path, body: EmbodimentSpec, *episodes: Episode) -> Path:
    with DatasetWriter(root, body) as writer:
        for one in episodes:
            writer.add(one)
    return root


def other_unit(body: EmbodimentSpec) -> EmbodimentSpec:
    dims = (replace(body.action.dims[0], unit="m per step"), *body.action.dims[1:])
    return replace(body, action=replace(body.action, dims=dims))


def exchanged(body: EmbodimentSpec) -> EmbodimentSpec:
    first, second, *rest = body.action.dims
    return replace(body, action=replace(body.action, dims=(second, first, *rest)))


def in_millimetres(body: EmbodimentSpec) -> EmbodimentSpec:
    dims = tuple(replace(d, unit="mm", low=1000 * d.low, high=1000 * d.high) if d.unit == "m" else d for d in body.proprio.dims)
    return replace(body, proprio=replace(body.proprio, dims=dims))


def camera(**changes: Any) -> EmbodimentSpec:
    return replace(BODY, cameras=(replace(BODY.cameras[0], **changes),))


REFUSED = [
    (exchanged(BODY), "action.dims[0].name: expected 'dx' as the body 'metaworld-sawyer' of the recipe, got 'dy'"),
    (replace(BODY, gripper_open=1.0, gripper_range=(-1.0, 1.0)), "gripper_open: expected -1 as"),
    (replace(BODY, action=replace(BODY.action, mode="absolute")), "action.mode: expected 'delta' as"),
    (other_unit(BODY), "action.dims[0].unit: expected 'cm per simulator step'"),
    (replace(BODY, control_hz=10.0), "control_hz: expected 20 as"),
    (replace(BODY, rotation="euler-xyz", gripper_range=(0.0, 1.0)), "gripper_range"),
]


@pytest.mark.parametrize(("stated", "said"), REFUSED)
def test_a_set_of_another_body_is_refused_before_it_is_read(tmp_path: Path, stated: EmbodimentSpec, said: str) -> None:
    made = [replace(episode(n), timestamps_T=np.arange(12) / stated.control_hz) for n in range(2)]
    root = own_set(tmp_path / "set", stated, *made)
    with pytest.raises(GateError, match=r"2 recordings: 2 invalid") as stopped:
        ingest([root], tmp_path / "out", Silent(), IngestOptions(embodiment=BODY, max_bad_fraction=1.0))
    assert said in str(stopped.value)
    assert "set/meta/actwright.json" in str(stopped.value)
    assert "Fix:" in str(stopped.value)


@pytest.mark.parametrize(("stated", "said"), REFUSED)
def test_a_cells_recording_of_another_body_is_set_aside(tmp_path: Path, stated: EmbodimentSpec, said: str) -> None:
    for number, body in enumerate((stated, BODY)):
        one = replace(episode(number), body=body, episode_id=f"cell-{number}")
        (tmp_path / f"cell-{number}.episode").write_bytes(encode_episode(one))
    record = ingest([tmp_path], tmp_path / "out", Silent(), IngestOptions(embodiment=BODY))
    assert record["quarantined"]["cell-0.episode"][0] == "body_differs"
    assert (record["episodes"], record["not_described"]) == (1, 0)
    assert said in (tmp_path / "out/quarantine/cell-0.episode.json").read_text()


def same(taken: Episode, meant: Episode) -> None:
    assert np.array_equal(taken.images["front"], meant.images["front"])
    assert taken.proprio_TP == pytest.approx(meant.proprio_TP, rel=1e-6)
    assert np.array_equal(taken.actions_TA, meant.actions_TA)
    assert set(taken.geometry) == {"front"}


def test_what_loses_nothing_is_converted_and_told(tmp_path: Path) -> None:
    meant = episode(0)
    stated = replace(in_millimetres(BODY), cameras=camera(name="cam_high", role="front", color="bgr").cameras)
    wanted = camera(role="front")
    factor = np.array([1000, 1000, 1000, 1], np.float32)
    foreign = replace(
        meant,
        images={"cam_high": np.ascontiguousarray(meant.images["front"][..., ::-1])},
        depth_m={"cam_high": meant.depth_m["front"]},
        geometry={"cam_high": meant.geometry["front"]},
        proprio_TP=meant.proprio_TP * factor,
    )
    root = own_set(tmp_path / "set", stated, foreign)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool/cell.episode").write_bytes(encode_episode(replace(foreign, body=stated, episode_id="cell")))
    options = IngestOptions(embodiment=wanted)
    for source, out in ((root, "of-set"), (tmp_path / "spool", "of-cell")):
        record = ingest([source], tmp_path / out, Silent(), options)
        assert (record["episodes"], record["quarantined"]) == (1, {})
        told = "; ".join(record["converted"])
        assert "channel order: cameras[0].color: 'bgr' is converted to 'rgb'" in told
        assert "unit scale: proprio.dims[0].unit: 'mm' is converted to 'm'" in told
        same(DatasetReader(tmp_path / out / "dataset").episode(0), meant)


def test_actions_are_converted_too() -> None:
    dims = tuple(replace(d, unit="m") for d in BODY.action.dims[:3])
    wanted = replace(BODY, action=replace(BODY.action, dims=(*dims, BODY.action.dims[3])))
    stated_dims = tuple(replace(d, unit="cm", low=100 * d.low, high=100 * d.high) for d in dims)
    stated = replace(wanted, action=replace(wanted.action, dims=(*stated_dims, wanted.action.dims[3])))
    meant, factor = episode(2), np.array([100, 100, 100, 1], np.float32)
    found = check_recording("one", replace(meant, body=stated), wanted)
    assert found.findings == ()
    taken = converted(
        replace(meant, actions_TA=meant.actions_TA * factor, executed_TA=meant.executed_TA * factor), found.conversions, wanted
    )
    assert taken.actions_TA == pytest.approx(meant.actions_TA, rel=1e-6)
    assert taken.executed_TA == pytest.approx(meant.executed_TA, rel=1e-6)


@pytest.mark.parametrize(
    ("layout", "info", "said"),
    [
        (PlainLayout(fps=30), {}, "control_hz: expected 20 as the body 'metaworld-sawyer' of the recipe, got 30"),
        (
            PlainLayout(fps=20, film_fps=20),
            {"fps": 29.97},
            "control_hz: expected 20 as the body 'metaworld-sawyer' of the recipe, got 29.97",
        ),
        (PlainLayout(fps=12.5), {}, "got 12.5"),
        (PlainLayout(fps=20.3), {}, "got 20.3"),
        (PlainLayout(action_names=("dy", "dx", "dz", "gripper")), {}, "action.dims[0].name: expected 'dx'"),
        (
            PlainLayout(robot_type="so100"),
            {},
            "name: expected 'metaworld-sawyer' as the body 'metaworld-sawyer' of the recipe, got 'so100'",
        ),
        (PlainLayout(camera="top"), {}, "cameras[0].name: expected 'front'"),
    ],
)
def test_what_info_json_says_is_compared(tmp_path: Path, layout: PlainLayout, info: dict[str, Any], said: str) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(0, length=6)], layout, **info)
    found = check_dataset(DatasetReader(root), WIDE)
    assert any(said in f.reason for f in found.findings), found.findings
    assert all(f.where == "set/meta/info.json" and "Fix:" in f.reason for f in found.findings)


@pytest.mark.parametrize("names", [None, ("dx", "dy", "dz", "gripper"), ("motor_0", "motor_1", "motor_2", "motor_3")])
def test_names_that_agree_or_say_nothing_are_no_difference(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(0, length=6)], PlainLayout(action_names=names))
    found = check_dataset(DatasetReader(root), WIDE)
    assert (found.findings, found.conversions, found.is_described) == ((), (), False)


@pytest.mark.parametrize(
    "names", [{"motors": ["dy", "dx", "dz", "gripper"]}, {"dx": 1, "dy": 0, "dz": 2, "gripper": 3}, ["m2", "m1", "m3", "m4"]]
)
def test_names_are_read_in_every_form(tmp_path: Path, names: object) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(0, length=6)])
    features = dict(DatasetReader(root).features)
    features["action"] = features["action"] | {"names": names}
    change_info(root, features=features)
    assert [f.check for f in check_dataset(DatasetReader(root), WIDE).findings][:1] == ["body_differs"]


def test_a_set_that_describes_itself_twice_and_differently_is_refused(tmp_path: Path) -> None:
    root = own_set(tmp_path / "set", BODY, episode(0))
    change_info(root, fps=10)
    (finding,) = check_dataset(DatasetReader(root), BODY).findings
    assert (
        "control_hz: the set describes itself twice and differently: meta/actwright.json says 20, meta/info.json says 10" in finding.reason
    )


def test_a_set_without_cameras_is_named(tmp_path: Path) -> None:
    root = write_plain_set(tmp_path / "set", [plain_episode(0, length=6)])
    features = dict(DatasetReader(root).features)
    del features["observation.images.front"]
    change_info(root, features=features)
    assert [f.check for f in check_dataset(DatasetReader(root), WIDE).findings] == ["camera_missing"]
