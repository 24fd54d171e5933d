"""Questions about images of the web that are mixed into a training of the published layout."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from model_core.spec.documents import NEUTRAL
from model_core.spec.errors import require

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSource:
    """Image and text pairs that are drawn beside the robot's samples.

    path: the listing that `actwright data web` wrote; what it holds is part of what names the training, where it lies is not. Relative
    names are read from the folder in which training processes run. rate: how often an example is of this source, relative to the groups and
    the other sources. style: written before each question as "style: ", as the published mixtures name the kind of a question; "": nothing.
    """

    name: str
    path: str = field(metadata=NEUTRAL)
    rate: float = 1.0
    style: str = ""

    def __post_init__(self) -> None:
        where = f"web source {self.name!r}"
        require(_NAME.fullmatch(self.name) is not None, "a web source needs a name of letters, digits, _, - and .", got=repr(self.name))
        require(bool(self.path), f"{where}: path is empty. Fix: name the folder that `actwright data web FILES --out FOLDER` wrote")
        require(math.isfinite(self.rate) and self.rate > 0, f"{where}: rate must be above 0; leave the source out", got=self.rate)
        require(self.style == self.style.strip(), f"{where}: style has blanks at its ends", got=repr(self.style))
