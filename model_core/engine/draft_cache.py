"""Drafts from memory: what was answered for the frame that looked most like this one.

A robot sees much the same again and again: earlier episodes of a task, other robots at it, its own last decision. Where the session's
last answer is a fair draft for what stands still, the answer to the nearest remembered frame is one for what moves too, and there is
one for the first decision of an episode. A draft decides how fast an answer comes, never what it says (`engine.decode_request.Drafts`), so
the memory may be cold, full or wrong at no cost but time.

Frames are compared as small images (block means), among questions of the same words and mode only.
Shape letters: N remembered frames, D numbers of a small image, V views.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_core.engine.decode_request import Drafts, Language, Question
from model_core.spec.errors import ActwrightError, require
from model_core.spec.types import ActionReasoning

_CELLS, _SAMPLES = 10, 8


class _Shelf:
    """The frames of one instruction and mode, the oldest replaced first."""

    def __init__(self, numbers: int, capacity: int) -> None:
        self._keys_ND = np.zeros((min(64, capacity), numbers), np.float32)
        self._squares_N = np.zeros(len(self._keys_ND), np.float32)
        self._answers: list[ActionReasoning] = []
        self._capacity, self._next = capacity, 0

    def __len__(self) -> int:
        return len(self._answers)

    def put(self, key_D: NDArray[np.float32], answer: ActionReasoning) -> None:
        place = self._next
        if place == len(self._keys_ND):
            more = min(self._capacity, 2 * place)
            self._keys_ND = np.resize(self._keys_ND, (more, len(key_D)))
            self._squares_N = np.resize(self._squares_N, more)
        self._keys_ND[place], self._squares_N[place] = key_D, key_D @ key_D
        if place == len(self._answers):
            self._answers.append(answer)
        else:
            self._answers[place] = answer
        self._next = (place + 1) % self._capacity

    def nearest(self, key_D: NDArray[np.float32]) -> ActionReasoning:
        count = len(self._answers)
        return self._answers[int((self._squares_N[:count] - 2.0 * (self._keys_ND[:count] @ key_D)).argmin())]


class DraftMemory:
    """Remembers answers by what was seen. Not thread-safe: it belongs to the thread that decodes.

    capacity: frames kept for each instruction and mode. shelves: how many of those are kept; the one that was not asked for longest goes.
    """

    def __init__(self, language: Language, *, capacity: int = 2048, shelves: int = 32) -> None:
        require(capacity > 0 and shelves > 0, "a memory holds at least one frame", got=(capacity, shelves))
        self._language, self._capacity, self._most = language, capacity, shelves
        self._shelves: OrderedDict[tuple[Hashable, int], _Shelf] = OrderedDict()

    def __len__(self) -> int:
        """Frames remembered."""
        return sum(map(len, self._shelves.values()))

    def suggest(self, question: Question, *, last: ActionReasoning | None = None, consumed: int = 0) -> Drafts | None:
        """The answer to the most similar frame as drafts; None where there is neither one nor `last`.

        last: the last answer of this session, `consumed` rows of which were executed since: the draft where nothing like the question was
        ever asked; where it is itself the nearest, its chunk moves up by those rows.
        """
        key_D = small_views(question.views)
        name = self._name(question, key_D)
        shelf = self._shelves.get(name)
        answer = last
        if shelf is not None:
            self._shelves.move_to_end(name)
            answer = shelf.nearest(key_D)
        if answer is None:
            return None
        try:
            return Drafts(ids=self._language.encode(answer, question, shift=max(0, consumed) if answer is last else 0))
        except ActwrightError:  # the answer of another policy, of another chunk length: no draft, and no reason to refuse
            return None

    def clear(self) -> None:
        """Forget everything."""
        self._shelves.clear()

    def note(self, question: Question, answer: ActionReasoning) -> None:
        """Remember an answer. Questions with given parts are left out: a person's depth or trace is not what the model would predict."""
        if question.is_given:
            return
        key_D = small_views(question.views)
        name = self._name(question, key_D)
        if name not in self._shelves:
            self._shelves[name] = _Shelf(len(key_D), self._capacity)
            while len(self._shelves) > self._most:
                self._shelves.popitem(last=False)
        self._shelves[name].put(key_D, answer)

    def _name(self, question: Question, key_D: NDArray[np.float32]) -> tuple[Hashable, int]:
        return question.asked, len(key_D)


def small_views(views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """`small_image` of every view one after the other; views may differ in size."""
    return np.concatenate([small_image(view_HW3[None]) for view_HW3 in views])


def small_image(images_VHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Block means of every view, (V * 10 * 10 * 3,) for views of 10 pixels a side and more; 0..255.

    Of large frames only every n-th row and column is read, at least 8 a block: what it takes does not grow with the camera.
    """
    views, height, width, _ = images_VHW3.shape
    rows_r, columns_c = _samples(height), _samples(width)
    blocks = images_VHW3[:, rows_r.reshape(-1)][:, :, columns_c.reshape(-1)].reshape(views, *rows_r.shape, *columns_c.shape, 3)
    # summed one axis at a time, as whole numbers: several times faster than a mean over two axes at once
    sums = blocks.sum(axis=4, dtype=np.uint32).sum(axis=2).reshape(-1)
    return sums.astype(np.float32) / (rows_r.shape[1] * columns_c.shape[1])


@lru_cache(maxsize=64)
def _samples(length: int) -> NDArray[np.int64]:
    """(cells, samples) pixel numbers along a side, by cell; read only."""
    cells = min(_CELLS, length)
    size = length // cells
    return np.arange(cells)[:, None] * size + np.arange(0, size, max(1, size // _SAMPLES))[None]
