"""Packs: what goes in comes out, in any order, from this disk and from a DVC remote; one more episode is one more file."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.range_server import RangeServer
from components.adapters.dvc_files import add_folder
from components.adapters.storage.ranges import FolderRanges, HttpRanges, RangeStore
from components.data.packing.packs import PackWriter, open_packs, pack_files
from components.data.packing.remote import open_version
from components.data.packing.shuffled import ShuffledFrames
from model_core.spec.episode import CameraGeometry, Episode, Provenance
from model_core.spec.errors import DatasetError, SpecError, StorageError
from tests.fakes import make_embodiment


def episode(number: int, frames: int) -> Episode:
    rng = np.random.default_rng(number)
    geometry = CameraGeometry(width=8, height=6, intrinsics_33=np.eye(3), world_to_camera_44=np.eye(4) * 2)
    return Episode(
        episode_id=f"e-{number}",
        embodiment="arm",
        task="t",
        instruction=f"do {number}",
        success=None if number else True,
        provenance=Provenance(producer="teleop:x", cell="c", seed=number),
        images={name: rng.integers(0, 256, (frames, 6, 8, 3), np.uint8) for name in ("wrist", "front")},
        depth_m={},
        geometry={"front": geometry},
        proprio_TP=rng.normal(size=(frames, 5)).astype(np.float32),
        actions_TA=rng.normal(size=(frames, 4)).astype(np.float32),
        executed_TA=rng.normal(size=(frames, 4)).astype(np.float32),
        timestamps_T=np.arange(frames) / 20,
    )


LENGTHS = [5, 4, 7]


def packed(folder: Path, lengths: list[int] = LENGTHS) -> list[Episode]:
    made = [episode(number, frames) for number, frames in enumerate(lengths)]
    writer = PackWriter(folder=folder, frames_per_pack=10)
    for one in made:
        writer.add(one)
    writer.close()
    return made


def equal(found: Episode, made: Episode) -> bool:
    names = ("episode_id", "embodiment", "task", "instruction", "success", "provenance")
    arrays = ("proprio_TP", "actions_TA", "executed_TA", "timestamps_T")
    return (
        all(getattr(found, name) == getattr(made, name) for name in names)
        and all(np.array_equal(getattr(found, name), getattr(made, name)) for name in arrays)
        and all(np.array_equal(found.images[name], made.images[name]) for name in made.images)
        and np.array_equal(found.geometry["front"].world_to_camera_44, made.geometry["front"].world_to_camera_44)
        and found.tcp_T3 is None
    )


def test_episodes_come_back_and_one_more_is_one_more_file(tmp_path):
    made = packed(tmp_path / "a")
    assert [len(pack_files(tmp_path / "a")), *map(len, (found.read() for found in open_packs(tmp_path / "a")))] == [2, *LENGTHS]
    assert all(equal(found.read(), one) for found, one in zip(open_packs(tmp_path / "a"), made, strict=True))
    before = {path.name: path.read_bytes() for path in pack_files(tmp_path / "a")}
    writer = PackWriter(folder=tmp_path / "a")
    writer.add(episode(9, 3))
    (added,) = writer.close()
    assert added.name.startswith("000002-")
    assert {path.name: path.read_bytes() for path in pack_files(tmp_path / "a")} == {**before, added.name: added.read_bytes()}
    packed(tmp_path / "b")
    assert {path.name for path in pack_files(tmp_path / "b")} == set(before)
    assert equal(open_packs(tmp_path / "a")[3].read(), episode(9, 3))
    writer.add(replace(episode(10, 2), body=make_embodiment()))
    writer.close()
    assert [one.read().body for one in open_packs(tmp_path / "a")[3:]] == [None, make_embodiment()]


def test_where_a_person_acted_comes_back(tmp_path):
    flags = np.array([False, True, True])
    writer = PackWriter(folder=tmp_path)
    for one in (episode(0, 3), replace(episode(1, 3), intervention_T=flags)):
        writer.add(one)
    assert len(writer.close()) == 2
    silent, marked = (found.read().intervention_T for found in open_packs(tmp_path))
    assert silent is None
    np.testing.assert_array_equal(marked, flags)


def test_what_is_no_pack_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no pack"):
        open_packs(tmp_path)
    with pytest.raises(DatasetError, match="e-1 has no images"):
        PackWriter(folder=tmp_path).add(replace(episode(1, 2), images={}))
    packed(tmp_path)
    whole = pack_files(tmp_path)[0].read_bytes()
    for cut in (3, 40, len(whole) - 1):
        pack_files(tmp_path)[0].unlink()
        (tmp_path / "000000-x.safetensors").write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"000000-x.safetensors.*Fix: `dvc pull`"):
            open_packs(tmp_path)


def check_samples(frames: ShuffledFrames, made: list[Episode]) -> None:
    seen = []
    for sample in frames.epoch(1):
        one, row = made[sample.episode], sample.frame
        seen.append((sample.episode, row))
        assert all(np.array_equal(sample.images[name], one.images[name][row]) for name in one.images)
        assert np.array_equal(sample.proprio_P, one.proprio_TP[row])
        rows = np.minimum(np.arange(row, row + 3), len(one) - 1)
        assert np.array_equal(sample.actions_KA, one.actions_TA[rows])
        assert sample.is_padded_K.tolist() == (np.arange(row, row + 3) >= len(one)).tolist()
        assert sample.instruction == one.instruction
    assert sorted(seen) == [(number, frame) for number, one in enumerate(made) for frame in range(len(one))]
    assert seen != sorted(seen)


def test_every_frame_comes_once_in_an_order_of_seed_and_epoch_alone(tmp_path):
    made = packed(tmp_path)
    frames = ShuffledFrames(open_packs(tmp_path), seed=3, chunk=3)
    check_samples(frames, made)
    again = ShuffledFrames(open_packs(tmp_path), seed=3)
    assert frames.order(1).tolist() == again.order(1).tolist()
    assert frames.order(1).tolist() != frames.order(2).tolist()
    rest = [(one.episode, one.frame) for one in frames.epoch(1, start=10)]
    assert rest == [(one.episode, one.frame) for one in frames.epoch(1)][10:]
    assert len([*frames]) == len(frames) == sum(LENGTHS)


def test_frames_that_are_read_in_blocks_come_once_each_and_mixed(tmp_path):
    made = packed(tmp_path, [17, 4, 23, 16])
    for ahead in (0, 1, 5, 200):
        frames = ShuffledFrames(open_packs(tmp_path), seed=3, chunk=3, ahead=ahead, block=4, window=3)
        check_samples(frames, made)
        rest = [(one.episode, one.frame) for one in frames.epoch(1, start=31)]
        assert rest == [(one.episode, one.frame) for one in frames.epoch(1)][31:]
    orders = [frames.order(epoch).tolist() for epoch in (0, 1, 1)]
    assert orders[0] != orders[1] == orders[2]
    firsts = {start + place for start, length in ((0, 17), (17, 4), (21, 23), (44, 16)) for place in range(0, length, 4)}
    blocks = [max(first for first in firsts if first <= number) for number in orders[0]]
    assert len(set(blocks[:10])) >= 3
    assert sum(one != other for one, other in pairwise(blocks)) > 30  # of 59; frames of one block would follow each other in 44
    assert orders[0][:12] != sorted(orders[0][:12])
    with pytest.raises(SpecError, match="block and window must be at least 1"):
        ShuffledFrames(open_packs(tmp_path), seed=3, block=0)


def test_a_pushed_version_is_read_without_pulling_it(tmp_path):
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    made = packed(root / "packs")
    version = add_folder(root, root / "packs")
    remote = root / ".dvc" / "cache"  # a remote is laid out as the cache is
    images = sum(array.nbytes for one in made for array in one.images.values())
    with RangeServer(remote, latency_s=0.002) as server:
        stores: list[RangeStore] = [FolderRanges(remote), HttpRanges(server.url)]
        for store in stores:
            check_samples(ShuffledFrames(open_version(store, version.md5), seed=3, chunk=3, ahead=8), made)
        assert images <= server.sent < version.size + 5000  # nothing is fetched twice
        single, sent = server.asked["GET"], server.sent
        check_samples(ShuffledFrames(open_version(HttpRanges(server.url), version.md5), seed=3, chunk=3, ahead=8, block=4), made)
        assert images <= server.sent - sent < version.size + 5000
        assert server.asked["GET"] - single == single - 2 * (sum(LENGTHS) - 5)  # of two cameras: five blocks in place of sixteen frames
        with pytest.raises(StorageError, match="expected status 200, got 404"):
            open_version(HttpRanges(server.url), "0" * 32 + ".dir")
    listing = remote / "files" / "md5" / version.md5[:2] / version.md5[2:]
    listing.chmod(0o644)
    listing.write_bytes(listing.read_bytes().replace(b"md5", b"MD5"))
    with pytest.raises(StorageError, match="damaged"):
        open_version(FolderRanges(remote), version.md5)
    with pytest.raises(StorageError, match=r"Fix: `dvc push`"):
        open_version(FolderRanges(tmp_path / "nowhere"), version.md5)
