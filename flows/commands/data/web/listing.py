"""`actwright data web`: the image and text pairs of files, checked and listed for a training of the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.data.progress_lines import ProgressLines
from flows.terminal.output import print_line, print_result


def web(
    files: Annotated[Path, typer.Argument(help="Parquet, JSON or JSONL files: a folder of them, or one", exists=True)],
    out: Annotated[Path, typer.Option(help="the folder to write the listing into", file_okay=False)],
    images: Annotated[
        Path | None, typer.Option(help="where the image files of JSON rows lie, if not beside them", exists=True, file_okay=False)
    ] = None,
    hold_out: Annotated[float, typer.Option(help="share of the images that is held out, to measure the loss on")] = 0.02,
) -> None:
    """List image and text pairs of the web, for a training of a published network: each row is a pair, or set aside with its reason.

    Two layouts are read: Parquet with columns image and conversations (the published mixtures, LLaVA on the Hub), and LLaVA's JSON or JSONL
    beside image files. Images are decoded once and stay where they are.

    Example: actwright data web mixtures/lvis --out web/lvis
    Example: actwright data web llava/pairs.json --images coco --out web/llava
    """
    from components.data.web_pairs.listing import ASIDE, make_listing

    found = make_listing(files, out, ProgressLines(), images=images, hold_out=hold_out)
    print_line(f"{found.rows:,} rows in {len(found.files)} files: {found.pairs:,} pairs with {found.questions:,} questions listed in {out}")
    print_line(f"{found.held_out:,} of them are held out")
    for reason, count in found.set_aside.items():
        print_line(f"{count:>8,} set aside: {reason}")
    if found.set_aside:
        print_line(f"each of these with its place: {out / ASIDE}")
    print_line(f'train on it: --set \'train.published.web=[{{"name": "{out.resolve().name}", "path": "{out.resolve()}", "rate": 0.05}}]\'')
    print_result(
        out=str(out),
        rows=found.rows,
        pairs=found.pairs,
        questions=found.questions,
        held_out=found.held_out,
        set_aside=found.set_aside,
        rows_sha256=found.rows_sha256,
    )
