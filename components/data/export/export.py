"""Write a source of episodes as a set of another format, and read it back before it appears under its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.new_folder import new_folder
from components.config.records import Progress
from components.data.export.codecs import SENTENCES, codec_of
from components.data.export.comparison import Comparison, compare
from components.data.export.lerobot_v21 import PlainV21
from components.data.export.lerobot_v30 import PlainV30
from components.data.export.plain_set import LeftOut, plain_spec
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource

LEROBOT_FORMATS: Mapping[str, Any] = {"lerobot-v3.0": PlainV30, "lerobot-v2.1": PlainV21}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written. images: how they are stored, and what that lost. left_out: what the set does not hold."""

    episodes: int
    frames: int
    images: str
    left_out: tuple[str, ...]
    psnr_db: float | None
    largest_difference: int


def export_lerobot(source: EpisodeSource, target: Path, progress: Progress, *, format_name: str, codec: str) -> ExportReport:
    """Write a plain LeRobot folder. Every number is read back and compared exactly, every image as the codec allows, before it appears.

    Raises `DatasetError` for what the format cannot hold, and where what is read back is not what was written.
    """
    spec = plain_spec(source)
    chosen, left_out, count = codec_of(codec, spec.cameras), LeftOut(), len(source.rows)
    with new_folder(target) as root:
        writer = LEROBOT_FORMATS[format_name](root, spec, chosen)
        try:
            for row in source.rows:
                episode = source.episode(row.index)
                writer.add(episode)
                left_out.add(episode, spec)
                progress.update(row.index + 1, 2 * count, f"writing {row.episode_id}")
            writer.finish()
        finally:
            writer.close()
        reader = DatasetReader(root)
        try:
            found: Comparison = compare(source, reader, spec, progress, is_lossless=codec == "lossless")
        finally:
            reader.close()
    return ExportReport(
        episodes=count,
        frames=sum(row.length for row in source.rows),
        images=SENTENCES[codec] if spec.cameras else "no cameras",
        left_out=left_out.sentences(),
        psnr_db=found.psnr_db,
        largest_difference=found.largest,
    )
