"""Frozen data: no leak between splits, exact windows, equal bytes, and refusals of what would teach something wrong.

Run: .venv/bin/python -m pytest tests/unit/test_freeze.py
"""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from components.artifacts.step_manifest import folder_digests
from components.config.data_config import FreezeConfig
from components.data.freeze import freeze, split_of, windows
from components.data.frozen_dataset import load_split, read_frozen, sample_observations
from components.data.labels import EpisodeLabels, read_labels, write_labels
from model_core.spec.contract import DimSpec, EmbodimentSpec, PolicyContract, VectorSpec
from model_core.spec.errors import DatasetError
from model_core.tokenization.depth.codec import DepthCodec
from model_core.tokenization.depth.config import compact_depth
from model_core.tokenization.depth.vqvae import DepthVqvae
from tests.episodes import BODY, Tally, episode, write_dataset

EPISODES = [episode(i, length=9 + i) for i in range(10)]


def label(folder, episodes, *, skip=None):
    rng = np.random.default_rng(0)
    rows = [(e.episode_id, t) for e in episodes for t in range(len(e)) if (e.episode_id, t) != skip]
    codes = rng.integers(0, 128, (len(rows), 100)).astype(np.uint8)
    traces = [[10, 20] * (1 + t % 5) for _, t in rows]
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    DepthCodec(DepthVqvae(compact_depth())).save(folder / "vqvae")
    table = {
        "episode_id": [r[0] for r in rows],
        "frame_index": [r[1] for r in rows],
        "depth_codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), 100),
        "trace": pa.array(traces, pa.list_(pa.int16())),
    }
    pq.write_table(pa.table(table), folder / "labels" / "labels-00000.parquet")
    (folder / "annotators.json").write_text(json.dumps({"depth": "truth/1"}))
    return codes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("freeze")
    dataset = write_dataset(root / "dataset", EPISODES)
    codes = label(root, EPISODES)
    out = root / "out"
    record = freeze(
        FreezeConfig(chunk_length=4, execute_horizon=4, frames_per_shard=40, validation_fraction=0.3), dataset, root, out, Tally()
    )
    return root, out, record, codes


def body_of_modes(*modes: str, hold: float | None = None) -> EmbodimentSpec:
    dims = tuple(DimSpec(name=f"d{i}", unit="m", low=-5, high=5, mode=mode) for i, mode in enumerate(modes))
    return replace(BODY, action=VectorSpec(dims=dims), hold=(hold,) * len(modes), gripper_dim="")


def test_past_the_end_of_an_episode_stands_what_holds_the_body_and_it_is_marked():
    actions = np.linspace(0.25, 2, 8, dtype=np.float32).reshape(4, 2)
    found, is_padded = windows(actions, np.array([0, 2, 3]), 4, body_of_modes("delta", "absolute"))
    assert found[0].tolist() == actions.tolist()
    last = float(actions[3, 1])
    assert found[1].tolist() == [actions[2].tolist(), actions[3].tolist(), [0, last], [0, last]]
    assert found[2].tolist() == [actions[3].tolist(), *([[0, last]] * 3)]
    assert is_padded.tolist() == [[False] * 4, [False, False, True, True], [False, True, True, True]]


@pytest.mark.parametrize(
    ("mode", "hold", "expected"), [("velocity", None, 0.0), ("relative", None, 2.0), ("absolute", 0.25, 0.25), ("delta", -0.5, -0.5)]
)
def test_what_holds_a_body_is_of_its_mode_or_what_it_says_itself(mode, hold, expected):
    found, _ = windows(np.array([[1.0], [2.0]], np.float32), np.array([1]), 3, body_of_modes(mode, hold=hold))
    assert found[0, :, 0].tolist() == [2.0, expected, expected]


def test_a_gripper_keeps_its_last_command_past_the_end():
    actions = np.full((3, 4), 0.5, np.float32)
    found, _ = windows(actions, np.array([2]), 2, BODY)
    assert found[0, 1].tolist() == [0, 0, 0, 0.5]


def test_the_split_is_by_hash_and_stays_when_data_grows():
    ids = [f"e{i}" for i in range(400)]
    small, large = split_of(ids[:200], 0.1), split_of(ids, 0.1)
    moved = [e for e in ids[:200] if small[e] != large[e]]
    assert moved == []
    share = sum(v == "validation" for v in large.values()) / 400
    assert 0.05 < share < 0.16


def test_two_episodes_are_split_in_two():
    assert sorted(split_of(["a", "b"], 0.01).values()) == ["train", "validation"]


