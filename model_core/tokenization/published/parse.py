"""The published language read: the text of an answer -> its typed meaning, or the first place that is not in the language."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import bin_of_symbol
from model_core.tokenization.published.grammar import ACTION_SENTENCE, DEPTH_END, DEPTH_START, END_OF_TEXT, OTHER_VIEWS, Form


def parse_answer(form: Form, text: str, *, action_dims: int, chunk_length: int, num_codes: int = 128) -> ActionReasoning:
    """The typed meaning of an answer in any of the published wordings (one or several images, released or fine-tuned).

    Raises `GrammarError` with the span in characters at the first place that is not in the language.
    """
    scan = _Scan(text)
    depth: DepthTokens | None = None
    trace: Trace | None = None
    bins_KA = np.zeros((0, action_dims), np.int64)
    scan.skip_space()
    if form in (Form.FULL, Form.DEPTH):
        scan.take(r"The depth map of the (?:first )?image is ", "'The depth map of the image is '")
        depth = _depth(scan, num_codes)
        scan.take(r"\.", "'.'")
    if form is Form.FULL:
        scan.take(r" ", "a space")
    if form in (Form.FULL, Form.TRACE):
        trace = _trajectories(scan, may_have_sides=form is Form.FULL)
    if form is Form.FULL:
        views = f"(?:{re.escape(OTHER_VIEWS)})?"
        scan.take(rf" Based on (?:these|this) information{views}, {ACTION_SENTENCE}", f"' Based on these information, {ACTION_SENTENCE}'")
    if form is Form.STEERED:
        opening = f"Based on the image and the annotated trajectory of the end effector, {ACTION_SENTENCE}"
        scan.take(re.escape(opening), repr(opening))
    if form in (Form.FULL, Form.STEERED):
        bins_KA = _actions(scan, action_dims, chunk_length)
        scan.take(r"\.", "'.'")
    scan.end()
    return ActionReasoning(depth=depth, trace=trace, bins_KA=bins_KA, text=text)


class _Scan:
    """A text and a place in it."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def take(self, pattern: str, expected: str) -> str:
        found = re.compile(pattern).match(self.text, self.at)
        if not found:
            raise self.error(expected)
        self.at = found.end()
        return found.group()

    def offers(self, pattern: str) -> bool:
        return re.compile(pattern).match(self.text, self.at) is not None

    def skip_space(self) -> None:
        self.take(r"\s*", "")

    def end(self) -> None:
        self.take(rf"\s*(?:{re.escape(END_OF_TEXT)})?\s*", "")
        if self.at < len(self.text):
            raise self.error("the end of the answer", stop=len(self.text))

    def error(self, expected: str, *, start: int | None = None, stop: int | None = None) -> GrammarError:
        start = self.at if start is None else start
        stop = min(len(self.text), start + 1) if stop is None else stop
        return GrammarError(f"character {start}: expected {expected}, got {_shown(self.text, start)}", start, stop)


def _shown(text: str, start: int) -> str:
    rest = text[start : start + 24]
    return repr(rest) + (" ..." if len(text) > start + 24 else "") if rest else "the end of the text"


def _number(scan: _Scan, expected: str, highest: int) -> int:
    start = scan.at
    digits = scan.take(r"(?:0|[1-9][0-9]{0,5})(?![0-9.])", expected)
    if int(digits) > highest:
        raise scan.error(expected, start=start, stop=scan.at)
    return int(digits)


def _depth(scan: _Scan, num_codes: int) -> DepthTokens:
    scan.take(DEPTH_START, DEPTH_START)
    codes: list[int] = []
    while not scan.offers(DEPTH_END):
        if len(codes) == DEPTH_CELLS:
            raise scan.error(f"{DEPTH_END} after {DEPTH_CELLS} depth tokens")
        scan.take(r"<DEPTH_", f"depth token {len(codes) + 1} of {DEPTH_CELLS}")
        codes.append(_number(scan, f"a depth code 0..{num_codes - 1}", num_codes - 1))
        scan.take(r">", "'>'")
    if len(codes) != DEPTH_CELLS:
        raise scan.error(f"{DEPTH_CELLS} depth tokens, only {len(codes)} came before the end tag")
    scan.take(DEPTH_END, DEPTH_END)
    return DepthTokens(codes_G=np.array(codes, np.int64), num_codes=num_codes)


