"""Which frames a second person is asked about, and the answers: appended and chained as every statement of a person is.

Frames are drawn at random over all labelled frames, so that what is found of them is an unbiased estimate of the whole set.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from components.artifacts.chained_lines import ChainedLines
from components.data.episodes.place import Place
from model_core.spec.documents import Number, from_document, to_document
from model_core.spec.errors import require
from model_core.spec.types import TRACE_MAX_POINTS

_ROOT = "second labels, format 1"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AskedFrame:
    """One frame of one camera that a second person labels."""

    episode: str
    camera: str
    frame: int


What = Literal["point", "trace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a person said of one frame without seeing its label. size: (width, height) of the image. at: ISO 8601 with its zone.

    what: "point" says where the gripper is: point is (x, y) in pixels, None where it is not in the image. "trace" says which way it goes
    from this frame to the end of the episode: trace holds 1 to 5 points in pixels, and point is None. abstained: the person could not tell;
    then there is neither.
    """

    asked: AskedFrame
    point: tuple[Number, Number] | None
    size: tuple[int, int]
    author: str
    tool: str
    at: str = ""
    abstained: bool = False
    what: What = "point"
    trace: tuple[tuple[Number, Number], ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.author.strip() and self.tool), "an opinion names its author and tool", got=self.author)
        require(min(self.size) > 0, "size must be width and height of the image", got=self.size)
        require(not self.abstained or not (self.point or self.trace), "who abstains gives no point", got=self.point or self.trace)
        if self.what == "point":
            require(not self.trace, "an opinion of a point has no trace", got=self.trace)
        else:
            require(self.point is None, "an opinion of a trace has no point beside it", got=self.point)
            require(
                self.abstained or 1 <= len(self.trace) <= TRACE_MAX_POINTS,
                f"a trace has 1 to {TRACE_MAX_POINTS} points",
                got=len(self.trace),
            )
        for x, y in (*self.trace, *((self.point,) if self.point is not None else ())):
            inside = math.isfinite(x) and math.isfinite(y) and -0.5 <= x <= self.size[0] - 0.5 and -0.5 <= y <= self.size[1] - 0.5
            require(inside, f"the point must lie inside the {self.size[0]}x{self.size[1]} image", got=(x, y))


def drawn_frames(lengths: Mapping[str, int], camera: str, count: int, seed: int) -> list[AskedFrame]:
    """`count` frames, drawn without replacement over all frames of all episodes; all where there are fewer. Equal arguments: equal frames.

    lengths: episode id -> labelled frames.
    """
    require(count >= 1, "at least one frame is asked about", got=count)
    ends: list[tuple[int, str]] = []
    total = 0
    for name in sorted(lengths):
        ends.append((total, name))
        total += lengths[name]
    places = random.Random(seed).sample(range(total), min(count, total))
    made: list[AskedFrame] = []
    for place in places:
        first, name = max(one for one in ends if one[0] <= place)
        made.append(AskedFrame(episode=name, camera=camera, frame=place - first))
    return made


class OpinionBook:
    """The opinions of one place, in `FOLDER/<name>-<key>.jsonl`. Safe for several threads and processes."""

    def __init__(self, folder: Path, place: Place) -> None:
        word = re.sub(r"[^\w.+-]+", "-", place.name).strip("-.") or "place"
        self.path = folder / f"{word}-{place.key}.jsonl"
        self._lines = ChainedLines(self.path, _ROOT)

    @property
    def opinions(self) -> list[Opinion]:
        """All, oldest first. Raises `DatasetError` where the file was changed."""
        return [from_document(Opinion, entry, where=f"{self.path.name}, line {n}") for n, entry in enumerate(self._lines.entries, start=1)]

    def add(self, opinions: Sequence[Opinion]) -> int:
        """Append opinions; an equal one of the same person is not appended again. Gives how many were."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")

        def new(before: Sequence[dict[str, object]]) -> list[dict[str, object]]:
            known = {_key(entry) for entry in before}
            made = [{**to_document(one), "at": one.at or at} for one in opinions]
            return [entry for entry in made if _key(entry) not in known]

        return len(self._lines.append(new))


def _key(entry: Mapping[str, object]) -> str:
    """Equal for equal opinions; lines that were written before traces were asked for name neither `what` nor `trace`."""
    said = {"what": "point", "trace": [], **entry}
    return json.dumps({name: value for name, value in said.items() if name != "at"}, sort_keys=True)
