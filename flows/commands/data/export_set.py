"""`actwright data export`: a data set, edited or not, as a folder that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.data.edit_options import SetName
from flows.commands.data.progress_lines import ProgressLines
from flows.terminal.output import print_line, print_result

FORMATS = ("lerobot-v3.0", "lerobot-v2.1")
CODECS = ("lossless", "h264", "av1")


def export_set(
    data_set: SetName,
    folder: Annotated[Path, typer.Argument(help="the new folder", metavar="FOLDER")],
    format_name: Annotated[str, typer.Option("--format", help=", ".join(FORMATS))] = FORMATS[0],
    codec: Annotated[str, typer.Option("--codec", help="how images are stored: lossless, or smaller and lossy: h264, av1")] = CODECS[0],
) -> None:
    """Write a data set as a plain folder for public readers; what it cannot hold is told, and everything is read back and compared.

    The folder appears when it is finished and equal, or not at all.

    Example: actwright data export pick-clean exports/pick-v3
    Example: actwright data export recordings/pick exports/pick-v21 --format lerobot-v2.1 --codec av1
    """
    from components.data.export.export import export_lerobot
    from flows.pipeline.data_sets import open_sets, record
    from flows.platform.wiring import open_platform

    for option, value, known in (("--format", format_name, FORMATS), ("--codec", codec, CODECS)):
        if value not in known:
            raise typer.BadParameter(f"{option} {value!r}: expected one of {', '.join(known)}")
    platform = open_platform()
    (opened,) = open_sets(platform, [data_set])
    try:
        told = export_lerobot(opened.source, folder, ProgressLines(), format_name=format_name, codec=codec)
    finally:
        opened.source.close()
    for line in told.left_out:
        print_line(line)
    lost = "" if told.psnr_db is None else f" ({told.psnr_db:.1f} dB, at most {told.largest_difference} of 255 in a pixel)"
    print_line(f"images are {told.images}{lost}")
    print_line(f"export: {told.episodes} episodes, {told.frames} frames, read back and compared, in {folder}")
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
