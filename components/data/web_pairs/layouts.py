"""Rows of files in the two public layouts of image and text pairs, as they stand there.

Parquet      column `image`: {bytes, path} as the Hub's data sets have it, or the bytes themselves; column `conversations`:
             {from: [...], value: [...]} (the published mixtures of MolmoAct) or [{from, value}, ...] (LLaVA on the Hub)
JSON, JSONL  LLaVA's: {"image": "path of a file", "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.errors import DatasetError

PARQUET = ".parquet"
JSON_KINDS = (".json", ".jsonl")
_COLUMNS = ("image", "conversations")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row as it was read. row: its number in the file, from 0. image: its bytes; None where `image_path` names a file, or there is
    none. turns: (speaker, text) in order; None for what is no conversation. annotation: of a robot sample, what is drawn on the image.
    """

    row: int
    image: bytes | None = None
    image_path: str = ""
    turns: tuple[tuple[str, str], ...] | None = None
    annotation: str = ""


def data_files(place: Path) -> list[Path]:
    """The files to read: `place` itself, or of a folder every Parquet file under it, else the JSON files in it. Raises `DatasetError`."""
    if place.is_file() and place.suffix in (PARQUET, *JSON_KINDS):
        return [place]
    found = sorted(place.rglob(f"*{PARQUET}")) or sorted(path for path in place.glob("*") if path.suffix in JSON_KINDS)
    if not found:
        raise DatasetError(
            f"{place}: expected Parquet files, or JSON or JSONL files in the layout of LLaVA, got none. Fix: name the folder or file that "
            "holds the rows"
        )
    return found


def rows_of(path: Path) -> Iterator[RawRow]:
    """Every row of a file. Raises `DatasetError` for a file that cannot be read, or that has other columns."""
    return _parquet_rows(path) if path.suffix == PARQUET else _json_rows(path)


def image_bytes(path: Path, row: int) -> bytes:
    """The bytes of one image of a Parquet file; the row group that holds it is read."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        first = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                column = file.read_row_group(group, columns=["image"])["image"]
                return _image_of(column[row - first].as_py())[0] or b""
            first += rows
    return b""


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in _COLUMNS if name not in names]:
                raise DatasetError(
                    f"{path}: expected columns {' and '.join(_COLUMNS)}, {missing[0]} is missing (it has {', '.join(names)}). Fix: rename "
                    "the columns of the images and of the conversations"
                )
            wanted = [name for name in (*_COLUMNS, "annotation") if name in names]
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
                for found in batch.to_pylist():
                    yield _row(number, found)
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as Parquet: {error}. Fix: fetch the file again, or take it out of the folder") from error


def _json_rows(path: Path) -> Iterator[RawRow]:
    try:
        if path.suffix == ".json":
            document = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(document, list):
                raise DatasetError(f"{path}: expected a list of rows, got {type(document).__name__}. Fix: name another file")
            for number, found in enumerate(document):
                yield _row(number, found)
            return
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(one for one in lines if one.strip()):
                yield _row(number, json.loads(line))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}. Fix: fetch the file again, or take it out of the folder") from error


def _row(number: int, found: Any) -> RawRow:
    if not isinstance(found, Mapping):
        return RawRow(row=number)
    image, path = _image_of(found.get("image"))
    return RawRow(
        row=number, image=image, image_path=path, turns=_turns(found.get("conversations")), annotation=str(found.get("annotation") or "")
    )


def _image_of(value: Any) -> tuple[bytes | None, str]:
    """(bytes, path) of an image cell."""
    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, Mapping):
        return (value["bytes"], "") if value.get("bytes") else (None, str(value.get("path") or ""))
    return None, value if isinstance(value, str) else ""


def _turns(value: Any) -> tuple[tuple[str, str], ...] | None:
    if isinstance(value, Mapping):
        speakers, texts = value.get("from"), value.get("value")
        if not (isinstance(speakers, list) and isinstance(texts, list) and len(speakers) == len(texts)):
            return None
        return _texts(list(zip(speakers, texts, strict=True)))
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return _texts([(one.get("from"), one.get("value")) for one in value])
    return None


def _texts(pairs: Sequence[tuple[Any, Any]]) -> tuple[tuple[str, str], ...] | None:
    """None where one is no text."""
    found = [(speaker, text) for speaker, text in pairs if isinstance(speaker, str) and isinstance(text, str)]
    return tuple(found) if len(found) == len(pairs) else None
