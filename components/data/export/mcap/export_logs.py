"""Write a source of episodes as a folder of robot logs, and read it back by its own mapping before it appears under its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.new_folder import new_folder
from components.config.records import Progress
from components.data.embodiments.file import read_embodiment
from components.data.embodiments.of_spec import document_of_spec
from components.data.embodiments.writing import text_of
from components.data.export.comparison import Held, compare
from components.data.export.left_out import LeftOut
from components.data.export.mcap.log_spec import LogSpec, left_out_of, log_spec
from components.data.export.mcap.log_writer import write_log
from components.data.export.report import ExportReport
from components.data.sources.interface import EpisodeSource
from components.data.sources.mcap.mapping import read_mapping
from components.data.sources.mcap.open import MAPPING
from components.data.sources.mcap.source import SUFFIX, McapSource
from model_core.spec.contract import mismatches
from model_core.spec.errors import DatasetError

EMBODIMENT = "embodiment.yaml"
# --codec -> (format of the images, what that does to them)
LOG_CODECS: Mapping[str, tuple[str, str]] = {
    "lossless": ("png", "lossless: PNG, every pixel is kept"),
    "jpeg": ("jpeg", "lossy: JPEG of quality 95, the colour of every pixel is kept apart"),
}
_MAPPING_HEAD = f"""\
# How these logs become episodes: every step has one message of each topic, so nothing is resampled.
# Units, ranges and modes of the numbers are in {EMBODIMENT}. As a source of a recipe:
#   {{"name": "...", "kind": "mcap", "path": "THIS FOLDER", "embodiment": "THIS FOLDER/{EMBODIMENT}"}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The embodiment file of the folder. given: one that a person signed; None writes the set's own description, with signed_by and on."""

    given: Path | None
    signed_by: str
    on: str


def export_logs(source: EpisodeSource, target: Path, progress: Progress, *, codec: str, described: Described) -> ExportReport:
    """Write one MCAP file an episode, `mapping.yaml` and `embodiment.yaml`. Numbers, and images as the codec allows, are read back.

    Raises `DatasetError` for what a log cannot hold, and where what is read back is not what was written.
    """
    spec = log_spec(source, None if described.given is None else read_embodiment(described.given))
    image_format, said = LOG_CODECS[codec]
    left_out, count = LeftOut(place="logs have"), len(source.rows)
    with new_folder(target) as root:
        for row, name in zip(source.rows, spec.files, strict=True):
            episode = source.episode(row.index)
            write_log(root / f"{name}{SUFFIX}", episode, spec, image_format)
            left_out.add(left_out_of(episode, spec))
            left_out.add_times(episode.timestamps_T, float(spec.body.control_hz))
            progress.update(row.index + 1, 2 * count, f"writing {row.episode_id}")
        (root / MAPPING).write_text(_MAPPING_HEAD + _yaml(spec.mapping()), encoding="utf-8")
        (root / EMBODIMENT).write_text(_embodiment_text(source, spec, described), encoding="utf-8")
        written = _opened(root, spec)
        held = Held(
            rate_hz=float(spec.body.control_hz),
            has_success=True,
            has_intervention=spec.has_intervention,
            has_tool_centre=spec.has_tool_centre,
        )
        try:
            found = compare(source, written, held, progress, is_lossless=codec == "lossless")
        finally:
            written.close()
    renamed = [f"{row.episode_id} is {name}{SUFFIX}" for row, name in zip(source.rows, spec.files, strict=True) if row.episode_id != name]
    told = (f"files are numbered to keep the order of the episodes, for example {renamed[0]}",) if renamed else ()
    return ExportReport(
        episodes=count,
        frames=sum(row.length for row in source.rows),
        images=said,
        left_out=(*left_out.sentences("log times are those of the steps; a message's own stamp is the measured time"), *told),
        psnr_db=found.psnr_db,
        largest_difference=found.largest,
    )


def _opened(root: Path, spec: LogSpec) -> McapSource:
    """The folder as anybody reads it. Raises `DatasetError` where its embodiment or an episode is not read as it was written."""
    body = read_embodiment(root / EMBODIMENT)
    if odd := [m.field for m in mismatches(spec.body, body)]:
        raise DatasetError(
            f"an embodiment file cannot say {', '.join(odd)} as this set's own description does. Fix: name a file with --embodiment"
        )
    written = McapSource(root, read_mapping(root / MAPPING), body)
    rows = written.rows
    if written.refused:
        name, reason = next(iter(written.refused.items()))
        raise DatasetError(f"{name}, as it was written, is refused: {reason}")
    if tuple(row.episode_id for row in rows) != spec.files:
        raise DatasetError("the files are read in another order than they were written. Fix: report it with their names")
    return written


def _embodiment_text(source: EpisodeSource, spec: LogSpec, described: Described) -> str:
    if described.given is not None:
        return described.given.read_text(encoding="utf-8")
    confirmed = {"by": described.signed_by, "on": described.on}
    note = f"What {source.name} says of the robot that recorded it, as it was exported."
    return text_of({**document_of_spec(spec.body), "note": note, "confirmed": confirmed})


def _yaml(document: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
