"""The published language read: the text of an answer -> its typed meaning, or the first place that is not in the language."""

from __future__ import annotations

import re

import numpy as np

from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.published.grammar import ACTION_SENTENCE, OTHER_VIEWS, Form
from model_core.tokenization.published.scan import Scan


def parse_answer(form: Form, text: str, *, action_dims: int, chunk_length: int, num_codes: int = 128) -> ActionReasoning:
    """The typed meaning of an answer in any of the published wordings (one or several images, released or fine-tuned).

    Raises `GrammarError` with the span in characters at the first place that is not in the language.
    """
    scan = Scan(text)
    depth: DepthTokens | None = None
    trace: Trace | None = None
    bins_KA = np.zeros((0, action_dims), np.int64)
    scan.skip_space()
    if form in (Form.FULL, Form.DEPTH):
        scan.take(r"The depth map of the (?:first )?image is ", "'The depth map of the image is '")
        depth = scan.depth(num_codes)
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
        bins_KA = np.array(scan.actions(action_dims, chunk_length), np.int64)
        scan.take(r"\.", "'.'")
    scan.end()
    return ActionReasoning(depth=depth, trace=trace, bins_KA=bins_KA, text=text)


def _trajectories(scan: Scan, *, may_have_sides: bool) -> Trace:
    where = r"(?: in the (?:first )?image)?"
    if may_have_sides and scan.offers(r"The trajectory of the left "):
        scan.take(rf"The trajectory of the left end effector{where} is ", "'The trajectory of the left end effector is '")
        left = scan.trace()
        scan.take(r"\. ", "'. '")
        scan.take(rf"The trajectory of the right end effector{where} is ", "'The trajectory of the right end effector is '")
        start = scan.at
        right = scan.trace()
        if not np.array_equal(left.points_N2, right.points_N2):
            raise scan.error("the same trajectory as for the left end effector: this is a one-armed policy", start=start, stop=scan.at)
        scan.take(r"\.", "'.'")
        return left
    scan.take(rf"The trajectory of the end effector{where} is ", "'The trajectory of the end effector is '")
    trace = scan.trace()
    scan.take(r"\.", "'.'")
    return trace
