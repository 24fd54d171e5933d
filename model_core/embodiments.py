"""One network that acts for several embodiments: which rows of its tables are whose, and the ordinary network of one of them.

Ids: the vocabulary holds the words of all, so that an id means one thing. Slots: words, mode, depth and trace mean the same for every
embodiment and share their rows; image patches, state and actions do not (the third number of a state is a joint here and a height there),
so each embodiment has rows of its own, and by them the network knows which robot it acts for. Positions of image patches are shared where
images have one size. Everything else is shared by all.

What is evaluated and served is never this network but a part of it (`part_of`): the rows of one embodiment and of the words of its own
contract. That is an ordinary network, which computes the same and knows no word that its embodiment was never taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_core.network.config import MolmoActConfig
from model_core.network.queries import ActionHead, action_head_of
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import CheckpointError, require
from model_core.tiny import LAYOUT_KEY, TinySize, layout_options, tiny_config, tiny_layout
from model_core.tokenization.compact.layout import CompactLayout
from model_core.tokenization.compact.vocabulary import CompactVocabulary, Field, id_sources

_SHARED = (Field.WORD, Field.MODE, Field.DEPTH, Field.TRACE)
_EMBODIMENTS = "embodiments"
EMBEDDING, MARKS, HEAD = "model.transformer.wte.embedding", "model.transformer.wte.new_embedding", "lm_head.weight"
SLOTS, POSITIONS = "model.transformer.slot_embedding", "model.vision_backbone.image_vit.positional_embedding"


@dataclass(frozen=True, kw_only=True)
class JointLayout:
    """The languages of several embodiments in one network. layouts: by embodiment, in order; all have one vocabulary and `max_words`."""

    layouts: Mapping[str, CompactLayout]

    def __post_init__(self) -> None:
        common = {(layout.vocabulary, layout.max_words, layout.image_marks) for layout in self.layouts.values()}
        require(len(common) == 1, "embodiments of one network need one vocabulary", got=list(self.layouts), error=CheckpointError)

    @property
    def vocabulary(self) -> CompactVocabulary:
        """Of all."""
        return self._first.vocabulary

    @property
    def _first(self) -> CompactLayout:
        return next(iter(self.layouts.values()))

    @cached_property
    def slot_rows(self) -> Mapping[str, NDArray[np.int64]]:
        """Embodiment -> of each of its slots the row of the network's table. Of the first they are equal."""
        found: dict[str, NDArray[np.int64]] = {}
        free = 0
        for name, layout in self.layouts.items():
            rows_S = np.empty(layout.num_slots, np.int64)
            for field, slots in layout.slots.items():
                is_known = bool(found) and field in _SHARED
                start = self._first.slots[field].start if is_known else free
                rows_S[slots.start : slots.stop] = np.arange(start, start + len(slots))
                free += 0 if is_known else len(slots)
            found[name] = rows_S
        return found

    @property
    def num_slots(self) -> int:
        """Rows of the network's table of slots."""
        return 1 + max(int(rows_S.max()) for rows_S in self.slot_rows.values())


def joint_layout(contracts: Sequence[PolicyContract], size: TinySize, instructions: Sequence[str]) -> JointLayout:
    """The languages of these contracts in one vocabulary. instructions: of all of them.

    Raises `SpecError` for an embodiment whose cameras do not fit the network, `CheckpointError` where what is predicted before the actions
    is encoded differently.
    """
    first = contracts[0].reasoning
    for contract in contracts[1:]:
        theirs = replace(contract.reasoning, trace_camera=first.trace_camera)  # each looks through a camera of its own
        require(
            theirs == first,
            f"{contract.embodiment.name!r} and {contracts[0].embodiment.name!r} need one depth codebook and one kind of reasoning",
            got=(theirs, first),
            error=CheckpointError,
        )
    words = tuple(sorted({word for contract in contracts for word in contract.words}))
    layouts = {c.embodiment.name: tiny_layout(replace(c, words=words), size, tuple(instructions)) for c in contracts}
    return JointLayout(layouts=layouts)


