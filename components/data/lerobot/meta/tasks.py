"""Which sentence a frame's task_index stands for: by the task_index that meta/ gives it, never by the order of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.lerobot import layout
from components.data.lerobot.meta.lines import task_lines
from components.data.lerobot.tables import read_table, to_int64, to_numpy
from model_core.spec.errors import DatasetError


def read_tasks(root: Path, info: Mapping[str, object]) -> dict[int, str]:
    """task_index -> sentence, in increasing order. Raises `DatasetError` where one index stands for two sentences."""
    is_lines = layout.is_one_file_an_episode(info)
    listed, name = (list(task_lines(root)), layout.TASK_LINES) if is_lines else (_table_rows(root), layout.TASKS)
    tasks: dict[int, str] = {}
    for index, sentence in sorted(listed, key=lambda pair: pair[0]):
        if tasks.setdefault(index, sentence) != sentence:
            raise DatasetError(
                f"{root.name}/{name}: task_index {index} stands for {tasks[index]!r} and for {sentence!r}, expected one sentence. "
                "Fix: give each sentence its own index, also in the frames"
            )
    return tasks


def _table_rows(root: Path) -> list[tuple[int, str]]:
    table = read_table(root / layout.TASKS)
    if "task_index" not in table.column_names:
        raise DatasetError(
            f"{root.name}/{layout.TASKS} has no column 'task_index'; it has {', '.join(table.column_names)}. Fix: export the data set again"
        )
    where = f"{root.name}/{layout.TASKS}: column 'task_index'"
    indices = to_int64(to_numpy(table["task_index"], where), where).tolist()
    sentences = table[_sentence_column(root, table)].to_pylist()
    return [(index, str(sentence or "")) for index, sentence in zip(indices, sentences, strict=True)]


def _sentence_column(root: Path, table: pa.Table) -> str:
    """The column of the sentences: pandas' index as LeRobot writes it, one called task, or the only one that holds text."""
    texts = [field.name for field in table.schema if _is_text(field.type)]
    chosen = next((name for name in ("__index_level_0__", "task") if name in texts), texts[0] if len(texts) == 1 else None)
    if chosen is None:
        said = f"text in {', '.join(texts)}" if texts else f"no text; its columns are {', '.join(table.column_names)}"
        raise DatasetError(f"{root.name}/{layout.TASKS} has {said}, expected the sentences in one column 'task'. Fix: name it so")
    return chosen


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value)


def task_of(task_index_T: NDArray[np.int64] | None, listed: Sequence[str], tasks: Mapping[int, str]) -> tuple[str, str]:
    """(sentence, fault) of an episode. The frames decide; the episode's own list counts only where frames name no task.

    fault: why there is no one sentence, or nothing. An episode is one attempt at one instruction, so one of several tasks has a fault.
    """
    if task_index_T is None:
        named = list(dict.fromkeys(listed))
        if len(named) == 1:
            return str(named[0]), ""
        return "", f"its frames have no task_index and its list names {len(named)} tasks, expected one. Fix: write task_index of each frame"
    changes = np.flatnonzero(np.diff(task_index_T, prepend=task_index_T[:1] - 1))
    found = [int(task_index_T[step]) for step in changes]
    if unknown := [index for index in found if index not in tasks]:
        return (
            "",
            f"task index {unknown[0]} of a table of {len(tasks)} ({_some(tasks)}). Fix: add it to {layout.TASKS}, or correct the frames",
        )
    sentences = list(dict.fromkeys(tasks[index] for index in found))
    if len(sentences) > 1:
        said = ", ".join(f"{tasks[index]!r} from frame {step}" for step, index in list(zip(changes, found, strict=True))[:4])
        return "", f"its frames are of {len(sentences)} tasks ({said}), expected one. Fix: cut it into one episode for each task"
    return sentences[0], ""


def _some(tasks: Mapping[int, str]) -> str:
    indices = sorted(tasks)
    return f"indices {indices[0]} to {indices[-1]}" if indices else "no indices"
