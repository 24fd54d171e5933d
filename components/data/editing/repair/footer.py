"""A Parquet file whose writer was killed has all its pages and no footer. The pages tell their sizes; columns come from the known schema.

Every whole row group is found by walking from page to page; a footer of these groups is written behind them. What was being written when
the process ended is left out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.editing.repair.thrift import I32, I64, LIST, STRUCT, Struct, read_struct, write_struct

MAGIC = b"PAR1"
_DICTIONARY, _DATA, _DATA_V2 = 2, 0, 3
_CODECS = ("snappy", "zstd", "none", "gzip")


@dataclass(frozen=True, slots=True)
class _Page:
    start: int
    end: int
    is_dictionary: bool
    values: int
    size: int  # uncompressed, with its header
    encodings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    pages: tuple[_Page, ...]
    values: int


def read_without_footer(data: bytes, schema: pa.Schema) -> pa.Table | None:
    """The rows of every whole row group of a file without a footer; None where not one can be read with this schema."""
    if not data.startswith(MAGIC):
        return None
    pages = _pages(memoryview(data))
    for codec in _CODECS:
        template, values = _template(schema, codec)
        groups = _groups(pages, values)
        if not groups:
            return None
        end = groups[-1][-1].pages[-1].end
        footer = write_struct(_metadata(template, groups, values))
        whole = data[:end] + footer + len(footer).to_bytes(4, "little") + MAGIC
        try:
            return pq.read_table(io.BytesIO(whole), use_threads=False)
        except (OSError, pa.ArrowException):
            continue
    return None


def _pages(data: memoryview) -> list[_Page]:
    """Every whole page, in order; the walk ends where the bytes are no page any more."""
    found: list[_Page] = []
    place = len(MAGIC)
    while place < len(data):
        try:
            header, body = read_struct(data, place)
            kind, end = header[1][1], body + header[3][1]
            numbers = header[{_DICTIONARY: 7, _DATA: 5, _DATA_V2: 8}[kind]][1]
            encoding = numbers[4 if kind == _DATA_V2 else 2][1]
        except (ValueError, IndexError, KeyError, TypeError):
            break
        if end > len(data) or header[3][1] < 0:
            break
        levels = () if kind == _DICTIONARY else (3,)  # run lengths of the levels
        size = header[2][1] + body - place
        found.append(_Page(place, end, kind == _DICTIONARY, numbers[1][1], size, (encoding, *levels)))
        place = end
    return found


def _template(schema: pa.Schema, codec: str) -> tuple[Struct, list[int]]:
    """The footer of a file of one row of this schema, and how many values each of its columns has in a row."""
    sink = io.BytesIO()
    columns = [pa.array([_example(field.type)], field.type) for field in schema]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, compression=codec)
    data = sink.getvalue()
    footer, _ = read_struct(memoryview(data), len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    first = footer[4][1][1][0]
    return footer, [chunk[3][1][5][1] for chunk in first[1][1][1]]


def _example(kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return [_example(kind.value_type)] * kind.list_size
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_example(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    return False if pa.types.is_boolean(kind) else 0


def _groups(pages: list[_Page], values: list[int]) -> list[list[_Chunk]]:
    """The whole row groups: in each, every column has the same number of rows, and its pages end where the next one's begin."""
    found: list[list[_Chunk]] = []
    place = 0
    while place < len(pages):
        group, after = _group(pages, place, values)
        if group is None:
            break
        found.append(group)
        place = after
    return found


def _group(pages: list[_Page], place: int, values: list[int]) -> tuple[list[_Chunk] | None, int]:
    """The row group that begins at a page; how many pages its first column has is found by trying."""
    end = place + 1 if not pages[place].is_dictionary else place + 2
    while end <= len(pages) and (end == place + 1 or not pages[end - 1].is_dictionary):
        rows, rest = divmod(_count(pages[place:end]), values[0])
        if rest == 0 and rows:
            chunks, after = [_Chunk(tuple(pages[place:end]), rows * values[0])], end
            for width in values[1:]:
                chunk, after = _column(pages, after, rows * width)
                if chunk is None:
                    break
                chunks.append(chunk)
            if len(chunks) == len(values):
                return chunks, after
        end += 1
    return None, place


def _column(pages: list[_Page], place: int, wanted: int) -> tuple[_Chunk | None, int]:
    first, counted = place, 0
    while place < len(pages) and counted < wanted:
        if pages[place].is_dictionary and place != first:
            return None, place
        counted += 0 if pages[place].is_dictionary else pages[place].values
        place += 1
    return (_Chunk(tuple(pages[first:place]), wanted), place) if counted == wanted else (None, place)


def _count(pages: list[_Page]) -> int:
    return sum(page.values for page in pages if not page.is_dictionary)


def _metadata(template: Struct, groups: list[list[_Chunk]], values: list[int]) -> Struct:
    described = [chunk[3][1] for chunk in template[4][1][1][0][1][1][1]]
    rows = [group[0].values // values[0] for group in groups]
    made = [_row_group(group, described, count) for group, count in zip(groups, rows, strict=True)]
    return template | {3: (I64, sum(rows)), 4: (LIST, (STRUCT, made))}


def _row_group(group: list[_Chunk], described: list[Struct], rows: int) -> Struct:
    columns: list[Struct] = []
    for chunk, known in zip(group, described, strict=True):
        first, last = chunk.pages[0], chunk.pages[-1]
        data_page = next(page for page in chunk.pages if not page.is_dictionary)
        encodings = sorted({encoding for page in chunk.pages for encoding in page.encodings})
        made: Struct = {number: known[number] for number in (1, 3, 4)}
        made |= {2: (LIST, (I32, encodings)), 5: (I64, chunk.values), 9: (I64, data_page.start)}
        made |= {6: (I64, sum(page.size for page in chunk.pages)), 7: (I64, last.end - first.start)}
        if first.is_dictionary:
            made[11] = (I64, first.start)
        columns.append({2: (I64, 0), 3: (STRUCT, made)})
    total = sum(column[3][1][6][1] for column in columns)
    return {1: (LIST, (STRUCT, columns)), 2: (I64, total), 3: (I64, rows)}
