"""A source of episodes that is made of others by one edit: read where they are, cut and relabelled on the way, never copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from components.data.editing.edit import Edit
from components.data.editing.operations import Piece, pieces_of
from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.sources.interface import EpisodeSource
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode


class EditedSource:
    """An `EpisodeSource` over the sources that the edit names, in that order. They may be edited sources themselves.

    Its digest is the edit's, so it is another one whenever a parent's contents or the edit are.
    """

    def __init__(self, name: str, edit: Edit, parents: Sequence[EpisodeSource]) -> None:
        self.name, self.edit, self.parents = name, edit, tuple(parents)

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 64) over the parents' digests, the operation and its parameters."""
        return self.edit.digest

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment of the parents, which is one: merging refuses two. Raises `DatasetError` where it is not described."""
        return self.parents[0].embodiment

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Which frames of which parent's episode each episode is. Raises `DatasetError` where the edit does not fit its parents."""
        return pieces_of(self.edit.operation, self.edit.parameters, [parent.rows for parent in self.parents])

    @cached_property
    def _rows(self) -> tuple[EpisodeIndexRow, ...]:
        return tuple(piece.row for piece in self.pieces)

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """What is known of each episode without its images."""
        return self._rows

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index`, cut and labelled as the edit says. Raises `DatasetError` for what its parent cannot read."""
        piece = self.pieces[index]
        whole = self.parents[piece.parent].episode(piece.index, images=images, depth=depth)
        row = piece.row
        labels = {"episode_id": row.episode_id, "task": row.task, "instruction": row.instruction, "success": row.success}
        return replace(cut(whole, piece.first, piece.end), **labels)

    def close(self) -> None:
        """Close the parents' files."""
        for parent in self.parents:
            parent.close()


def cut(episode: Episode, first: int, end: int) -> Episode:
    """Steps `first` to before `end` of an episode: everything that it has a step, its times counted from its new first step."""
    if (first, end) == (0, len(episode)):
        return episode
    changed = {item.name: _cut(getattr(episode, item.name), first, end, len(episode)) for item in fields(episode)}
    times_T = episode.timestamps_T[first:end]
    return replace(episode, **(changed | {"timestamps_T": times_T - times_T[0]}))


def _cut(value: Any, first: int, end: int, length: int) -> Any:
    """Arrays over the steps, and mappings of such, are cut; everything else stays."""
    if isinstance(value, np.ndarray) and value.ndim and len(value) == length:
        return value[first:end]
    if isinstance(value, Mapping):
        return {name: _cut(part, first, end, length) for name, part in value.items()}
    return value
