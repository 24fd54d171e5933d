"""One source of a recipe: where its episodes are, which of them are used, and how their columns and cameras become ours."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.config.data_config import CollectConfig
from model_core.spec.documents import NEUTRAL, from_document
from model_core.spec.errors import SpecError, require

SIMULATOR = "simulator"  # the kind whose episodes the run records itself
# kind -> "module:function", which is called with a `SourceConfig` and gives an `EpisodeSource` (components/data/sources/interface.py)
SOURCE_KINDS: dict[str, str] = {
    "edited": "components.data.editing.opener:open_edited",
    "lerobot": "components.data.sources.lerobot:open_lerobot",
    "mcap": "components.data.sources.mcap.open:open_mcap",
    "recordings": "components.data.sources.recordings:open_recordings",
    SIMULATOR: "components.data.sources.simulator:open_simulated",
}


def source_opener(kind: str) -> str:
    """The "module:function" of a kind, or `kind` itself where it is one already. Raises `SpecError` for an unknown kind."""
    if kind in SOURCE_KINDS:
        return SOURCE_KINDS[kind]
    if ":" in kind:
        return kind
    near = difflib.get_close_matches(kind, SOURCE_KINDS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "name a function of your own as 'package.module:function'"
    raise SpecError(f"source kind {kind!r}: expected one of {', '.join(SOURCE_KINDS)}; {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where episodes come from. Nothing of it is changed or copied.

    name: in messages, accounts and records; unique in a recipe. kind: "lerobot" (a LeRobot data set of version 2.0, 2.1 or 3.0),
    "mcap" (robot logs), "recordings" (of our cells), "edited" (a set as an edit describes it), "simulator" (demonstrations that the run
    records first; options are fields of the section collect) or "package.module:function". path: of its folder or file; else hub: a data
    set of the hub, which needs its revision (a commit).
    embodiment: the YAML file that describes the robot, or the name of a ready one; empty: the set's own description.
    include: which episodes ("0:50", "7", or an episode id); empty: all. tasks: which instructions or task names; empty: all.
    cameras: our camera -> theirs; empty: equal names. actions, proprio: our dimension -> theirs, as a name of their vector, a place in it
    ("3") or another column and place ("observation.velocity[0]"); empty: equal names, or all in order where theirs have no names.
    rate_hz: the control rate to which the episodes are resampled; 0: that of the embodiment, which must be the recorded one.
    stride: every n-th frame is used, where n frames are one step of the embodiment.
    weight: how often a sample of this source is drawn, relative to the other sources. options: of the kind.
    """

    name: str
    kind: str = "lerobot"
    path: str = field(default="", metadata=NEUTRAL)  # what it holds enters cache keys, by digest
    hub: str = ""
    revision: str = ""
    embodiment: str = field(default="", metadata=NEUTRAL)
    include: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    cameras: Mapping[str, str] = field(default_factory=dict[str, str])
    actions: Mapping[str, str] = field(default_factory=dict[str, str])
    proprio: Mapping[str, str] = field(default_factory=dict[str, str])
    rate_hz: float = 0.0
    stride: int = 1
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        where = f"source {self.name!r}"
        require(bool(self.name) and "/" not in self.name, "a source needs a name without '/'", got=self.name)
        source_opener(self.kind)  # an unknown kind is refused here
        if self.kind == SIMULATOR:
            _ = self.recording  # so is an option that recording does not have
        if self.path and self.hub:
            raise SpecError(f"{where}: expected path or hub, got both. Fix: leave one out")
        if bool(self.hub) != bool(self.revision):
            raise SpecError(
                f"{where}: expected hub and revision together, got hub {self.hub!r} and revision {self.revision!r}. Fix: give the commit "
                "of the data set (its page lists them), so that the data cannot change under its name"
            )
        require(self.stride >= 1, f"{where}: stride must be a whole number of at least 1", got=self.stride)
        require(math.isfinite(self.rate_hz) and self.rate_hz >= 0, f"{where}: rate_hz must not be negative", got=self.rate_hz)
        require(math.isfinite(self.weight) and self.weight > 0, f"{where}: weight must be above 0; leave the source out", got=self.weight)

    @property
    def recording(self) -> CollectConfig:
        """What a source of kind "simulator" records: its options as the section `collect`. Raises `SpecError` naming a wrong option."""
        return from_document(CollectConfig, dict(self.options), where=f"source {self.name!r}, options")
