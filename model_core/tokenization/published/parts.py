"""One part of an answer, searched for in a text: under the names of the published parser, sound unless `published`.

The published parser takes whatever looks like a part, anywhere: any pair of numbers in brackets is a trajectory (also one of the
instruction), a trajectory without its outer bracket is several of one point, depth codes are neither counted nor checked, a row of the
wrong length is left out, an unknown piece becomes an extreme action. Here a part must stand once, where the published sentences place it,
and be whole; everything else is refused with its place. A whole answer is read by `published.parse`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_core.spec.errors import GrammarError
from model_core.tokenization.action_codec import values_of
from model_core.tokenization.published.actions import PublishedStats, published_physical, published_values
from model_core.tokenization.published.grammar import ACTION_SENTENCE, DEPTH_END, DEPTH_START
from model_core.tokenization.published.scan import Scan

Points = list[tuple[float, float]]

_TRACE_SENTENCE = re.compile(r"[Tt]he trajectory of the (?:left |right )?end effector(?: in the (?:first )?image)? is ")
_DEPTH_SPAN = re.compile(rf"{DEPTH_START}.*?{DEPTH_END}", re.DOTALL)
_FLAT = re.compile(r"\[([^\[\]]*)\]")
_BLOCK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])+\]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?")


def parse_depth(text: str, *, num_codes: int = 128, published: bool = False) -> list[str]:
    """The depth maps of a text, with their marks: exactly one of 100 codes. Raises `GrammarError` for anything else.

    published: every span from a start mark to the next end mark, whatever stands between.
    """
    if published:
        return _DEPTH_SPAN.findall(text)
    starts = [found.start() for found in re.finditer(DEPTH_START, text)]
    ends = [found.start() for found in re.finditer(DEPTH_END, text)]
    for marks, name in ((starts, DEPTH_START), (ends, DEPTH_END)):
        if len(marks) != 1:
            raise _counted(text, name, marks)
    scan = Scan(text, starts[0])
    scan.depth(num_codes)
    return [text[starts[0] : scan.at]]


def parse_trace(text: str, *, published: bool = False) -> list[Points]:
    """The trajectory of a text, (x, y) of 0..255, as a list of one. Where left and right are stated they must be equal.

    Raises `GrammarError` where there is none, it is not whole, or another pair of numbers stands in brackets.
    published: every bracketed pair of numbers, or list of them, in any script and of any size.
    """
    if published:
        return [points for found in _BLOCK.finditer(text) if (points := _pairs(found.group())) is not None]
    traces, rest = [], list(text)
    for found in _TRACE_SENTENCE.finditer(text):
        scan = Scan(text, found.end())
        traces.append([(float(x), float(y)) for x, y in scan.trace().points_N2.tolist()])
        rest[found.end() : scan.at] = " " * (scan.at - found.end())
        if traces[-1] != traces[0]:
            raise scan.error("the same trajectory as for the left end effector", start=found.end(), stop=scan.at)
    if not traces:
        raise GrammarError("expected 'the trajectory of the end effector is [[x, y], ...]', it does not occur", 0, len(text))
    for found in _FLAT.finditer("".join(rest)):
        if _pairs(found.group()) is not None:
            raise Scan(text).error("no pair of numbers in brackets outside the trajectory", start=found.start(), stop=found.end())
    return traces[:1]


def parse_action(
    text: str, norm_stats: Mapping[str, Any], unnorm_key: str | None = None, *, chunk_length: int | None = None, published: bool = False
) -> list[list[float]]:
    """The actions of a text in physical units, a list for each step.

    norm_stats, unnorm_key: the published document and its entry; one entry needs no key. chunk_length: how many steps there must be.
    Raises `GrammarError` where the actions do not stand once, whole, in the 256 action symbols; `ContractError` (a `ValueError`) for an
    entry that does not exist, or whose mask does not say what the last dimension is.
    published: every bracketed list of the right length with a sign outside ASCII, whatever its pieces are.
    """
    stats = PublishedStats.of(norm_stats, unnorm_key)
    if published:
        return _lists(text, stats)
    places = [found.end() for found in re.finditer(re.escape(ACTION_SENTENCE), text)]
    if len(places) != 1:
        raise _counted(text, ACTION_SENTENCE.strip(), places)
    scan = Scan(text, places[0])
    rows = scan.actions(len(stats.q01), chunk_length)
    scan.take(r"\.", "'.'")
    if _lists(text[: places[0]] + text[scan.at :], stats):
        raise GrammarError("expected one list of actions, there is another one", 0, len(text))
    return stats.sound().unnormalize(values_of(np.array(rows, np.int64))).tolist()


def _pairs(block: str) -> Points | None:
    """The points of a block of brackets when each innermost group of it is two numbers."""
    points: Points = []
    for group in _FLAT.findall(block):
        items = [_bare(item) for item in group.split(",")]
        if len(items) != 2 or not all(_NUMBER.fullmatch(item) for item in items):
            return None
        points.append((float(items[0]), float(items[1])))
    return points or None


def _lists(text: str, stats: PublishedStats) -> list[list[float]]:
    found = []
    for group in _FLAT.findall(text):
        pieces = [_bare(item) for item in group.split(",")]
        numeric = all(_NUMBER.fullmatch(piece) for piece in pieces)
        if len(pieces) == len(stats.q01) and not numeric and not all(piece.isascii() for piece in pieces):
            found.append(published_physical(published_values(pieces), stats).tolist())
    return found


def _bare(item: str) -> str:
    """An item without blanks and quotes around it: double ones first, as published."""
    return item.strip().strip('"').strip("'")


def _counted(text: str, what: str, places: list[int]) -> GrammarError:
    start = places[1] if len(places) > 1 else 0
    return GrammarError(f"expected {what!r} once, it occurs {len(places)} times", start, len(text))
