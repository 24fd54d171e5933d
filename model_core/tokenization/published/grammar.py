"""The published language: every question and answer of MolmoAct as text; `published.parse` reads it.

    full      depth map, trajectory, action(s)             one image or several; as released, or as the fine-tuning script writes it
    steered   the trajectory is drawn on the image, action(s) follow
    depth     the depth map alone          trace     the trajectory alone

`parse_answer` reads an answer from its first character to its last. What is not in the language raises `GrammarError`
with the span, what was expected and what was found: nothing is searched for, skipped, guessed or clipped. (The
release searches for brackets anywhere, accepts any number of depth tags and points, and lets an unknown symbol become an extreme.)
Sources: MolmoAct release: question texts of its SimplerEnv and LIBERO runners, answer texts of its model card.
"""

from __future__ import annotations

import enum
import re

import numpy as np
from numpy.typing import NDArray

from model_core.spec.errors import GrammarError
from model_core.spec.types import ActionReasoning, DepthTokens, Trace
from model_core.tokenization.action_codec import symbols_of

DEPTH_START, DEPTH_END = "<DEPTH_START>", "<DEPTH_END>"
END_OF_TEXT = "<|endoftext|>"
OTHER_VIEWS = ", along with other images from different camera views as additional information"
ACTION_SENTENCE = "the action that the robot should take is "
_RESERVED = re.compile(r"<DEPTH_|<im_|<\||\|<|User:|Assistant:")


class Form(enum.StrEnum):
    """What is asked for."""

    FULL = "full"
    STEERED = "steered"
    DEPTH = "depth"
    TRACE = "trace"


class Style(enum.StrEnum):
    """Whose wording is written.

    RELEASED: what the released checkpoints were trained on; one image and several have each their own sentences.
    QUICK_START: the same, but one image is also asked about and answered as one of several, and carries its number.
    FINETUNED: the shipped fine-tuning script. It always asks about a "first image", and states one trajectory twice, left and right.
    """

    RELEASED = "released"
    QUICK_START = "quick-start"
    FINETUNED = "finetuned"

    def asks_of_several(self, views: int) -> bool:
        """Whether the question speaks of a first image among others."""
        return views > 1 or self is not Style.RELEASED

    def answers_of_several(self, views: int) -> bool:
        """Whether the answer speaks of a first image among others; the fine-tuning script never does."""
        return self is not Style.FINETUNED and (views > 1 or self is Style.QUICK_START)

    def numbers_images(self, views: int) -> bool:
        """Whether "Image 1", "Image 2", ... stand before the images."""
        return views > 1 or self is Style.QUICK_START


# ---- questions


def render_question(form: Form, instruction: str, *, views: int = 1, style: Style = Style.RELEASED, published: bool = False) -> str:
    """The question about `views` images. The instruction loses blanks around it and a final period: the template has one.

    published: the instruction stands as it is, empty, with its blanks and a second period, as every published program writes it.
    Raises `GrammarError` for an empty instruction (not where `published`) or one that holds a token of the language.
    """
    task = instruction if published else instruction.strip().removesuffix(".")
    found = _RESERVED.search(task)
    if found or not (task or published):
        span = found.span() if found else (0, 0)
        raise GrammarError(f"instruction: expected plain words, got {found.group() if found else 'nothing'!r}", *span)
    return _question(form, task, many=style.asks_of_several(views))


def _question(form: Form, task: str, *, many: bool) -> str:
    image = "first image" if many else "image"
    if form is Form.FULL:
        where = " in the first image" if many else ""
        return (
            f"The task is {task}. What is the action that the robot should take. To figure out the action that the robot should take to "
            f"{task}, let's think through it step by step. First, what is the depth map for {'the first' if many else 'this'} image? "
            f"Second, what is the trajectory of the end effector{where}? Based on the depth map of the {image} and the trajectory of the "
            f"end effector{where}{OTHER_VIEWS if many else ''}, what is the action that the robot should take?"
        )
    if form is Form.STEERED:
        return (
            f"The task is {task}. Notice that the trajectory of the end effector is annotated on the {image}. Based on the trajectory "
            f"annotated on the image{OTHER_VIEWS if many else ''}, what is the action that the robot should take?"
        )
    wanted = f"depth map for the {image}" if form is Form.DEPTH else f"trajectory of the end effector in the {image}"
    return f"The task is {task}. What is the {wanted}?"