def _trajectories(scan: _Scan, *, may_have_sides: bool) -> Trace:
    where = r"(?: in the (?:first )?image)?"
    if may_have_sides and scan.offers(r"The trajectory of the left "):
        scan.take(rf"The trajectory of the left end effector{where} is ", "'The trajectory of the left end effector is '")
        left = _trace(scan)
        scan.take(r"\. ", "'. '")
        scan.take(rf"The trajectory of the right end effector{where} is ", "'The trajectory of the right end effector is '")
        start = scan.at
        right = _trace(scan)
        if not np.array_equal(left.points_N2, right.points_N2):
            raise scan.error("the same trajectory as for the left end effector: this is a one-armed policy", start=start, stop=scan.at)
        scan.take(r"\.", "'.'")
        return left
    scan.take(rf"The trajectory of the end effector{where} is ", "'The trajectory of the end effector is '")
    trace = _trace(scan)
    scan.take(r"\.", "'.'")
    return trace


def _trace(scan: _Scan) -> Trace:
    points: list[tuple[int, int]] = []
    scan.take(r"\[", "'[[' of a trajectory")
    while True:
        if len(points) == TRACE_MAX_POINTS:
            raise scan.error(f"']' after {TRACE_MAX_POINTS} points")
        scan.take(r"\[", "'[' of a point")
        x = _number(scan, f"a coordinate 0..{TRACE_RANGE}", TRACE_RANGE)
        scan.take(r", ?", "', '")
        y = _number(scan, f"a coordinate 0..{TRACE_RANGE}", TRACE_RANGE)
        scan.take(r"\]", "']' of a point")
        points.append((x, y))
        if scan.take(r"\]|, ?", "', ' or ']' after a point") == "]":
            return Trace(points_N2=np.array(points, np.int64))


def _actions(scan: _Scan, action_dims: int, chunk_length: int) -> NDArray[np.int64]:
    start = scan.at
    scan.take(r"\[", "'[' of the actions")
    rows: list[list[int]] = []
    if scan.offers(r"\["):
        while True:
            scan.take(r"\[", "'[' of an action")
            rows.append(_action(scan, action_dims))
            if scan.take(r"\]|, ?", "', ' or ']' after an action") == "]":
                break
    else:
        rows.append(_action(scan, action_dims))
    if len(rows) != chunk_length:
        raise scan.error(f"{chunk_length} actions, there are {len(rows)}", start=start, stop=scan.at)
    return np.array(rows, np.int64)


def _action(scan: _Scan, action_dims: int) -> list[int]:
    """Symbols up to and with the closing bracket; blanks and quotes around one are allowed, as in the release."""
    bins: list[int] = []
    while True:
        scan.take(r" ?[\"']?", "")
        start = scan.at
        piece = scan.take(r"[^\[\],\s\"']+", "an action symbol")
        try:
            bins.append(bin_of_symbol(piece))
        except GrammarError as error:
            raise scan.error("one of the 256 action symbols", start=start, stop=scan.at) from error
        if len(bins) > action_dims:
            raise scan.error(f"']' after {action_dims} values", start=start, stop=scan.at)
        scan.take(r"[\"']?", "")
        if scan.take(r"\]|,", "',' or ']' after an action symbol") == "]":
            break
    if len(bins) != action_dims:
        raise scan.error(f"{action_dims} values an action, there are {len(bins)}", start=max(scan.at - 1, 0), stop=scan.at)
    return bins
