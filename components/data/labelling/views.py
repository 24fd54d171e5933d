"""Which camera of an episode is labelled. Episodes of several embodiments have cameras of their own, with names and sizes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.data.annotators.interface import body_of
from components.data.sources.interface import EpisodeSource
from components.data.sources.mixed import MixedSource, members_of
from components.data.sources.open import camera_sizes, stated_size
from model_core.spec.embodiment import EmbodimentSpec

Sizes = Mapping[str, tuple[int, int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One camera. size: (height, width) of its images. body: of its embodiment, where the data say it."""

    camera: str
    size: tuple[int, int]
    body: EmbodimentSpec | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The cameras of every episode of a source. sizes: embodiment -> camera -> size; of a source of one embodiment it is named ""."""

    source: EpisodeSource
    sizes: Mapping[str, Sizes]
    bodies: Mapping[str, EmbodimentSpec | None]

    @property
    def cameras(self) -> tuple[str, ...]:
        """The names of all, each once."""
        return tuple(dict.fromkeys(camera for sizes in self.sizes.values() for camera in sizes))

    def first(self, index: int) -> View:
        """The camera whose depth and trace a policy predicts: the first of its embodiment."""
        return self.named(index, next(iter(self.sizes[self._whose(index)])))

    def named(self, index: int, camera: str) -> View:
        """A camera that the episode's embodiment has. Raises `DatasetError` where its size is not stated."""
        whose = self._whose(index)
        return View(camera=camera, size=stated_size(self.sizes[whose][camera], camera), body=self.bodies[whose])

    def further(self, index: int, camera: str) -> bool:
        """Whether the episode's embodiment has this camera, and it is not its first."""
        return camera in list(self.sizes[self._whose(index)])[1:]

    def _whose(self, index: int) -> str:
        return self.source.embodiment_of(index) if isinstance(self.source, MixedSource) else ""


def views_of(source: EpisodeSource) -> Views:
    """The cameras of every episode of a source."""
    members = members_of(source)
    return Views(
        source=source,
        sizes={name: camera_sizes(member) for name, member in members.items()},
        bodies={name: body_of(member) for name, member in members.items()},
    )
