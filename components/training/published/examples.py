"""The four kinds of example (arXiv 2508.07917, section 3.1), made from samples of a frozen data set when they are drawn.

    action_reasoning         depth map, trajectory and actions
    trajectory_conditioned   actions, where the trajectory is drawn on the first image
    depth                    the depth map alone
    trace                    the trajectory alone

A frozen set holds physical actions, codes and points; bins and sentences are made here, so that one set serves any statistics and wording.
Actions past the end of an episode repeat its last one, as in the published sets, and are learned.
Shape letters: N samples, K chunk, A action dims, V views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.config.published.training import KINDS, PublishedTraining
from components.data.frozen_dataset import FrozenSplit
from components.training.published.kinds import FORMS
from components.training.published.shapes import NetworkShape
from model_core.network.finetuning.packing import TrainingExample
from model_core.network.image_inputs import ImageFeatures, ImageInputs
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import DatasetError, require
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import ActionCodec
from model_core.tokenization.overlays.styles import training_overlay
from model_core.tokenization.published.grammar import Style
from model_core.tokenization.published.prompts import ImageGrids, Wording, prompt_of

Augment = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
Look = Callable[[Sequence[NDArray[np.uint8]]], ImageInputs | ImageFeatures]
_AS_PUBLISHED = PublishedTraining()


class ExampleMaker:
    """Examples of one split. published: wording and length of them. augment: what is done to each view, None for nothing. look: what
    makes views the input of the network; by default its image processor.
    """

    def __init__(
        self,
        split: FrozenSplit,
        contract: PolicyContract,
        network: NetworkShape,
        *,
        published: PublishedTraining = _AS_PUBLISHED,
        augment: Augment | None = None,
        look: Look | None = None,
    ) -> None:
        self.split, self.contract, self.network = split, contract, network
        self._style, self._max_tokens, self._augment = Style(published.style), published.max_tokens, augment
        self.look: Look = network.processor if look is None else look
        self.bins_NKA = ActionCodec(stats=contract.stats).encode(split.actions_NKA)
        self.views = split.images_NVHW3.shape[1]
        self.answer_ids = lru_cache(maxsize=200_000)(self._answer_ids)

    def __len__(self) -> int:
        return len(self.split)

    def possible(self) -> dict[str, NDArray[np.bool_]]:
        """Kind -> of which samples it can be made: depth needs codes, a trajectory a point, a drawn one two points."""
        size = len(self.split)
        points_N = np.zeros(size, np.int64) if self.split.trace_N52 is None else (self.split.trace_N52[..., 0] >= 0).sum(axis=1)
        depth_N = np.full(size, self.split.depth_codes_NG is not None)
        found = {"action_reasoning": depth_N & (points_N >= 1), "trajectory_conditioned": points_N >= 2, "depth": depth_N}
        return {kind: {**found, "trace": points_N >= 1}[kind] for kind in KINDS}

    def answer_tokens(self, place: int, kind: str) -> int:
        """How many tokens of this example are learned."""
        return len(self.answer_ids(place, kind))

    def example(self, place: int, kind: str, generator: np.random.Generator | None = None) -> TrainingExample:
        """The example of this kind from sample `place`. generator: of the augmentation; None for none. Raises `DatasetError` for one that
        is longer than `max_tokens`."""
        views = self._views(place)
        if kind == "trajectory_conditioned":
            trace = self._trace(place)
            assert trace is not None
            views[0] = training_overlay(views[0], trace)
        if self._augment is not None and generator is not None:
            views = [self._augment(view, generator) for view in views]
        inputs = self.look(views)
        prompt_ids, answer_ids = self._prompt_ids(self._instruction(place), inputs.image_grids, kind), self.answer_ids(place, kind)
        tokens = len(prompt_ids) + len(answer_ids)
        if tokens > self._max_tokens:
            raise DatasetError(
                f"an example of kind {kind} has {tokens} tokens, expected at most {self._max_tokens}: {self._instruction(place)!r}, "
                f"{self.views} views. Fix: shorter instructions, or raise train.published.max_tokens"
            )
        return TrainingExample(ids_L=np.concatenate([prompt_ids, answer_ids]), answer_start=len(prompt_ids), images=inputs, kind=kind)

    def prompt_ids(self, kind: str) -> NDArray[np.int64]:
        """Every id that a prompt of this kind holds, for the instructions of the split; none where the split is empty."""
        if not len(self.split):
            return np.zeros(0, np.int64)
        grids = self.network.processor(self._views(0)).image_grids  # of all samples alike; a frozen tower need not look for that
        return np.unique(np.concatenate([self._prompt_ids(instruction, grids, kind) for instruction in self.split.instructions]))

    def reasoning(self, place: int) -> ActionReasoning:
        """What a sample teaches, as values."""
        codes_NG = self.split.depth_codes_NG
        depth = None if codes_NG is None else DepthTokens(codes_G=codes_NG[place].astype(np.int64))
        return ActionReasoning(depth=depth, trace=self._trace(place), bins_KA=self.bins_NKA[place])

    def _answer_ids(self, place: int, kind: str) -> NDArray[np.int64]:
        return self.network.tokenizer.answer_ids(self._wording(kind).answer(self.reasoning(place)))

    def _views(self, place: int) -> list[NDArray[np.uint8]]:
        return [np.ascontiguousarray(view) for view in self.split.images_NVHW3[place]]

    def _prompt_ids(self, instruction: str, grids: ImageGrids, kind: str) -> NDArray[np.int64]:
        return prompt_of(self.network.tokenizer, instruction, grids, self._wording(kind)).ids_L

    def _wording(self, kind: str) -> Wording:
        return Wording(form=FORMS[kind], style=self._style, views=self.views)

    def _instruction(self, place: int) -> str:
        return self.split.instructions[int(self.split.instruction_idx_N[place])]

    def _trace(self, place: int) -> Trace | None:
        if self.split.trace_N52 is None:
            return None
        points_N2 = self.split.trace_N52[place].astype(np.int64)
        points_N2 = points_N2[points_N2[:, 0] >= 0]
        return Trace(points_N2=points_N2) if len(points_N2) else None


def check_views(asked: int, maker: ExampleMaker) -> None:
    """Raise `DatasetError` unless the data have as many cameras as `train.published.views` asks for (0: any)."""
    require(
        asked in (0, maker.views),
        f"train.published.views asks for {asked} images, the data set has {maker.views} cameras. Fix: set it to {maker.views}, or name "
        "cameras in the sources",
        error=DatasetError,
    )


def lacking(possible: Mapping[str, NDArray[np.bool_]], kinds: Mapping[str, float]) -> dict[str, int]:
    """Of how many samples each wanted kind cannot be made; only kinds that lack some."""
    found = {kind: int((~possible[kind]).sum()) for kind, weight in kinds.items() if weight > 0}
    return {kind: count for kind, count in found.items() if count}
