"""Write a source of episodes as a set of another format, and read it back before it appears under its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.new_folder import new_folder
from components.config.records import Progress
from components.data.export.codecs import SENTENCES, codec_of
from components.data.export.comparison import Comparison, compare
from components.data.export.left_out import LeftOut
from components.data.export.lerobot_v21 import PlainV21
from components.data.export.lerobot_v30 import PlainV30
from components.data.export.plain_set import left_out_of, plain_spec
from components.data.export.report import ExportReport
from components.data.export.trace_labels import TraceLabels
from components.data.lerobot.reader import DatasetReader
from components.data.sources.interface import EpisodeSource

LEROBOT_FORMATS: Mapping[str, Any] = {"lerobot-v3.0": PlainV30, "lerobot-v2.1": PlainV21}


def export_lerobot(
    source: EpisodeSource, target: Path, progress: Progress, *, format_name: str, codec: str, traces: TraceLabels | None = None
) -> ExportReport:
    """Write a plain LeRobot folder. Every number is read back and compared exactly, every image as the codec allows, before it appears.

    traces: written into the language column, which only version 3.0 has. Raises `DatasetError` for what the format cannot hold, and where
    what is read back is not what was written.
    """
    spec = plain_spec(source)
    chosen, left_out, count = codec_of(codec, spec.cameras), LeftOut(place="plain sets have"), len(source.rows)
    with new_folder(target) as root:
        writer = LEROBOT_FORMATS[format_name](root, spec, chosen)
        try:
            for row in source.rows:
                episode = source.episode(row.index)
                writer.add(episode, **({} if traces is None else {"events": traces.column(episode)}))
                left_out.add(left_out_of(episode, spec))
                left_out.add_times(episode.timestamps_T, spec.fps)
                progress.update(row.index + 1, 2 * count, f"writing {row.episode_id}")
            writer.finish()
        finally:
            writer.close()
        reader = DatasetReader(root)
        try:
            found: Comparison = compare(source, reader, spec.held, progress, is_lossless=codec == "lossless")
            if traces is not None:
                traces.check(reader, [row.episode_id for row in source.rows])
        finally:
            reader.close()
    told = left_out.sentences("measured times are replaced by frame_index / fps")
    return ExportReport(
        episodes=count,
        frames=sum(row.length for row in source.rows),
        images=SENTENCES[codec] if spec.cameras else "no cameras",
        left_out=told if traces is None else (*told, *traces.sentences()),
        psnr_db=found.psnr_db,
        largest_difference=found.largest,
    )
