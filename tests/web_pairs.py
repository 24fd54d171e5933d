"""Small files in the two public layouts of image and text pairs, written as their writers do. Real file formats."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 40), "blue": (30, 40, 220)}
SIZES = ((40, 40), (64, 48), (50, 120))


def picture(colour: str, size: tuple[int, int] = (40, 40), *, number: int = 0, kind: str = "PNG") -> bytes:
    """An image of one colour; no two numbers give equal bytes."""
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)
    pixels[number // size[0] % size[1], number % size[0]] = 255 - number % 7
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, kind)
    return kept.getvalue()


def turns(*texts: str) -> dict[str, list[str]]:
    """A conversation as the published mixtures hold it: people and the model in turn."""
    return {"from": ["human" if place % 2 == 0 else "gpt" for place in range(len(texts))], "value": list(texts)}


def good_rows(count: int) -> list[dict[str, Any]]:
    """Rows of Parquet; of every third two questions are asked."""
    rows = []
    for number in range(count):
        colour = list(COLOURS)[number % 3]
        texts = ["<image>\nWhich colour is it?", f"It is {colour}."]
        if number % 3 == 0:
            texts += ["Is it blue?", "No, and that is sure."]
        rows.append({"image": {"bytes": picture(colour, SIZES[number % 3], number=number), "path": None}, "conversations": turns(*texts)})
    return rows


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], *, row_group: int = 4) -> Path:
    import pyarrow
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=row_group)
    return path


def write_llava(folder: Path, count: int) -> Path:
    """A JSON file with its images beside it."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        colour = list(COLOURS)[number % 3]
        (folder / "images" / f"{number}.jpg").write_bytes(picture(colour, number=number, kind="JPEG"))
        said = [{"from": "human", "value": f"Name the colour of {number}.\n<image>"}, {"from": "gpt", "value": colour}]
        rows.append({"id": str(number), "image": f"images/{number}.jpg", "conversations": said})
    path = folder / "pairs.json"
    path.write_text(json.dumps(rows))
    return path
