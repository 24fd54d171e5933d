"""What every source of episodes gives, of any origin and in whatever format they are stored."""

from __future__ import annotations

from typing import Protocol

from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.episode import Episode


class EpisodeSource(Protocol):
    """Episodes of one embodiment, read where they are. Cheap to open: images are decoded when an episode is asked for.

    Whatever reads episodes (validation, annotation, freezing, inspection, editing, export) takes one of these and nothing else.
    Not thread-safe: open one per process. A source has nothing to write: it never changes what it reads.
    """

    @property
    def name(self) -> str:
        """As the recipe names it, or the name of its folder. Unique within a recipe; part of no digest."""
        ...

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment that recorded it: of the file that a person signed, or of the set's own description.

        Every episode has its cameras (name, size), state and action dimensions (order, unit) and control rate. Raises `DatasetError`
        where it is not described.
        """
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 64) of what an episode can be made of: contents and settings, never a path or a time."""
        ...

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """What is known of each episode without its images; row k has `index` k.

        Raises `DatasetError` for a set that contradicts itself.
        """
        ...

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index` of `rows`, whole, in the units, names, order and rate of `embodiment`.

        Without images or depth those mappings are empty, which makes it cheap. Raises `DatasetError` naming episode and file for
        what cannot be read, without harm to the other episodes.
        """
        ...

    def close(self) -> None:
        """Close open files. A later call of `episode` opens them again."""
        ...
