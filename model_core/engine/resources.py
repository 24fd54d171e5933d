"""What an engine has and its rounds use: weights, runner, caches, the language, and what was measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model_core.engine.cache import RowCache
from model_core.engine.decode_request import CompactLanguage, Language, Prompt
from model_core.engine.forward import BlockForward
from model_core.engine.kernels.vision_kernels import packed_vision_backbone
from model_core.engine.native_forward import make_forward
from model_core.engine.numerics import Numerics, measure_numerics
from model_core.engine.rounds.blocks import BlockRunner, Feed
from model_core.engine.rounds.parallel import ActionBlock, BlockUse, placeholders_of
from model_core.engine.rounds.row_state import RowOptions, Window
from model_core.engine.rounds.window import WIDTHS, Acceptance, CostCurve
from model_core.network.int8.stored import is_int8
from model_core.network.model import MolmoAct
from model_core.network.queries import action_head_of
from model_core.spec.errors import require
from model_core.tokenization.compact.layout import CompactLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine decodes.

    dtype: float32 or bfloat16; weights are cast once, images are encoded under autocast.
    constrained: only ids of the grammar are scored, and an id without an alternative is not scored at all; every answer can be
    parsed. False is the faithful mode: the tokens of unconstrained greedy decoding; an answer outside the grammar ends with a
    `GrammarError`.
    exact: drafts never change an answer, see `engine.numerics`; False leaves near ties to rounding.
    speculate: False is plain decoding, one token a forward: the reference. refine, echo: sources of drafts, see `RowOptions`.
    compiled: small networks are computed by the compiled decoder where there is one (`engine.native_forward`). capacity: rows of a
    round by default. numerics, costs: what would else be measured at the first request. block: what the model's placeholders are
    used for, if it has any; None: what it was trained for.
    """

    dtype: torch.dtype = torch.float32
    constrained: bool = True
    exact: bool = True
    speculate: bool = True
    refine: bool = True
    echo: bool = True
    compiled: bool = True
    capacity: int = 16
    numerics: Numerics | None = None
    costs: CostCurve | None = None
    block: BlockUse | None = None

    def __post_init__(self) -> None:
        require(self.dtype in (torch.float32, torch.bfloat16), "an engine decodes in float32 or bfloat16", got=self.dtype)


class EngineResources:
    """One model and language, ready to run blocks."""

    def __init__(self, model: MolmoAct, language: Language | CompactLayout, options: EngineOptions = EngineOptions()) -> None:
        self.model, self.options, self.dtype, self.capacity = model.eval(), options, options.dtype, options.capacity
        self.language: Language = CompactLanguage(language) if isinstance(language, CompactLayout) else language
        is_float32 = options.dtype is torch.float32
        require(is_float32 or not is_int8(model.config.extras), "int8 weights are decoded with float32 activations", got=options.dtype)
        self.device = next(model.parameters()).device
        self.block_use = BlockUse.of(action_head_of(model.config)) if options.block is None else options.block
        self.rows = RowOptions(
            constrained=options.constrained,
            speculate=options.speculate,
            refine=options.refine,
            echo=options.echo,
            block_predicts=self.block_use is BlockUse.PREDICT,
        )
        self.acceptance = Acceptance()
        self._free_caches: list[RowCache] = []
        # actions may be decoded before a block is read (prefix actions; a draft that comes late): placeholders have places of their own
        self.length = self.language.max_length + (0 if self.block_use is BlockUse.NONE else placeholders_of(self.language))
        make = make_forward if options.compiled else BlockForward
        self.forward = make(model, self.language.grammar, max_length=self.length, dtype=options.dtype, constrained=options.constrained)
        self.vision = packed_vision_backbone(model.model.vision_backbone, options.dtype)
        self.block = None if self.block_use is BlockUse.NONE else ActionBlock(self.forward, self.language, self.block_use)

    # ---- what this machine is like

    @cached_property
    def numerics(self) -> Numerics:
        """How blocks and single tokens compare here; measured once, in a few hundred milliseconds at most for a small model."""
        if not self.options.exact:
            return Numerics(tile=1, bound=0.0)
        return self.options.numerics or measure_numerics(self.forward, self.language.max_length)

    @property
    def guard_bound(self) -> float:
        """Choices whose second best id is less than this behind are computed again alone."""
        return self.numerics.bound

    @cached_property
    def runner(self) -> BlockRunner:
        """Runs blocks the way `numerics` asks for."""
        return BlockRunner(self.forward, tile=self.numerics.tile, margins=self.guard_bound > 0)

    @cached_property
    def costs(self) -> CostCurve:
        """Milliseconds by rows and width; measured as rows and widths are asked for."""
        widths = [width for width in WIDTHS if width >= self.numerics.tile and width <= self.language.max_length]
        return self.options.costs or CostCurve(self._measure, widths=widths)

    def warm_up(self, rows: Sequence[int] = (1,)) -> None:
        """Measure everything that decoding would measure on the way."""
        for count in rows:
            self.costs.at(count)

    @torch.inference_mode()
    def _measure(self, rows: int, width: int) -> float:
        # the time of this thread where it does all the work: other processes are not part of the cost
        clock = time.thread_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        cache = self.borrow_cache(rows)
        token, start = self.forward.head_ids[0], max(0, min(self.language.max_length // 2, self.language.max_length - width))
        window = Window([token] * width, [0] * width, [None] * width, [], 0)
        feeds = [Feed(window=window, groups=[0] * width, start=start)] * rows
        began = clock()
        self.runner.run(feeds, cache)  # its answer is read back, so nothing is left running
        spent = (clock() - began) * 1e3
        self.give_back(cache)
        return spent

    # ---- for a round

    @torch.inference_mode()
    def features(self, prompt: Prompt) -> Tensor | None:
        """Image features (N, D) of one prompt. One prompt at a time: convolutions of several are not the same bit for bit."""
        if prompt.images is None or prompt.pooled_patches_idx is None:
            return None
        masks = None if prompt.image_masks is None else prompt.image_masks.to(self.device)
        images, windows = prompt.images.to(self.device), prompt.pooled_patches_idx.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.vision(images, windows, masks)

    @torch.inference_mode()
    def embedded(self, prompt: Prompt, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """(x_LD, places_L) of a prompt."""
        ids_L = torch.from_numpy(prompt.ids_L).to(self.device)
        places_L = torch.from_numpy(prompt.places_L).to(self.device)
        return self.model.embed(ids_L[None], features)[0].to(self.dtype), places_L

    def borrow_cache(self, capacity: int) -> RowCache:
        """Memory for `capacity` rows or more; `give_back` it. On CUDA always the largest, so that captured graphs stay valid."""
        wanted = max(capacity, self.capacity) if self.device.type == "cuda" else 1 << (capacity - 1).bit_length()
        for place, cache in enumerate(self._free_caches):
            if cache.capacity == wanted:
                return self._free_caches.pop(place)
        return RowCache(self.model.config.llm, capacity=wanted, length=self.length, dtype=self.dtype, device=self.device)

    def give_back(self, cache: RowCache) -> None:
        """The cache is free for the next round."""
        self._free_caches.append(cache)
