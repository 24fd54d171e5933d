"""The published language: every question and answer of MolmoAct as text, rendered and parsed by this one file.

    full      depth map, trajectory, action(s)             one image or several; as released, or as the fine-tuning script writes it
    steered   the trajectory is drawn on the image, action(s) follow
    depth     the depth map alone          trace     the trajectory alone

The parser reads an answer from its first character to its last. What is not in the language raises `GrammarError` with
the span, what was expected and what stood there: nothing is searched for, skipped, guessed or clipped. (The
release searches for brackets anywhere, accepts any number of depth tags and points, and lets an unknown symbol become an extreme.)
Sources: MolmoAct release: question texts of its SimplerEnv and LIBERO runners, answer texts of its model card.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError, SpecError, require
from model_core.spec.types import DEPTH_CELLS, TRACE_MAX_POINTS, TRACE_RANGE, ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import ActionSpelling, PublishedSpelling, SpeltActions

DEPTH_START, DEPTH_END = "<DEPTH_START>", "<DEPTH_END>"
END_OF_TEXT = "<|endoftext|>"
_VIEWS = ", along with other images from different camera views as additional information"
_ACTION = "the action that the robot should take is "
_RESERVED = re.compile(r"<DEPTH_|<im_|<\||\|<|User:|Assistant:")


class Form(enum.StrEnum):
    """What is asked for."""

    FULL = "full"
    STEERED = "steered"
    DEPTH = "depth"
    TRACE = "trace"


class Style(enum.StrEnum):
    """How a full answer is written: by the released checkpoints, or by models tuned with the shipped script."""

    RELEASED = "released"
    FINETUNED = "finetuned"


# ---- questions


def render_question(form: Form, instruction: str, *, views: int = 1) -> str:
    """The question about `views` images. The instruction loses a final period: the template has one.

    Raises `GrammarError` for an empty instruction or one that holds a token of the language.
    """
    task = instruction.strip().removesuffix(".")
    found = _RESERVED.search(task)
    if not task or found:
        span = found.span() if found else (0, 0)
        raise GrammarError(f"instruction: expected plain words, got {found.group() if found else 'nothing'!r}", *span)
    return _question(form, task, many=views > 1)


def _question(form: Form, task: str, *, many: bool) -> str:
    image = "first image" if many else "image"
    if form is Form.FULL:
        where = " in the first image" if many else ""
        return (
            f"The task is {task}. What is the action that the robot should take. To figure out the action that the robot should take to "
            f"{task}, let's think through it step by step. First, what is the depth map for the {image}? Second, what is the trajectory of "
            f"the end effector{where}? Based on the depth map of the {image} and the trajectory of the end effector{where}"
            f"{_VIEWS if many else ''}, what is the action that the robot should take?"
        )
    if form is Form.STEERED:
        return (
            f"The task is {task}. Notice that the trajectory of the end effector is annotated on the {image}. Based on the trajectory "
            f"annotated on the image{_VIEWS if many else ''}, what is the action that the robot should take?"
        )
    wanted = f"depth map for the {image}" if form is Form.DEPTH else f"trajectory of the end effector in the {image}"
    return f"The task is {task}. What is the {wanted}?"


def parse_question(text: str) -> tuple[Form, str, bool]:
    """(form, instruction, several images) of a question that `render_question` wrote. Raises `GrammarError` for any other."""
    found = re.match(r"The task is (.+?)\. (?:What is|Notice)", text, re.DOTALL)
    if found:
        task = found.group(1)
        for form in Form:
            for many in (False, True):
                if text == _question(form, task, many=many):
                    return form, task, many
    raise GrammarError(f"expected one of the published questions, got {_shown(text, 0)}", 0, len(text))


def render_prompt(question: str, *, views: int = 1) -> str:
    """The text after the image block: role style, as released. With several views each image is preceded by ``Image n``."""
    require(views >= 1, "a prompt needs at least one view", got=views)
    return f"User: {question} Assistant:"


# ---- answers


def render_depth(depth: DepthTokens) -> str:
    """Start tag, 100 code tags row by row, end tag; nothing between."""
    return DEPTH_START + "".join(f"<DEPTH_{code}>" for code in depth.codes_G.tolist()) + DEPTH_END


def render_trace(trace: Trace) -> str:
    """A printed list of points: [[242, 115], [140, 77]]."""
    return str(trace.points_N2.tolist())


def render_actions(bins_KA: NDArray[np.integer], spelling: ActionSpelling[str] | None = None) -> str:
    """One row as [a, b, ...], several as [[a, ...], [b, ...]]; no quotes."""
    rows = [f"[{', '.join(row)}]" for row in SpeltActions(spelling or PublishedSpelling()).spell(bins_KA)]
    return rows[0] if len(rows) == 1 else f"[{', '.join(rows)}]"


def render_answer(form: Form, reasoning: ActionReasoning, *, views: int = 1, style: Style = Style.RELEASED) -> str:
    """The target text after ``Assistant:``: one leading space, no end-of-text.

    Raises `GrammarError` where the form needs a part that the reasoning has not.
    """
    needs_depth, needs_trace = form in (Form.FULL, Form.DEPTH), form in (Form.FULL, Form.TRACE)
    if (needs_depth and reasoning.depth is None) or (needs_trace and reasoning.trace is None):
        raise GrammarError(f"an answer of form {form.value} needs its depth and trace; one is missing", 0, 0)
    said = given_prefix(
        form,
        depth=reasoning.depth if needs_depth else None,
        trace=reasoning.trace if needs_trace else None,
        views=views,
        style=style,
    )
    if form in (Form.DEPTH, Form.TRACE):
        return said
    actions = render_actions(reasoning.bins_KA)
    if form is Form.STEERED:
        return f" Based on the image and the annotated trajectory of the end effector, {_ACTION}{actions}."
    information = "these information" if style is Style.RELEASED else "this information"
    return f"{said} Based on {information}{_VIEWS if views > 1 else ''}, {_ACTION}{actions}."


def given_prefix(
    form: Form, *, depth: DepthTokens | None = None, trace: Trace | None = None, views: int = 1, style: Style = Style.RELEASED
) -> str:
    """The beginning of an answer that is given and not generated: *edit and continue* in text.

    After an edited depth grid the model goes on with the trajectory; after depth and an edited trace, with the action. It ends
    behind a period, where the model's own tokens break too. Raises `GrammarError` for a part that the form has not.
    """
    if depth is not None and form not in (Form.FULL, Form.DEPTH):
        raise GrammarError(f"an answer of form {form.value} has no depth map to give", 0, 0)
    if trace is not None and form not in (Form.FULL, Form.TRACE):
        raise GrammarError(f"an answer of form {form.value} has no trajectory to give; a steering trace is drawn on the image", 0, 0)
    if form is Form.FULL and trace is not None and depth is None:
        raise GrammarError("a full answer says its depth map before the trajectory: give both", 0, 0)
    many, tuned = views > 1, style is Style.FINETUNED
    said = ""
    if depth is not None:
        said += f" The depth map of the {'first image' if many and not tuned else 'image'} is {render_depth(depth)}."
    if trace is not None:
        where = " in the first image" if many else ""
        for side in ("left ", "right ") if tuned and form is Form.FULL else ("",):
            said += f" The trajectory of the {side}end effector{where} is {render_trace(trace)}."
    return said


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
        views = f"(?:{re.escape(_VIEWS)})?"
        scan.take(rf" Based on (?:these|this) information{views}, {_ACTION}", f"' Based on these information, {_ACTION}'")
    if form is Form.STEERED:
        opening = f"Based on the image and the annotated trajectory of the end effector, {_ACTION}"
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
    rows: list[Sequence[int]] = []
    if scan.offers(r"\["):
        while True:
            scan.take(r"\[", "'[' of an action")
            rows.append(_row(scan, action_dims))
            if scan.take(r"\]|, ?", "', ' or ']' after an action") == "]":
                break
    else:
        rows.append(_row(scan, action_dims))
    if len(rows) != chunk_length:
        raise scan.error(f"{chunk_length} actions, there are {len(rows)}", start=start, stop=scan.at)
    return np.array(rows, np.int64)


def _row(scan: _Scan, action_dims: int) -> list[int]:
    """Symbols up to and with the closing bracket; blanks and quotes around one are allowed, as in the release."""
    spelling, bins = PublishedSpelling(), []
    while True:
        scan.take(r" ?[\"']?", "")
        start = scan.at
        piece = scan.take(r"[^\[\],\s\"']+", "an action symbol")
        try:
            bins.append(spelling.read_piece(piece))
        except (GrammarError, SpecError) as error:
            raise scan.error("one of the 256 action symbols", start=start, stop=scan.at) from error
        if len(bins) > action_dims:
            raise scan.error(f"']' after {action_dims} values", start=start, stop=scan.at)
        scan.take(r"[\"']?", "")
        if scan.take(r"\]|,", "',' or ']' after an action symbol") == "]":
            break
    if len(bins) != action_dims:
        raise scan.error(f"{action_dims} values an action, there are {len(bins)}", start=max(scan.at - 1, 0), stop=scan.at)
    return bins
