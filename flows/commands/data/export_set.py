"""`actwright data export`: a data set, edited or not, as a folder that other tools read."""

from __future__ import annotations

import datetime
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.data.edit_options import SetName
from flows.commands.data.progress_lines import ProgressLines
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.export.report import ExportReport
    from components.data.sources.interface import EpisodeSource

# format -> the codecs of its images, the usual one first
FORMATS = {"lerobot-v3.0": ("lossless", "h264", "av1"), "lerobot-v2.1": ("lossless", "h264", "av1"), "mcap": ("lossless", "jpeg")}

Traces = Annotated[
    Path | None,
    typer.Option("--traces", help="lerobot-v3.0: also the traces of this finished annotation, as a language column", metavar="LABELS"),
]


def export_set(
    data_set: SetName,
    folder: Annotated[Path, typer.Argument(help="the new folder", metavar="FOLDER")],
    format_name: Annotated[str, typer.Option("--format", help=", ".join(FORMATS))] = "lerobot-v3.0",
    codec: Annotated[
        str, typer.Option("--codec", help="how images are stored: lossless; or smaller and lossy: h264, av1 (LeRobot), jpeg (mcap)")
    ] = "lossless",
    embodiment: Annotated[
        str, typer.Option("--embodiment", help="mcap: the embodiment file of a set that does not describe its robot", metavar="FILE")
    ] = "",
    traces: Traces = None,
) -> None:
    """Write a data set as a folder for public readers; what it cannot hold is told, and everything is read back and compared.

    The folder appears when it is finished and equal, or not at all. One of robot logs (mcap: an MCAP file of ROS 2 messages for each
    episode) has its mapping.yaml and embodiment.yaml beside them, with which a recipe reads it as a source of kind mcap.

    Example: actwright data export pick-clean exports/pick-v3
    Example: actwright data export recordings/pick exports/pick-v21 --format lerobot-v2.1 --codec av1
    Example: actwright data export pick-clean exports/pick-logs --format mcap --embodiment so101.yaml
    Example: actwright data export data/collect exports/pick-traces --traces data/annotate
    """
    from flows.pipeline.data_sets import open_sets, record
    from flows.platform.wiring import open_platform

    _check(format_name, codec, embodiment, traces)
    platform = open_platform()
    (opened,) = open_sets(platform, [data_set])
    try:
        if format_name == "mcap":
            told = _export_logs(opened.source, folder, codec, embodiment)
        else:
            told = _export_lerobot(opened.source, folder, format_name, codec, traces)
    finally:
        opened.source.close()
    _tell(told, folder)
    print_result(
        path=str(folder),
        format=format_name,
        codec=codec,
        episodes=told.episodes,
        frames=told.frames,
        left_out=told.left_out,
        psnr_db=told.psnr_db,
        largest_difference=told.largest_difference,
        source=opened.digest,
        version=record(platform, folder),
    )


def _check(format_name: str, codec: str, embodiment: str, traces: Path | None) -> None:
    if format_name not in FORMATS:
        raise typer.BadParameter(f"--format {format_name!r}: expected one of {', '.join(FORMATS)}")
    if codec not in FORMATS[format_name]:
        raise typer.BadParameter(f"--codec {codec!r}: expected one of {', '.join(FORMATS[format_name])} for {format_name}")
    if embodiment and format_name != "mcap":
        raise typer.BadParameter("--embodiment: a LeRobot folder has no place for an embodiment file; leave it out, or use --format mcap")
    if traces is not None and format_name != "lerobot-v3.0":
        raise typer.BadParameter(f"--traces: {format_name} has no place for a language column; use --format lerobot-v3.0")


def _tell(told: ExportReport, folder: Path) -> None:
    for line in told.left_out:
        print_line(line)
    lost = "" if told.psnr_db is None else f" ({told.psnr_db:.1f} dB, at most {told.largest_difference} of 255 in a pixel)"
    print_line(f"images are {told.images}{lost}")
    print_line(f"export: {told.episodes} episodes, {told.frames} frames, read back and compared, in {folder}")


def _export_lerobot(source: EpisodeSource, folder: Path, format_name: str, codec: str, labels: Path | None) -> ExportReport:
    from components.data.export.export import export_lerobot
    from components.data.export.trace_labels import read_trace_labels

    traces = None if labels is None else read_trace_labels(labels)
    return export_lerobot(source, folder, ProgressLines(), format_name=format_name, codec=codec, traces=traces)


def _export_logs(source: EpisodeSource, folder: Path, codec: str, embodiment: str) -> ExportReport:
    from components.data.embodiments.file import find_file
    from components.data.export.mcap.export_logs import Described, export_logs

    described = Described(
        given=find_file(embodiment) if embodiment else None,
        signed_by=f"the set's own description, exported by {getpass.getuser()}",
        on=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return export_logs(source, folder, ProgressLines(), codec=codec, described=described)
