"""A listing of image and text pairs, opened: texts and sizes of its rows, and their images, read where they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.files import sha256_file
from components.data.web_pairs.checks import decoded, image_file
from components.data.web_pairs.layouts import image_bytes
from components.data.web_pairs.listing import FORMAT, LISTING, ROWS, Listing
from model_core.spec.documents import from_document
from model_core.spec.errors import DatasetError, SpecError

Texts = tuple[tuple[str, ...], tuple[str, ...]]


def read_listing(folder: Path) -> Listing:
    """The document of a listing. Raises `DatasetError` where there is none, and where a file that it names is gone or has another size."""
    try:
        document = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        listing = from_document(Listing, document, where=LISTING)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder}: no listing of image and text pairs is here. Fix: make one, `actwright data web FILES --out {folder}`"
        ) from error
    except (OSError, ValueError, SpecError) as error:
        raise DatasetError(f"{folder / LISTING} cannot be read: {error}. Fix: delete the folder and make the listing again") from error
    if listing.format != FORMAT:
        raise DatasetError(f"{folder / LISTING}: expected format {FORMAT}, got {listing.format}. Fix: make the listing again")
    for file in listing.files:
        path = (folder / listing.root / file.path).resolve()
        size = path.stat().st_size if path.is_file() else None
        if file.bytes and size != file.bytes:
            raise DatasetError(
                f"{path}: expected the {file.bytes:,} bytes that were listed, got {'no file' if size is None else f'{size:,}'}. Fix: bring "
                "the file back, or delete the listing and make it again"
            )
    return listing


class WebPairs:
    """Rows of one listing, by their place in it. Raises `DatasetError` for a listing that is not what was written.

    sizes_N2: height and width. held_out_N: bool. question_counts_N: questions of each row.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow.compute as compute
        import pyarrow.parquet as parquet

        self.folder, self.listing = folder, read_listing(folder)
        found = sha256_file(folder / ROWS) if (folder / ROWS).is_file() else "no file"
        if found != self.listing.rows_sha256:
            raise DatasetError(
                f"{folder / ROWS} is not what was listed: expected sha256 {self.listing.rows_sha256[:12]}, got {found[:12]}. Fix: delete "
                "the folder and make the listing again"
            )
        table = parquet.read_table(folder / ROWS)
        self._table = table
        self.sizes_N2: NDArray[np.int64] = np.stack([table[name].to_numpy().astype(np.int64) for name in ("height", "width")], axis=1)
        self.held_out_N: NDArray[np.bool_] = table["held_out"].to_numpy()
        self.question_counts_N: NDArray[np.int64] = compute.list_value_length(table["questions"]).to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.sizes_N2)

    def texts(self, place: int) -> Texts:
        """Questions and answers of a row."""
        return tuple(self._cell("questions", place)), tuple(self._cell("answers", place))

    def text_bytes(self) -> NDArray[np.int64]:
        """(N,): bytes of all questions and answers of each row, at least as many as it has tokens."""
        import pyarrow.compute as compute

        found = np.zeros(len(self), np.int64)
        for name in ("questions", "answers"):
            for begin, chunk in _chunks(self._table[name]):
                sizes = compute.binary_length(chunk.flatten()).to_numpy(zero_copy_only=False)
                parents = compute.list_parent_indices(chunk).to_numpy()
                found[begin : begin + len(chunk)] += np.bincount(parents, weights=sizes, minlength=len(chunk)).astype(np.int64)
        return found

    def image(self, place: int) -> NDArray[np.uint8]:
        """The image of a row, (H, W, 3) uint8. Raises `DatasetError` where it is not the one that was listed."""
        import pyarrow

        name, file, row = (self._cell(column, place) for column in ("image_path", "file", "row"))
        path = (self.folder / self.listing.root / self.listing.files[file].path).resolve()
        if name:
            path = image_file(name, self.folder / self.listing.images)
        try:
            content = path.read_bytes() if name else image_bytes(path, row)
        except (OSError, pyarrow.ArrowException) as error:
            raise DatasetError(f"{path}, which was listed in {self.folder}, cannot be read: {error}. Fix: bring it back") from error
        if hashlib.sha256(content).digest() != self._cell("sha256", place):
            raise DatasetError(
                f"{path}{'' if name else f', row {row}'}: the image is not the one that was listed in {self.folder}. Fix: bring it back, "
                "or delete the listing and make it again"
            )
        return decoded(content)

    def _cell(self, column: str, place: int) -> Any:
        return self._table[column][place].as_py()


def _chunks(column: Any) -> list[tuple[int, Any]]:
    """The chunks of a column, each with the place of its first row."""
    starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
    return list(zip(starts.tolist(), column.chunks, strict=False))
