"""The ids of the compact language: what every number of a small model's answer means. Numpy only.

    pad bos eos | 4 modes | depth codes | 256 trace coordinates, trace end | 256 action bins | 256 proprio bins | words

Where they stand in a sequence is `compact.layout`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, SpecError, require
from model_core.spec.types import TRACE_RANGE

ORDINAL_BINS = 256
_IMAGE_MARKS = ("im_start", "im_end", "im_patch", "im_col", "image", "im_low")


class ReasoningMode(enum.StrEnum):
    """What the model is asked to predict. Its mode token is the last of the prompt."""

    FULL = "full"  # depth, trace, action
    TRACE_ACTION = "trace_action"  # trace, action
    ACTION = "action"  # action only
    STEERED = "steered"  # the trace is given, action follows


class Field(enum.IntEnum):
    """The kind of a token."""

    PAD = 0
    IMAGE = 1
    WORD = 2
    PROPRIO = 3
    MODE = 4
    DEPTH = 5
    TRACE = 6
    ACTION = 7


def words_of(instruction: str) -> tuple[str, ...]:
    """Lower-case words of an instruction, without a final period: how data sets and policies both see it."""
    return tuple(instruction.lower().strip().removesuffix(".").split())


def closed_words(instructions: Iterable[str]) -> tuple[str, ...]:
    """The sorted closed vocabulary of a set of instructions, as a contract keeps it."""
    return tuple(sorted({word for text in instructions for word in words_of(text)}))


def proprio_bins(proprio_NP: NDArray[np.floating], low_P: NDArray[np.floating], high_P: NDArray[np.floating]) -> NDArray[np.int64]:
    """Physical state (..., P) -> bins 0..255 between the limits of the contract; outside is clipped.

    Raises `SpecError` on NaN or inf: a broken sensor must never look like the end of its range.
    """
    if not np.isfinite(proprio_NP).all():
        raise SpecError("proprio holds NaN or inf; expected finite numbers in the units of the contract")
    scaled = (np.asarray(proprio_NP, np.float64) - low_P) / (np.asarray(high_P, np.float64) - low_P) * ORDINAL_BINS
    return np.clip(np.floor(scaled), 0, ORDINAL_BINS - 1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids `start` <= id < `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, token: int) -> bool:
        return self.start <= token < self.stop


@dataclass(frozen=True, kw_only=True)
class CompactVocabulary:
    """All ids. Output ids are 0..base_size-1; the six image marks follow as input-only ids, as in the published layout.

        pad bos eos | 4 modes | depth codes | 256 trace coordinates, trace end | 256 action bins | 256 proprio bins | words

    words: closed vocabulary of instructions, sorted and unique (`closed_words`). `eos` is never generated: the
    length of an answer follows from its slots.
    """

    words: tuple[str, ...]
    depth_codes: int = 128

    def __post_init__(self) -> None:
        require(len(self.words) > 0, "the compact language needs a closed vocabulary of words; freeze a data set with words")
        require(len(set(self.words)) == len(self.words), "words must be unique", got=self.words)
        require(1 <= self.depth_codes <= ORDINAL_BINS, "depth_codes must be 1..256", got=self.depth_codes)

    pad_id = 0
    bos_id = 1
    eos_id = 2
    query_id = bos_id  # placeholder of a value that is asked for (`network.queries`): nothing else ever uses this row

    @cached_property
    def modes(self) -> IdRange:
        """One id per `ReasoningMode`, in their order."""
        return IdRange(3, 3 + len(ReasoningMode))

    @cached_property
    def depth(self) -> IdRange:
        """One id per depth code."""
        return IdRange(self.modes.stop, self.modes.stop + self.depth_codes)

    @cached_property
    def trace(self) -> IdRange:
        """256 coordinates, then `trace_end`: 257 ids."""
        return IdRange(self.depth.stop, self.depth.stop + TRACE_RANGE + 2)

    @cached_property
    def trace_coordinates(self) -> IdRange:
        """The coordinates 0..255 alone."""
        return IdRange(self.trace.start, self.trace.stop - 1)

    @cached_property
    def trace_end(self) -> int:
        """Closes a trace of 1..5 points."""
        return self.trace.stop - 1

    @cached_property
    def action(self) -> IdRange:
        """Action bins d = 1..256 as ids start + d - 1."""
        return IdRange(self.trace.stop, self.trace.stop + ORDINAL_BINS)

    @cached_property
    def proprio(self) -> IdRange:
        """Proprio bins 0..255."""
        return IdRange(self.action.stop, self.action.stop + ORDINAL_BINS)

    @cached_property
    def word(self) -> IdRange:
        """One id per word, in the order of `words`."""
        return IdRange(self.proprio.stop, self.proprio.stop + len(self.words))

    @cached_property
    def base_size(self) -> int:
        """Number of ids that have an output row."""
        return self.word.stop

    @cached_property
    def size(self) -> int:
        """Number of all ids, image marks included."""
        return self.base_size + len(_IMAGE_MARKS)

    @cached_property
    def image_marks(self) -> Mapping[str, int]:
        """im_start, im_end, im_patch, im_col, image, im_low -> id, in the published order."""
        return {name: self.base_size + offset for offset, name in enumerate(_IMAGE_MARKS)}

    @property
    def im_patch_id(self) -> int:
        """The id to whose embedding an image feature is added (`image_patch_id` of a model config)."""
        return self.image_marks["im_patch"]

    def mode_id(self, mode: ReasoningMode) -> int:
        """The token that asks for `mode`."""
        return self.modes.start + list(ReasoningMode).index(mode)

    def range_of(self, field: Field) -> IdRange:
        """All ids of one field."""
        return {
            Field.PAD: IdRange(self.pad_id, self.eos_id + 1),
            Field.MODE: self.modes,
            Field.DEPTH: self.depth,
            Field.TRACE: self.trace,
            Field.ACTION: self.action,
            Field.PROPRIO: self.proprio,
            Field.WORD: self.word,
            Field.IMAGE: IdRange(self.base_size, self.size),
        }[field]

    @cached_property
    def fields_V(self) -> NDArray[np.uint8]:
        """`Field` of every id, (size,)."""
        table_V = np.empty(self.size, np.uint8)
        for field in Field:
            ids = self.range_of(field)
            table_V[ids.start : ids.stop] = field
        return table_V

    @cached_property
    def _word_ids(self) -> Mapping[str, int]:
        return {word: self.word.start + index for index, word in enumerate(self.words)}

    def word_ids(self, instruction: str) -> list[int]:
        """Ids of an instruction's words. Raises `GrammarError` with the character span of an unknown word."""
        ids = []
        for word in words_of(instruction):
            if word not in self._word_ids:
                start = max(instruction.lower().find(word), 0)
                raise GrammarError(
                    f"instruction {instruction!r}: this policy does not know the word {word!r}; it knows: {', '.join(self.words)}",
                    start,
                    start + len(word),
                )
            ids.append(self._word_ids[word])
        if not ids:
            raise GrammarError("the instruction is empty; expected words of the policy's vocabulary", 0, len(instruction))
        return ids

    def describe(self, token: int) -> str:
        """What an id means, for people: ``depth 17``, ``trace end``, ``action bin 128``."""
        if not 0 <= token < self.size:
            return f"id {token} (outside the vocabulary of {self.size})"
        field = Field(int(self.fields_V[token]))
        offset = token - self.range_of(field).start
        names = {
            Field.PAD: ("pad", "bos", "eos")[offset] if field is Field.PAD else "",
            Field.MODE: f"mode {list(ReasoningMode)[offset].value}" if field is Field.MODE else "",
            Field.DEPTH: f"depth {offset}",
            Field.TRACE: "trace end" if token == self.trace_end else f"trace {offset}",
            Field.ACTION: f"action bin {offset + 1}",
            Field.PROPRIO: f"proprio bin {offset}",
            Field.WORD: f"word {self.words[offset]!r}" if field is Field.WORD else "",
            Field.IMAGE: _IMAGE_MARKS[offset] if field is Field.IMAGE else "",
        }
        return names[field]


def id_sources(before: CompactVocabulary, after: CompactVocabulary) -> NDArray[np.int64]:
    """For every id of `after` the id of `before` with the same meaning, -1 for a word that is new. Both have as many depth codes."""
    sources_V = np.full(after.size, -1, np.int64)
    sources_V[: after.word.start] = np.arange(after.word.start)
    place = {word: before.word.start + index for index, word in enumerate(before.words)}
    sources_V[after.word.start : after.word.stop] = [place.get(word, -1) for word in after.words]
    sources_V[after.base_size :] = np.arange(before.base_size, before.size)
    return sources_V
