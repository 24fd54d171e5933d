"""The listing of image and text pairs: which rows of which files are trained on, which are held out, which were set aside and why.

    <folder>/rows.parquet      a row for each pair: file, row, image (path, SHA-256, size), texts, held out or not
    <folder>/set_aside.jsonl   a line for each other row: file, row, reason, detail
    <folder>/listing.json      counts, files with their sizes, digest of rows.parquet; written last

Images stay where they are and are compared with their digest whenever they are read. Which rows are held out follows from the image's
digest alone, so that two rows about one image are on one side.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.files import sha256_file
from components.config.records import Progress
from components.data.web_pairs.checks import TWICE, Pair, SetAside, judge
from components.data.web_pairs.layouts import PARQUET, data_files, rows_of
from model_core.spec.errors import DatasetError, require
from model_core.spec.files import atomic_target, atomic_write

FORMAT = 1
LISTING, ROWS, ASIDE = "listing.json", "rows.parquet", "set_aside.jsonl"
_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file that was read. path: relative to the root. bytes: its size; of a Parquet file, whose images are read again."""

    path: str
    bytes: int
    rows: int
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What was found. root, images: the folder of the files, and the one in which image files are named, relative to the listing.

    hold_out: the share that is held out. rows: read. pairs: listed, `held_out` of them held out. questions: in all pairs. set_aside:
    reason -> rows. rows_sha256: of rows.parquet.
    """

    root: str
    images: str
    hold_out: float
    rows: int
    pairs: int
    held_out: int
    questions: int
    rows_sha256: str
    files: tuple[ListedFile, ...]
    set_aside: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT


def make_listing(place: Path, out: Path, progress: Progress, *, images: Path | None = None, hold_out: float = 0.02) -> Listing:
    """Read every row of `place` (a file or folder) and write the listing into `out`. images: where image files lie (default: beside the
    rows). Raises `DatasetError` for files of another layout, for rows of which none is a pair, and for a folder that has a listing.
    """
    require(0 <= hold_out < 1, "hold_out must be 0 or more, below 1", got=hold_out)
    require(not (out / LISTING).exists(), f"{out} has a listing already. Fix: name another folder, or delete it", error=DatasetError)
    paths = data_files(place)
    root = place if place.is_dir() else place.parent
    images = root if images is None else images
    counted = _Counts()
    with atomic_target(out / ROWS) as rows_file, atomic_target(out / ASIDE) as aside_file:
        _write_rows(_judged(paths, root, images, counted, progress), rows_file, aside_file, hold_out, counted)
        require(counted.pairs > 0, f"{place}: none of {counted.rows} rows is an image with questions and answers"
                f"{counted.worst()}", error=DatasetError)  # fmt: skip
        digest = sha256_file(rows_file)
    listing = Listing(
        root=os.path.relpath(root.resolve(), out.resolve()),
        images=os.path.relpath(images.resolve(), out.resolve()),
        hold_out=hold_out,
        rows=counted.rows,
        pairs=counted.pairs,
        held_out=counted.held_out,
        questions=counted.questions,
        rows_sha256=digest,
        files=tuple(counted.files),
        set_aside=dict(counted.aside.most_common()),
    )
    atomic_write(out / LISTING, json.dumps(asdict(listing), indent=1))
    return listing


def is_held_out(sha256: bytes, share: float) -> bool:
    """Whether an image is held out, by its digest."""
    return int.from_bytes(sha256[:8], "big") < share * 2**64


@dataclass(slots=True)
class _Counts:
    rows: int = 0
    pairs: int = 0
    held_out: int = 0
    questions: int = 0
    aside: Counter[str] = field(default_factory=Counter)
    files: list[ListedFile] = field(default_factory=list)

    def worst(self) -> str:
        return "".join(f"; {count} x {reason}" for reason, count in self.aside.most_common(2))


_Judged = tuple[int, str, Pair | SetAside]  # number and path of the file, what its row is


def _judged(paths: list[Path], root: Path, images: Path, counted: _Counts, progress: Progress) -> Iterator[_Judged]:
    seen: set[bytes] = set()
    for number, path in enumerate(paths):
        name, rows, pairs = path.relative_to(root).as_posix(), 0, 0
        for raw in rows_of(path):
            found = judge(raw, images)
            if isinstance(found, Pair):
                if found.content in seen:
                    found = SetAside(row=found.row, reason=TWICE)
                else:
                    seen.add(found.content)
                    pairs += 1
            rows += 1
            counted.rows += 1
            if counted.rows % _BLOCK == 0:
                progress.update(number, len(paths), f"files read, {counted.rows:,} rows")
            yield number, name, found
        counted.files.append(ListedFile(path=name, bytes=path.stat().st_size if path.suffix == PARQUET else 0, rows=rows, pairs=pairs))
        counted.pairs += pairs


def _write_rows(judged: Iterator[_Judged], rows_file: Path, aside_file: Path, hold_out: float, counted: _Counts) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    schema = row_schema()
    block: list[dict[str, Any]] = []
    with parquet.ParquetWriter(rows_file, schema) as writer, aside_file.open("w", encoding="utf-8") as aside:
        for number, name, found in judged:
            if isinstance(found, SetAside):
                counted.aside[found.reason] += 1
                aside.write(json.dumps({"file": name, **asdict(found)}) + "\n")
                continue
            held = is_held_out(found.sha256, hold_out)
            counted.held_out += held
            counted.questions += len(found.questions)
            block.append({"file": number, "held_out": held, **asdict(found)})
            if len(block) == _BLOCK:
                writer.write_table(pyarrow.Table.from_pylist(block, schema))
                block = []
        if block:
            writer.write_table(pyarrow.Table.from_pylist(block, schema))


def row_schema() -> Any:
    """The columns of rows.parquet."""
    import pyarrow

    texts, number = pyarrow.list_(pyarrow.large_string()), pyarrow.int32()
    return pyarrow.schema(
        [
            ("file", number), ("row", pyarrow.int64()), ("image_path", pyarrow.large_string()), ("sha256", pyarrow.binary(32)),
            ("height", number), ("width", number), ("held_out", pyarrow.bool_()), ("questions", texts), ("answers", texts),
        ]
    )  # fmt: skip