def test_shards_hold_the_samples_of_their_split_and_no_other(made):
    _, out, record, codes = made
    manifest = json.loads((out / "manifest.json").read_text())
    assert not set(manifest["split"]["train"]) & set(manifest["split"]["validation"])
    assert sorted(manifest["split"]["train"] + manifest["split"]["validation"]) == sorted(e.episode_id for e in EPISODES)
    assert len([s for s in manifest["shards"] if "train" in s["file"]]) > 1
    starts = dict(zip([e.episode_id for e in EPISODES], np.cumsum([0, *[len(e) for e in EPISODES]])[:-1], strict=True))
    by_id = {e.episode_id: e for e in EPISODES}
    for shard in manifest["shards"]:
        path = out / shard["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
        tensors = load_file(path)
        side = "train" if "train" in shard["file"] else "validation"
        assert tensors["images_NVHW3"].shape == (shard["frames"], 1, 32, 32, 3)
        for n in range(shard["frames"]):
            source = by_id[manifest["episodes"][tensors["episode_idx_N"][n]]]
            t = int(tensors["frame_idx_N"][n])
            assert source.episode_id in manifest["split"][side]
            assert np.array_equal(tensors["images_NVHW3"][n, 0], source.images["front"][t])
            rest = min(4, len(source) - t)
            assert np.array_equal(tensors["actions_NKA"][n], windows(source.actions_TA, np.array([t]), 4, BODY)[0][0])
            assert np.array_equal(tensors["actions_NKA"][n, :rest], source.actions_TA[t : t + rest])
            assert np.array_equal(tensors["executed_NKA"][n], windows(source.executed_TA, np.array([t]), 4, BODY)[0][0])
            assert tensors["is_padded_NK"][n].tolist() == [k >= rest for k in range(4)]
            assert np.array_equal(tensors["depth_codes_NG"][n], codes[starts[source.episode_id] + t])
            assert tensors["trace_len_N"][n] == 1 + t % 5
            assert (tensors["trace_N52"][n, 1 + t % 5 :] == -1).all()
            assert manifest["instructions"][tensors["instruction_idx_N"][n]] == source.instruction
            assert manifest["tasks"][tensors["task_idx_N"][n]] == source.task
    assert record["frames"] == sum(len(e) for e in EPISODES)


def test_the_contract_promises_the_training_split(made):
    root, out, record, _ = made
    contract = PolicyContract.from_json(json.loads((out / "contract.json").read_text()))
    manifest = json.loads((out / "manifest.json").read_text())
    assert contract.contract_id == manifest["contract_id"] == record["contract_id"]
    train = np.concatenate([e.actions_TA for e in EPISODES if e.episode_id in manifest["split"]["train"]]).astype(np.float64)
    assert np.allclose(contract.stats.q01, np.quantile(train, 0.01, axis=0))
    assert contract.stats.mask == (True, True, True, False)
    assert contract.stats.count == len(train)
    assert contract.words == ("button", "close", "drawer", "green", "push", "the")
    assert contract.reasoning.codebook_digest == DepthCodec.load(out / "vqvae").digest == DepthCodec.load(root / "vqvae").digest
    assert manifest["labels"] == {"depth": "truth/1"}


def test_the_loader_of_training_reads_it(made):
    split = load_split(made[1], "train")
    assert len(split) == made[2]["train_frames"]
    assert split.is_padded_NK is not None
    ends = len(json.loads((made[1] / "manifest.json").read_text())["split"]["train"])
    assert split.is_padded_NK.sum(axis=0).tolist() == [0, ends, 2 * ends, 3 * ends], "the last three frames of every episode"


def test_labels_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    labels = {}
    for episode_id, length in (("b", 3), ("a", 7)):
        trace = rng.integers(0, 256, (length, 5, 2)).astype(np.int16)
        for t in range(length):
            trace[t, 1 + t % 5 :] = -1
        labels[episode_id] = EpisodeLabels(codes_TG=rng.integers(0, 256, (length, 100)).astype(np.uint8), trace_T52=trace)
    write_labels(tmp_path / "labels", labels, {"depth": "truth/1"})
    found = read_labels(tmp_path / "labels")
    assert list(found) == ["b", "a"]
    for episode_id, expected in labels.items():
        for name, array in expected.samples(np.arange(len(expected))).items():
            got = found[episode_id].samples(np.arange(len(expected)))[name]
            assert got.dtype == array.dtype
            assert np.array_equal(got, array)
    assert found["a"].samples(np.array([1, 4]))["trace_len_N"].tolist() == [2, 5]
    first = (tmp_path / "labels" / "labels-00000.parquet").read_bytes()
    write_labels(tmp_path / "labels", labels, {"depth": "truth/1"})
    assert (tmp_path / "labels" / "labels-00000.parquet").read_bytes() == first


@pytest.mark.parametrize("points", [[], [1, 2, 3], [10, 300], [1, 2] * 6])
def test_a_trace_that_is_none_is_refused(tmp_path, points):
    (tmp_path / "labels").mkdir()
    codes = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(100, np.uint8)), 100)
    table = {"episode_id": ["a"], "frame_index": [0], "depth_codes": codes, "trace": pa.array([points], pa.list_(pa.int16()))}
    pq.write_table(pa.table(table), tmp_path / "labels" / "labels-00000.parquet")
    with pytest.raises(DatasetError, match=r"column trace: expected 1\.\.5 entries within 0\.\.255"):
        read_labels(tmp_path / "labels")


