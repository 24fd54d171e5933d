"""The embodiments that one network is trained for: each with its contract (statistics, cameras, chunk) and the examples of its data.

All of them speak the published language, and a packed row holds examples of any number and size of images. So nothing of the network is
split between them, and a micro batch may hold examples of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.data.frozen_members import FrozenMember
from components.training.published.examples import ExampleMaker
from model_core.contracts import check_names
from model_core.network.finetuning.packing import TrainingExample
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError, require


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedMember:
    """One embodiment. contract: of the policy, in published sentences. train: examples of its training split."""

    frozen: FrozenMember
    contract: PolicyContract
    train: ExampleMaker

    @property
    def name(self) -> str:
        """Its embodiment."""
        return self.contract.embodiment.name

    @property
    def holds_out(self) -> bool:
        """Whether it has held-out samples."""
        return any(shard["file"].startswith("shards/validation-") and shard["frames"] for shard in self.frozen.manifest["shards"])


def check_members(contracts: Sequence[PolicyContract]) -> None:
    """Refuse embodiments that one folder cannot hold: names that are not apart (`SpecError`), and depth codes of different codebooks
    (`DatasetError`)."""
    if len(contracts) > 1:
        check_names(contract.embodiment.name for contract in contracts)
    codebooks = {contract.reasoning.codebook_digest for contract in contracts}
    require(
        len(codebooks) == 1,
        "embodiments of one network need one depth codebook; freeze them together, with one annotate.codebook",
        got=sorted(codebooks),
        error=DatasetError,
    )


class Examples(Protocol):
    """Samples, and the examples that are made of them: see `ExampleMaker`."""

    def __len__(self) -> int: ...

    def possible(self) -> dict[str, NDArray[np.bool_]]:
        """Kind -> of which samples it can be made."""
        ...

    def answer_tokens(self, place: int, kind: str) -> float:
        """How many tokens are learned, each by its weight."""
        ...

    def example(self, place: int, kind: str, generator: np.random.Generator | None = None) -> TrainingExample:
        """The example of this kind from a sample."""
        ...


class JoinedExamples:
    """Examples of several splits and sources under numbers that run through all of them, in order."""

    def __init__(self, makers: Sequence[Examples]) -> None:
        self.makers = makers
        self._starts = np.cumsum([0, *(len(maker) for maker in makers)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def possible(self) -> dict[str, NDArray[np.bool_]]:
        """As `ExampleMaker.possible`, over all samples."""
        found = [maker.possible() for maker in self.makers]
        return {kind: np.concatenate([one[kind] for one in found]) for kind in found[0]}

    def answer_tokens(self, place: int, kind: str) -> float:
        """As `ExampleMaker.answer_tokens`."""
        maker, inside = self._found(place)
        return maker.answer_tokens(inside, kind)

    def example(self, place: int, kind: str, generator: np.random.Generator | None = None) -> TrainingExample:
        """As `ExampleMaker.example`."""
        maker, inside = self._found(place)
        return maker.example(inside, kind, generator)

    def _found(self, place: int) -> tuple[Examples, int]:
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.makers[number], place - int(self._starts[number])