def joint_config(joint: JointLayout, size: TinySize, head: ActionHead = ActionHead.CAUSAL) -> MolmoActConfig:
    """The network for all; its JSON also carries what `joint_of` needs beside the contracts."""
    layouts = list(joint.layouts.values())
    plain = tiny_config(layouts[0], size, head)
    sides = list(dict.fromkeys(tiny_config(layout, size, head).vit.image_default_input_size for layout in layouts))
    patches = [(height // plain.vit.image_patch_size) * (width // plain.vit.image_patch_size) for height, width in sides]
    options: dict[str, Any] = {
        "max_words": layouts[0].max_words,
        "image_marks": layouts[0].image_marks,
        "words": list(joint.vocabulary.words),
        _EMBODIMENTS: [{"name": name, "patch_grid": list(layout.patch_grid)} for name, layout in joint.layouts.items()],
    }
    return replace(
        plain,
        vit=replace(plain.vit, further_input_sizes=tuple(sides[1:]), image_num_pos=sum(patches)),
        llm=replace(plain.llm, num_slots=joint.num_slots, max_position_embeddings=joint.num_slots),
        extras={**plain.extras, LAYOUT_KEY: options},
    )


def is_joint(config: MolmoActConfig) -> bool:
    """Whether a stored config is of a network for several embodiments."""
    options = config.extras.get(LAYOUT_KEY)
    return isinstance(options, Mapping) and _EMBODIMENTS in options


def joint_of(config: MolmoActConfig, contracts: Mapping[str, PolicyContract]) -> JointLayout:
    """The layout that a stored config and its contracts imply. Raises `CheckpointError` where they do not fit each other."""
    options: Mapping[str, Any] = config.extras[LAYOUT_KEY]
    grids = {str(entry["name"]): tuple(entry["patch_grid"]) for entry in options[_EMBODIMENTS]}
    if grids.keys() != contracts.keys():
        raise CheckpointError(f"weights of embodiments {', '.join(grids)} lie beside contracts of {', '.join(contracts)}")
    common = {"max_words": options["max_words"], "image_marks": options["image_marks"]}
    words = tuple(options["words"])
    joint = JointLayout(
        layouts={
            name: CompactLayout.of_contract(replace(contracts[name], words=words), patch_grid=grid, **common)
            for name, grid in grids.items()
        }
    )
    kind = action_head_of(config).kind
    for what, expected, got in (
        ("llm_config.num_slots", joint.num_slots, config.llm.num_slots),
        ("llm_config.vocab_size", joint.vocabulary.base_size, config.llm.vocab_size),
        ("image_patch_id", joint.vocabulary.im_patch_id, config.image_patch_id),
        ("kinds of policy", {kind}, {contract.reasoning.kind for contract in contracts.values()}),
        ("unknown words", set(), {word for contract in contracts.values() for word in contract.words} - set(words)),
    ):
        if expected != got:
            raise CheckpointError(f"weights and contracts do not belong together: {what} is {got}, expected {expected}")
    return joint


def part_of(
    config: MolmoActConfig, state: Mapping[str, Tensor], joint: JointLayout, contract: PolicyContract
) -> tuple[MolmoActConfig, dict[str, Tensor]]:
    """Config and weights of the network of one embodiment: its rows, and those of the words of its contract. All else is shared."""
    among = joint.layouts[contract.embodiment.name]
    own = replace(among, vocabulary=CompactVocabulary(words=contract.words, depth_codes=among.vocabulary.depth_codes))
    ids = torch.from_numpy(id_sources(among.vocabulary, own.vocabulary))
    rows, columns = own.patch_grid
    sides = (rows * 2 * config.vit.image_patch_size, columns * 2 * config.vit.image_patch_size)
    positions = state[POSITIONS][config.vit.position_rows(*sides)]
    table = torch.cat([state[EMBEDDING], state[MARKS]])[ids]
    base = own.vocabulary.base_size
    part = replace(
        config,
        vit=replace(config.vit, image_default_input_size=sides, further_input_sizes=(), image_num_pos=len(positions)),
        llm=replace(
            config.llm,
            num_slots=own.num_slots,
            max_position_embeddings=own.num_slots,
            vocab_size=base,
            additional_vocab_size=own.vocabulary.size - base,
        ),
        image_patch_id=own.vocabulary.im_patch_id,
        extras={**config.extras, LAYOUT_KEY: layout_options(own)},
    )
    slots = torch.from_numpy(joint.slot_rows[contract.embodiment.name])
    mine = {
        EMBEDDING: table[:base],
        MARKS: table[base:],
        HEAD: state[HEAD][ids[:base]],
        SLOTS: state[SLOTS][slots],
        POSITIONS: positions,
    }
    return part, {**state, **mine}