def test_sampled_observations_are_of_the_validation_split(made):
    contract = PolicyContract.from_json(json.loads((made[1] / "contract.json").read_text()))
    validation = load_split(made[1], "validation")
    found = sample_observations(made[1], 4, contract)
    assert len(found) == 4
    assert all(any(np.array_equal(o.images["front"], images[0]) for images in validation.images_NVHW3) for o in found)


def test_freezing_again_gives_the_same_bytes(made, tmp_path):
    root, out, record, _ = made
    cfg = FreezeConfig(chunk_length=4, execute_horizon=4, frames_per_shard=40, validation_fraction=0.3)
    again = freeze(cfg, root / "dataset", root, tmp_path / "again", Tally())
    assert again == record
    assert folder_digests(tmp_path / "again") == folder_digests(out)


def test_a_stride_thins_frames_but_not_chunks(made, tmp_path):
    root = made[0]
    freeze(FreezeConfig(chunk_length=4, execute_horizon=4, frame_stride=3), root / "dataset", root, tmp_path / "out", Tally())
    shard = load_file(tmp_path / "out/shards/train-00000.safetensors")
    assert set(np.unique(shard["frame_idx_N"] % 3)) == {0}
    source = EPISODES[int(shard["episode_idx_N"][1])]
    assert np.array_equal(shard["actions_NKA"][1], windows(source.actions_TA, shard["frame_idx_N"][1:2], 4, BODY)[0][0])


def test_an_episode_without_labels_is_left_out_and_a_hole_is_refused(made, tmp_path):
    label(tmp_path / "some", EPISODES[:6])
    record = freeze(FreezeConfig(), made[0] / "dataset", tmp_path / "some", tmp_path / "out", Tally())
    assert record["episodes"] == 6
    label(tmp_path / "hole", EPISODES, skip=(EPISODES[2].episode_id, 4))
    with pytest.raises(DatasetError, match=r"square-0002 skip a frame"):
        read_labels(tmp_path / "hole" / "labels")
    label(tmp_path / "short", EPISODES, skip=(EPISODES[2].episode_id, len(EPISODES[2]) - 1))
    with pytest.raises(DatasetError, match=r"square-0002 has 11 frames but labels for 10"):
        freeze(FreezeConfig(), made[0] / "dataset", tmp_path / "short", tmp_path / "out2", Tally())


def test_stale_statistics_are_refused(made, tmp_path):
    dataset = shutil.copytree(made[0] / "dataset", tmp_path / "dataset")
    stats = json.loads((dataset / "meta/stats.json").read_text())
    stats["action"]["std"][0] *= 1.5
    (dataset / "meta/stats.json").write_text(json.dumps(stats))
    with pytest.raises(DatasetError, match=r"statistics are stale: .*action std"):
        freeze(FreezeConfig(), dataset, made[0], tmp_path / "out", Tally())


def test_a_mask_of_another_body_is_refused(made, tmp_path):
    with pytest.raises(DatasetError, match=r"mask has 2 values"):
        freeze(FreezeConfig(mask=(True, False)), made[0] / "dataset", made[0], tmp_path / "out", Tally())


def test_statistics_of_an_earlier_checkpoint_are_kept_and_of_other_actions_refused(made, tmp_path):
    root, out = made[0], made[1]
    earlier = json.loads((out / "contract.json").read_text())
    contract = PolicyContract.from_json(earlier)
    wider = replace(
        contract.stats, q01=tuple(low - 0.25 for low in contract.stats.q01), q99=tuple(high + 0.5 for high in contract.stats.q99)
    )
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "contract.json").write_text(json.dumps(replace(contract, stats=wider).to_json()))
    freeze(FreezeConfig(statistics=str(tmp_path / "start")), root / "dataset", root, tmp_path / "kept", Tally())
    assert read_frozen(tmp_path / "kept")[1].stats == wider
    action = contract.embodiment.action
    other = replace(contract.embodiment, action=replace(action, dims=(replace(action.dims[0], unit="mm"), *action.dims[1:])))
    (tmp_path / "start" / "contract.json").write_text(json.dumps(replace(contract, embodiment=other).to_json()))
    with pytest.raises(DatasetError, match=r"freeze.statistics .*expected statistics of .*got .*'mm'.*Fix: name a checkpoint of the same"):
        freeze(FreezeConfig(statistics=str(tmp_path / "start")), root / "dataset", root, tmp_path / "refused", Tally())
