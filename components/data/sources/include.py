"""Which episodes of a source are used: those that the recipe includes, of the tasks that it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from components.config.source_config import SourceConfig
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from model_core.spec.errors import DatasetError

_NUMBERS = re.compile(r"(\d*):(\d*)|(\d+)")


def chosen_rows(cfg: SourceConfig, rows: Sequence[EpisodeIndexRow]) -> list[EpisodeIndexRow]:
    """The rows that are used, in their order. Raises `DatasetError` for a task or an episode that the set does not have.

    include: "3" is the episode with that number, "0:50" those from 0 to 49, anything else an episode id.
    """
    tasks = set(cfg.tasks)
    if strangers := sorted(tasks - {row.instruction for row in rows} - {row.task for row in rows}):
        known = sorted({row.instruction for row in rows})
        raise DatasetError(
            f"source {cfg.name!r} has no episode of task {strangers[0]!r}; it has {', '.join(map(repr, known[:5]))}"
            f"{' ...' if len(known) > 5 else ''}. Fix: correct tasks in the recipe's source"
        )
    wanted = _included(cfg, rows)
    return [row for row in rows if row.number in wanted and (not tasks or row.instruction in tasks or row.task in tasks)]


def _included(cfg: SourceConfig, rows: Sequence[EpisodeIndexRow]) -> set[int]:
    if not cfg.include:
        return {row.number for row in rows}
    numbers: set[int] = set()
    for text in cfg.include:
        found = {row.number for row in rows if _is_meant(text, row)}
        if not found:
            raise DatasetError(
                f"source {cfg.name!r} has no episode {text!r}; it has numbers {rows[0].number} to {rows[-1].number}, such as "
                f"{rows[0].episode_id!r}. Fix: correct include in the recipe's source"
            )
        numbers |= found
    return numbers


def _is_meant(text: str, row: EpisodeIndexRow) -> bool:
    if (match := _NUMBERS.fullmatch(text)) is None:
        return text == row.episode_id
    first, stop, one = match.groups()
    if one:
        return row.number == int(one)
    return int(first or 0) <= row.number and (not stop or row.number < int(stop))
