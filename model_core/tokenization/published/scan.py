"""The pieces of an answer, read from a place in a text: depth codes, points, actions. What is not in the language is refused."""

from __future__ import annotations

import re

import numpy as np

from model_core.spec.errors import GrammarError
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, DepthTokens, Trace
from model_core.tokenization.action_codec import bin_of_symbol
from model_core.tokenization.published.grammar import DEPTH_END, DEPTH_START, END_OF_TEXT


class Scan:
    """A text and a place in it. Every method raises `GrammarError`, with the span in characters, where something else stands."""

    def __init__(self, text: str, at: int = 0) -> None:
        self.text, self.at = text, at

    def take(self, pattern: str, expected: str) -> str:
        """What matches `pattern` here; the place moves behind it."""
        found = re.compile(pattern).match(self.text, self.at)
        if not found:
            raise self.error(expected)
        self.at = found.end()
        return found.group()

    def offers(self, pattern: str) -> bool:
        """Whether `pattern` matches here."""
        return re.compile(pattern).match(self.text, self.at) is not None

    def skip_space(self) -> None:
        """Go behind blanks."""
        self.take(r"\s*", "")

    def end(self) -> None:
        """Nothing follows but blanks and an end-of-text mark."""
        self.take(rf"\s*(?:{re.escape(END_OF_TEXT)})?\s*", "")
        if self.at < len(self.text):
            raise self.error("the end of the answer", stop=len(self.text))

    def error(self, expected: str, *, start: int | None = None, stop: int | None = None) -> GrammarError:
        """The refusal of what stands between `start` and `stop`; by default one character here."""
        start = self.at if start is None else start
        stop = min(len(self.text), start + 1) if stop is None else stop
        return GrammarError(f"character {start}: expected {expected}, got {_shown(self.text, start)}", start, stop)

    def number(self, expected: str, highest: int) -> int:
        """An integer 0..highest in ASCII digits, without leading zeros."""
        start = self.at
        digits = self.take(r"(?:0|[1-9][0-9]{0,5})(?![0-9.])", expected)
        if int(digits) > highest:
            raise self.error(expected, start=start, stop=self.at)
        return int(digits)

    def depth(self, num_codes: int) -> DepthTokens:
        """Start mark, 100 codes, end mark; nothing between."""
        self.take(DEPTH_START, DEPTH_START)
        codes: list[int] = []
        while not self.offers(DEPTH_END):
            if len(codes) == DEPTH_CELLS:
                raise self.error(f"{DEPTH_END} after {DEPTH_CELLS} depth tokens")
            self.take(r"<DEPTH_", f"depth token {len(codes) + 1} of {DEPTH_CELLS}")
            codes.append(self.number(f"a depth code 0..{num_codes - 1}", num_codes - 1))
            self.take(r">", "'>'")
        if len(codes) != DEPTH_CELLS:
            raise self.error(f"{DEPTH_CELLS} depth tokens, only {len(codes)} came before the end tag")
        self.take(DEPTH_END, DEPTH_END)
        return DepthTokens(codes_G=np.array(codes, np.int64), num_codes=num_codes)

    def trace(self) -> Trace:
        """A list of 1..5 points, each a list of two numbers 0..255."""
        points: list[tuple[int, int]] = []
        self.take(r"\[", "'[[' of a trajectory")
        while True:
            if len(points) == TRACE_MAX_POINTS:
                raise self.error(f"']' after {TRACE_MAX_POINTS} points")
            self.take(r"\[", "'[' of a point")
            x = self.number(f"a coordinate 0..{TRACE_RANGE}", TRACE_RANGE)
            self.take(r", ?", "', '")
            y = self.number(f"a coordinate 0..{TRACE_RANGE}", TRACE_RANGE)
            self.take(r"\]", "']' of a point")
            points.append((x, y))
            if self.take(r"\]|, ?", "', ' or ']' after a point") == "]":
                return Trace(points_N2=np.array(points, np.int64))

    def actions(self, action_dims: int, chunk_length: int | None = None) -> list[list[int]]:
        """One action or a list of them, as bins 1..256. chunk_length: how many there must be; None: any number."""
        start = self.at
        self.take(r"\[", "'[' of the actions")
        rows: list[list[int]] = []
        if self.offers(r"\["):
            while True:
                self.take(r"\[", "'[' of an action")
                rows.append(self._action(action_dims))
                if self.take(r"\]|, ?", "', ' or ']' after an action") == "]":
                    break
        else:
            rows.append(self._action(action_dims))
        if chunk_length is not None and len(rows) != chunk_length:
            raise self.error(f"{chunk_length} actions, there are {len(rows)}", start=start, stop=self.at)
        return rows

    def _action(self, action_dims: int) -> list[int]:
        """Symbols up to and with the closing bracket; blanks and quotes around one are allowed, as in the release."""
        bins: list[int] = []
        while True:
            self.take(r" ?[\"']?", "")
            start = self.at
            piece = self.take(r"[^\[\],\s\"']+", "an action symbol")
            try:
                bins.append(bin_of_symbol(piece))
            except GrammarError as error:
                raise self.error("one of the 256 action symbols", start=start, stop=self.at) from error
            if len(bins) > action_dims:
                raise self.error(f"']' after {action_dims} values", start=start, stop=self.at)
            self.take(r"[\"']?", "")
            if self.take(r"\]|,", "',' or ']' after an action symbol") == "]":
                break
        if len(bins) != action_dims:
            raise self.error(f"{action_dims} values an action, there are {len(bins)}", start=max(self.at - 1, 0), stop=self.at)
        return bins


def _shown(text: str, start: int) -> str:
    rest = text[start : start + 24]
    return repr(rest) + (" ..." if len(text) > start + 24 else "") if rest else "the end of the text"
