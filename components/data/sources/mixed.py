"""Sources of several embodiments as one list of episodes, in which each embodiment's own are a source of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from components.data.lerobot.meta.episode_index import EpisodeIndexRow
from components.data.packing.kept_images import KeptImages
from components.data.sources.interface import EpisodeSource
from components.data.sources.joined import JoinedSource
from model_core.contracts import check_names
from model_core.spec.contract import EmbodimentSpec, digest_of
from model_core.spec.episode import Episode
from model_core.spec.errors import DatasetError


class MixedSource:
    """Episodes of several embodiments: an `EpisodeSource` that has no embodiment, since it has several.

    members: embodiment -> its sources joined, in the order in which the recipe first names each. Arguments are those of `JoinedSource`.
    Raises `DatasetError` where sources of one embodiment's name describe it differently, `SpecError` for names that cannot be told apart.
    """

    def __init__(
        self, sources: Sequence[EpisodeSource], digests: Sequence[str], weights: Sequence[float], kept: KeptImages | None = None
    ) -> None:
        self.sources = tuple(sources)
        self._digests = tuple(digests)
        places: dict[str, list[int]] = {}
        for place, source in enumerate(self.sources):
            places.setdefault(source.embodiment.name, []).append(place)
        check_names(places)
        self.members: Mapping[str, JoinedSource] = {
            name: JoinedSource([sources[i] for i in mine], [digests[i] for i in mine], [weights[i] for i in mine], kept)
            for name, mine in places.items()
        }
        counted = dict.fromkeys(places, 0)
        self._where: list[tuple[str, int, EpisodeIndexRow]] = []  # embodiment, place in its source, row
        for source in self.sources:
            name = source.embodiment.name
            for row in source.rows:
                self._where.append((name, counted[name], row))
                counted[name] += 1

    @property
    def name(self) -> str:
        """The names of all."""
        return "+".join(source.name for source in self.sources)

    @property
    def embodiment(self) -> EmbodimentSpec:
        """Raises `DatasetError`: there is more than one."""
        raise DatasetError(
            f"{self.name} holds episodes of {len(self.members)} embodiments ({', '.join(self.members)}), expected one. "
            "Fix: name the sources of one embodiment"
        )

    @property
    def digest(self) -> str:
        """Of the digests of the sources, in order."""
        return digest_of(list(self._digests))

    @property
    def rows(self) -> tuple[EpisodeIndexRow, ...]:
        """The episodes of all, counted on from source to source."""
        return tuple(replace(row, index=place) for place, (_, _, row) in enumerate(self._where))

    def episode(self, index: int, *, images: bool = True, depth: bool = True) -> Episode:
        """Episode `index` of `rows`, as its own embodiment has it."""
        name, place, _ = self._where[index]
        return self.members[name].episode(place, images=images, depth=depth)

    def embodiment_of(self, index: int) -> str:
        """Whose episode `index` of `rows` is."""
        return self._where[index][0]

    def close(self) -> None:
        """Close all."""
        for source in self.sources:
            source.close()


def joined_or_mixed(
    sources: Sequence[EpisodeSource], digests: Sequence[str], weights: Sequence[float], kept: KeptImages | None = None
) -> JoinedSource | MixedSource:
    """The episodes of all sources: joined where they name one embodiment. kept: images decoded before. Raises as `MixedSource`."""
    is_one = len({source.embodiment.name for source in sources}) == 1
    return (JoinedSource if is_one else MixedSource)(sources, digests, weights, kept)


def members_of(source: EpisodeSource) -> Mapping[str, EpisodeSource]:
    """Embodiment -> its episodes; of a source of one embodiment only itself, under the name ""."""
    return source.members if isinstance(source, MixedSource) else {"": source}
