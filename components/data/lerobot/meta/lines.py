"""The JSON lines of meta/ in versions 2.0 and 2.1: episodes and tasks, given in the form that version 3.0 stores as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.data.lerobot import layout
from model_core.spec.errors import DatasetError

_FIX = "Fix: repair that line, or record or export the data set again"


def read_lines(root: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, document) of each line of a file of JSON lines. Raises `DatasetError` for a missing file, and naming a damaged line."""
    path = root / name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{root.name}/{name} cannot be read ({error}). Fix: fetch or export the data set again") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{root.name}/{name}, line {number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{where} is not JSON: {error}. {_FIX}") from error
        if not isinstance(document, dict):
            raise DatasetError(f"{where} is a {type(document).__name__}, expected an object. {_FIX}")
        yield where, document


def episode_lines(root: Path, info: Mapping[str, Any], films: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of each episode, with the files that version 3.0 names and these versions only imply.

    films: keys of the cameras that are films. Rows of the data files are counted in the order of the episodes' numbers.
    """
    lines = [(where, _entry(where, document)) for where, document in read_lines(root, layout.EPISODE_LINES)]
    start = 0
    for where, entry in sorted(lines, key=lambda line: line[1]["episode_index"]):
        number, length = entry["episode_index"], entry["length"]
        chunk = number // int(info["chunks_size"])
        place = {"chunk_index": chunk, "file_index": number}
        row = entry | {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": start, "dataset_to_index": start + length}
        for key in films:
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row[f"videos/{key}/from_timestamp"] = 0.0
        start += length
        yield where, row


def _entry(where: str, document: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("episode_index", "length"):
        value = document.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DatasetError(f"{where}: {name} is {value!r}, expected a whole number from 0. {_FIX}")
    tasks = document.get("tasks") or []
    if not isinstance(tasks, list):
        raise DatasetError(f"{where}: tasks is {tasks!r}, expected a list of sentences. {_FIX}")
    return {**{name: value for name, value in document.items() if name != "stats"}, "tasks": tasks}


def task_lines(root: Path) -> Iterator[tuple[int, str]]:
    """(task_index, sentence) of each line of meta/tasks.jsonl."""
    for where, document in read_lines(root, layout.TASK_LINES):
        index, sentence = document.get("task_index"), document.get("task")
        if isinstance(index, bool) or not isinstance(index, int) or not isinstance(sentence, str):
            raise DatasetError(f"{where} has task_index {index!r} and task {sentence!r}, expected a whole number and a sentence. {_FIX}")
        yield index, sentence
