"""Each episode's images are decoded once in a run, however many stages look at them, and the results are the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.config.data_config import FreezeConfig, ValidateConfig
from components.config.records import Silent
from components.config.source_config import SourceConfig
from components.data.annotate import annotate
from components.data.freeze import freeze
from components.data.labelling.answered_frames import Kept
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.lerobot.reader import DatasetReader, DatasetWriter
from components.data.lerobot.video import VideoReader
from components.data.packing.kept_images import KeptImages
from components.data.sources.open import open_raw
from components.data.sources.raw_index import keep_places, write_index
from components.data.validate import validate
from model_core.spec.episode import Episode
from tests.integration.test_annotate import QUICK, content, episode

pytestmark = pytest.mark.xdist_group("gx")
EPISODES, FRAMES = 3, 12


@pytest.fixture
def dataset(tmp_path) -> Path:
    from components.simulation.metaworld import embodiment

    folder = tmp_path / "set"
    with DatasetWriter(folder, embodiment=embodiment()) as recorder:
        for number in range(EPISODES):
            recorder.add(replace(episode(number, FRAMES), embodiment="metaworld-sawyer"))
    return folder


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[str, int]]:
    """File and frame of every frame that was decoded."""
    frames: list[tuple[str, int]] = []
    read = VideoReader.read

    def counted(self: VideoReader, start: int, count: int) -> np.ndarray:
        frames.extend((self.path.name, frame) for frame in range(start, start + count))
        return read(self, start, count)

    monkeypatch.setattr(VideoReader, "read", counted)
    return frames


def looks(cfg: ValidateConfig, dataset: Path, out: Path, kept: KeptImages | None) -> None:
    """The stages that look at images, with annotators that do too; all judge every episode valid."""
    validate(cfg, dataset, out / "validate", Silent(), images=kept)
    valid = out / "valid.json"
    valid.write_text(json.dumps({row.episode_id: True for row in open_raw(dataset).rows}))
    cfg_labels = replace(QUICK, depth_annotator=f"{__name__}:looking_depth")
    shared = None if kept is None else Kept(answers=out / "answers", images=kept)
    annotate(cfg_labels, dataset, valid, out / "labels", Silent(), kept=shared)
    freeze(FreezeConfig(validation_fraction=0.3), dataset, out / "labels", out / "frozen", Silent(), images=kept)


def looking_depth(cfg):
    from components.data.annotators.simulator_truth import TruthDepth
    from tests.integration.test_annotate import Counting

    return Counting(TruthDepth())


@pytest.mark.soak  # short: the same with such a set among the sources, below
def test_a_run_decodes_each_frame_once_and_makes_the_same(dataset, decoded, tmp_path):
    cfg = ValidateConfig(data_docs=False, max_bad_fraction=1.0)
    looks(cfg, dataset, tmp_path / "each", None)
    several = len(decoded)
    decoded.clear()
    looks(cfg, dataset, tmp_path / "once", KeptImages(tmp_path / "images"))
    assert len(decoded) == len(set(decoded)) == EPISODES * FRAMES
    assert several == 4 * len(decoded)  # validate, twice annotate, freeze
    for name in ("validate", "labels", "frozen"):
        assert content(tmp_path / "each" / name) == content(tmp_path / "once" / name)


DRAWN: list[str] = []  # the ids of the episodes whose images `DrawnSource` was asked for


class DrawnSource:
    """Episodes of a kind of its own, which decodes nothing with our readers."""

    def __init__(self, cfg: SourceConfig) -> None:
        from components.simulation.metaworld import embodiment

        self.name, self.embodiment, self.digest = cfg.name, embodiment(), "d" * 64
        numbers = range(EPISODES, 2 * EPISODES)
        self._episodes = [replace(episode(number, FRAMES), embodiment=self.embodiment.name) for number in numbers]

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        known = ("episode_id", "task", "instruction", "success", "provenance")
        found = [{name: getattr(one, name) for name in known} for one in self._episodes]
        return tuple(EpisodeIndexRow(index=n, number=n, length=FRAMES, start=n * FRAMES, **row) for n, row in enumerate(found))

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        one = self._episodes[index]
        if images:
            DRAWN.append(one.episode_id)
        return replace(one, images=one.images if images else {}, depth_m=one.depth_m if depth else {})

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.soak  # short: what is kept is what was decoded, below
def test_a_run_with_sources_of_any_kind_decodes_each_frame_once_and_makes_the_same(dataset, decoded, tmp_path):
    sources = [
        SourceConfig(name="set", path=str(dataset)),
        SourceConfig(name="drawn", path=str(dataset), kind=f"{__name__}:DrawnSource"),
    ]
    write_index(sources, tmp_path / "raw", Silent())
    keep_places(tmp_path / "raw", sources)
    raw, cfg = tmp_path / "raw" / "dataset", ValidateConfig(data_docs=False, max_bad_fraction=1.0)
    DRAWN.clear()
    looks(cfg, raw, tmp_path / "each", None)
    assert len(decoded) == 4 * EPISODES * FRAMES
    assert len(DRAWN) == 4 * EPISODES
    decoded.clear()
    DRAWN.clear()
    looks(cfg, raw, tmp_path / "once", KeptImages(tmp_path / "images"))
    assert len(decoded) == len(set(decoded)) == EPISODES * FRAMES
    assert sorted(DRAWN) == [f"e-{number}" for number in range(EPISODES, 2 * EPISODES)]
    for name in ("validate", "labels", "frozen"):
        assert content(tmp_path / "each" / name) == content(tmp_path / "once" / name)
    kept = open_raw(raw, KeptImages(tmp_path / "images"))
    for row in kept.rows:
        assert np.array_equal(kept.episode(row.index).images["front"], open_raw(raw).episode(row.index).images["front"])


def test_what_is_kept_is_what_was_decoded_and_may_vanish_or_not_fit(dataset, decoded, tmp_path):
    plain = DatasetReader(dataset).episode(1).images["front"]
    kept = KeptImages(tmp_path / "images")
    reader = DatasetReader(dataset, kept)
    assert np.array_equal(reader.episode(1).images["front"], plain)
    assert np.array_equal(reader.episode(1).images["front"], plain)
    assert kept.decoded == 1
    torn = tmp_path / "images" / "1" / "000.npy"
    torn.write_bytes(torn.read_bytes()[:-7])
    assert np.array_equal(reader.episode(1).images["front"], plain)
    torn.unlink()
    assert np.array_equal(reader.episode(1).images["front"], plain)
    assert (kept.decoded, kept.left_out) == (3, 0)
    small = KeptImages(tmp_path / "small", most_bytes=plain.nbytes)
    narrow = DatasetReader(dataset, small)
    for index in (0, 1, 1):
        assert narrow.episode(index).images["front"].shape == plain.shape
    assert (small.decoded, small.left_out) == (3, 2)
    assert sum(path.stat().st_size for path in (tmp_path / "small").rglob("*.npy")) < plain.nbytes + 4096