# ---- answers


def render_depth(depth: DepthTokens) -> str:
    """Start tag, 100 code tags row by row, end tag; nothing between."""
    return DEPTH_START + "".join(f"<DEPTH_{code}>" for code in depth.codes_G.tolist()) + DEPTH_END


def render_trace(trace: Trace) -> str:
    """A printed list of points: [[242, 115], [140, 77]]."""
    return str(trace.points_N2.tolist())


def render_actions(bins_KA: NDArray[np.integer], *, nested: bool | None = None) -> str:
    """One action as [a, b, ...], several as [[a, ...], [b, ...]]; no quotes.

    nested: whether the list of actions has brackets of its own; by default where there are several. The shipped fine-tuning script
    nests a chunk of one action too.
    """
    rows = [f"[{', '.join(row)}]" for row in symbols_of(bins_KA)]
    return f"[{', '.join(rows)}]" if (len(rows) > 1 if nested is None else nested) else ", ".join(rows)


def render_answer(
    form: Form, reasoning: ActionReasoning, *, views: int = 1, style: Style = Style.RELEASED, nested: bool | None = None
) -> str:
    """The target text after ``Assistant:``: one leading space, no end-of-text. nested: see `render_actions`.

    Raises `GrammarError` where the form needs a part that the reasoning has not.
    """
    needs_depth, needs_trace = form in (Form.FULL, Form.DEPTH), form in (Form.FULL, Form.TRACE)
    if (needs_depth and reasoning.depth is None) or (needs_trace and reasoning.trace is None):
        raise GrammarError(f"an answer of form {form.value} needs its depth and trace; one is missing", 0, 0)
    prefix = given_prefix(
        form,
        depth=reasoning.depth if needs_depth else None,
        trace=reasoning.trace if needs_trace else None,
        views=views,
        style=style,
    )
    if form in (Form.DEPTH, Form.TRACE):
        return prefix
    actions = render_actions(reasoning.bins_KA, nested=nested)
    if form is Form.STEERED:
        return f" Based on the image and the annotated trajectory of the end effector, {ACTION_SENTENCE}{actions}."
    information = "this information" if style is Style.FINETUNED else "these information"
    return f"{prefix} Based on {information}{OTHER_VIEWS if style.answers_of_several(views) else ''}, {ACTION_SENTENCE}{actions}."


def given_prefix(
    form: Form, *, depth: DepthTokens | None = None, trace: Trace | None = None, views: int = 1, style: Style = Style.RELEASED
) -> str:
    """The beginning of an answer that is given and not generated: *edit and continue* in text.

    After an edited depth grid the model continues with the trajectory; after depth and an edited trace, with the action. It ends
    behind a period, where the model's own tokens break too. Raises `GrammarError` for a part that the form has not.
    """
    if depth is not None and form not in (Form.FULL, Form.DEPTH):
        raise GrammarError(f"an answer of form {form.value} has no depth map to give", 0, 0)
    if trace is not None and form not in (Form.FULL, Form.TRACE):
        raise GrammarError(f"an answer of form {form.value} has no trajectory to give; a steering trace is drawn on the image", 0, 0)
    if form is Form.FULL and trace is not None and depth is None:
        raise GrammarError("a full answer has its depth map before the trajectory: give both", 0, 0)
    many, twice = style.answers_of_several(views), style is Style.FINETUNED and form is Form.FULL
    prefix = ""
    if depth is not None:
        prefix += f" The depth map of the {'first image' if many else 'image'} is {render_depth(depth)}."
    if trace is not None:
        where = " in the first image" if many else ""
        for side in ("left ", "right ") if twice else ("",):
            prefix += f" The trajectory of the {side}end effector{where} is {render_trace(trace)}."
    return prefix
