"""Several sources of one embodiment as one: their episodes one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.packing.kept_images import Images, KeptImages
from components.data.sources.interface import EpisodeSource
from model_core.spec.contract import EmbodimentSpec, digest_of, mismatches
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError


class JoinedSource:
    """Episodes of one or several sources: an `EpisodeSource`. Raises `DatasetError` where their embodiments differ.

    digests: of the sources, where they are known already and need not be computed. weights: how often a sample of each is drawn.
    kept: images that were decoded before; each episode of each source is decoded once, whatever its kind.
    """

    def __init__(
        self, sources: Sequence[EpisodeSource], digests: Sequence[str] = (), weights: Sequence[float] = (), kept: KeptImages | None = None
    ) -> None:
        self.sources = tuple(sources)
        self._digests = tuple(digests)
        self._weights = tuple(weights) or (1.0,) * len(self.sources)
        self._kept = kept
        first = self.sources[0]
        for other in self.sources[1:]:
            if found := mismatches(first.embodiment, other.embodiment):
                raise DatasetError(
                    f"sources {first.name!r} and {other.name!r} are of different embodiments ({found[0].explain()}). Fix: name one "
                    "embodiment file in both, or give each embodiment a name of its own"
                )
        self._where = [(place, row) for place, source in enumerate(self.sources) for row in source.rows]

    @property
    def name(self) -> str:
        """The names of all."""
        return "+".join(source.name for source in self.sources)

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment of all."""
        return self.sources[0].embodiment

    @property
    def digest(self) -> str:
        """Of their digests, in order."""
        return digest_of(list(self._digests or (source.digest for source in self.sources)))

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """The episodes of all, counted on from source to source."""
        return tuple(replace(row, index=place) for place, (_, row) in enumerate(self._where))

    @property
    def weights(self) -> tuple[float, ...]:
        """How often a sample of each episode is drawn, relative to the others."""
        return tuple(weight for source, weight in zip(self.sources, self._weights, strict=True) for _ in source.rows)

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index` of `rows`."""
        place, row = self._where[index]
        source = self.sources[place]
        if not images or self._kept is None:
            return source.episode(row.index, images=images, depth=depth)
        read: list[Episode] = []

        def decode() -> Images:
            read.append(source.episode(row.index, images=True, depth=depth))
            return read[0].images

        # by contents, settings and place: sources of one digest give equal episodes, so that they share what is kept
        found = self._kept.fetch(f"{self._digest_of(place)}-{row.index}", decode)
        return read[0] if read else replace(source.episode(row.index, images=False, depth=depth), images=found)

    def part(self, index: int) -> tuple[EpisodeSource, int]:
        """The source that gives episode `index`, and the episode's number there."""
        place, row = self._where[index]
        return self.sources[place], row.index

    def _digest_of(self, place: int) -> str:
        return self._digests[place] if self._digests else self.sources[place].digest

    def close(self) -> None:
        """Close all."""
        for source in self.sources:
            source.close()


def drawing_weights(
    sources: Mapping[str, EpisodeSource], rows: Mapping[str, Sequence[EpisodeIndexRow]]
) -> dict[str, dict[str, list[float]]]:
    """Of each source {"weights": how often a sample of each of its rows is drawn in training}; {} where the recipe draws all alike.

    Weights are relative to those of all sources together, so either all have them or none.
    """
    found: dict[str, list[float]] = {}
    for name, source in sources.items():
        every = source.weights if isinstance(source, JoinedSource) else (1.0,) * len(source.rows)
        found[name] = [every[row.index] for row in rows[name]]
    differ = len({weight for weights in found.values() for weight in weights}) > 1
    return {name: {"weights": weights} if differ else {} for name, weights in found.items()}
