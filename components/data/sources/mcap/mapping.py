"""The mapping file of a robot log: which topic and field is which camera, state or action, and how its messages become control steps.

It is a YAML document that a person writes, or corrects after `actwright data topics FILE --draft OUT` has written it. Whatever decides a
value stands in it: the clock, the method of resampling and the largest gap of every field, and what happens where a step has no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.contract import digest_of
from model_core.spec.documents import Number, from_document, to_document
from model_core.spec.embodiment import EmbodimentSpec
from model_core.spec.errors import SpecError, require

FORMAT = 1
METHODS = ("nearest", "previous", "linear")
CLOCKS = ("log", "header")
ON_GAP = ("refuse", "end")


def _check_stream(where: str, topic: str, method: str, max_gap_s: Number, clock: str) -> None:
    require(bool(topic), f"{where}: topic is empty. Fix: name one that `actwright data topics` lists")
    require(method in METHODS, f"{where}: method must be one of {', '.join(METHODS)}", got=method)
    require(max_gap_s > 0, f"{where}: max_gap_s must be above 0 seconds", got=max_gap_s)
    finite = math.isfinite(max_gap_s) or method == "previous"
    require(finite, f"{where}: only a value that stays in force (method previous) may have no largest gap", got=max_gap_s)
    require(clock in ("", *CLOCKS), f"{where}: clock must be one of {', '.join(CLOCKS)}", got=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """Numbers of one topic. dims: our names for them, in order.

    field: path inside the message ("position", "pose.position.x", "data[0:3]"). keys: names of the wanted entries, looked up in the
    message's list `key_field` (a JointState's order may change from message to message); where the field is a message itself (a point),
    keys, or else dims, name its members. method: "nearest" message, "previous" one, or
    "linear" between two. max_gap_s: largest distance from a step to the message that it takes (linear: between the two messages).
    clock: overrides that of the mapping. Each value becomes value * scale + offset. angle: radians that wrap at a full turn.
    """

    topic: str
    field: str
    max_gap_s: Number
    method: str = "nearest"
    dims: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    key_field: str = "name"
    clock: str = ""
    scale: Number = 1
    offset: Number = 0
    angle: bool = False

    def __post_init__(self) -> None:
        where = f"field {self.field!r} of {self.topic}"
        _check_stream(where, self.topic, self.method, self.max_gap_s, self.clock)
        require(not self.keys or len(self.keys) == len(self.dims), f"{where}: expected one key for each of dims", got=self.keys)
        require(math.isfinite(self.scale) and self.scale != 0, f"{where}: scale must be a number other than 0", got=self.scale)
        require(not self.angle or self.method == "linear", f"{where}: angle only matters to method linear", got=self.method)
        is_rotation = any(part in ("orientation", "quaternion") for part in self.field.replace("[", ".").split("."))
        if is_rotation and self.method == "linear":
            raise SpecError(f"{where}: numbers between two quaternions are no rotation. Fix: method nearest or previous")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraMap:
    """Images of one topic. encoding: replaces that of the messages, where theirs does not say the order of colours ("8UC3")."""

    topic: str
    max_gap_s: Number
    method: str = "nearest"
    clock: str = ""
    encoding: str = ""

    def __post_init__(self) -> None:
        where = f"camera of {self.topic}"
        _check_stream(where, self.topic, self.method, self.max_gap_s, self.clock)
        require(self.method != "linear", f"{where}: there is no image between two images. Fix: method nearest or previous", got=self.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMap:
    """A sentence: `text` for all episodes, or the newest message of a topic when an episode begins."""

    text: str = ""
    topic: str = ""
    field: str = "data"

    def __post_init__(self) -> None:
        require(bool(self.text) != bool(self.topic), "instruction: expected text or topic, one of them", got=(self.text, self.topic))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeMap:
    """Whether an episode solved its task: the last message of a topic inside it. success: values that mean yes; others mean no."""

    topic: str
    field: str = "data"
    success: tuple[Any, ...] = (True,)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodesMap:
    """Where episodes begin and end: by "file" (one file is one), or by messages of a topic whose field has a start or a stop value.

    on_gap: a step without evidence within its field's max_gap_s refuses the episode ("refuse"), or ends it before that step ("end").
    max_trim_s: how much of the episode's beginning and end may lack a topic that starts later or stops earlier. min_steps: of an episode.
    """

    by: str = "file"
    topic: str = ""
    field: str = "data"
    start: tuple[Any, ...] = ()
    stop: tuple[Any, ...] = ()
    on_gap: str = "refuse"
    max_trim_s: Number = 1.0
    min_steps: int = 2

    def __post_init__(self) -> None:
        require(self.by in ("file", "topic"), "episodes.by must be file or topic", got=self.by)
        require(self.on_gap in ON_GAP, f"episodes.on_gap must be one of {', '.join(ON_GAP)}", got=self.on_gap)
        complete = bool(self.topic and self.start and self.stop)
        require(self.by == "file" or complete, "episodes.by topic needs topic, start values and stop values", got=self.topic)
        require(self.by == "topic" or not self.topic, "episodes.by file takes no topic", got=self.topic)
        require(self.max_trim_s >= 0 and math.isfinite(self.max_trim_s), "episodes.max_trim_s must not be negative", got=self.max_trim_s)
        require(self.min_steps >= 2, "episodes.min_steps must be at least 2", got=self.min_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMapping:
    """The whole document. clock: "log" (when a message was logged) or "header" (its own stamp), of every field that does not say its own.

    cameras: our camera -> topic. state, actions: their dims together are exactly those of the embodiment, in any order. outcome,
    intervention (a person acted: true or false), tool_centre (x, y, z in metres): optional. producer, cell: as in `Provenance`.
    """

    format: int
    clock: str
    instruction: TextMap
    cameras: dict[str, CameraMap]
    state: tuple[FieldMap, ...]
    actions: tuple[FieldMap, ...]
    episodes: EpisodesMap = EpisodesMap()
    task: str = ""
    outcome: OutcomeMap | None = None
    intervention: FieldMap | None = None
    tool_centre: FieldMap | None = None
    producer: str = "unknown"
    cell: str = ""

    def __post_init__(self) -> None:
        require(self.format == FORMAT, f"a mapping has format {FORMAT}", got=self.format)
        require(self.clock in CLOCKS, f"clock must be one of {', '.join(CLOCKS)}", got=self.clock)
        require(bool(self.cameras and self.state and self.actions), "a mapping needs cameras, state and actions")

    @property
    def digest(self) -> str:
        """Of everything that it says; layout and comments of the file do not count."""
        return digest_of(to_document(self))

    def clock_of(self, stream: FieldMap | CameraMap) -> str:
        """The clock of one field or camera."""
        return stream.clock or self.clock

    def streams(self) -> Iterator[tuple[str, FieldMap | CameraMap]]:
        """Whatever has a value in every step, by a name for people."""
        yield from ((f"camera {name}", camera) for name, camera in self.cameras.items())
        for part, maps in (("state", self.state), ("actions", self.actions)):
            yield from ((f"{part} {', '.join(one.dims)}", one) for one in maps)
        if self.intervention is not None:
            yield "intervention", self.intervention
        if self.tool_centre is not None:
            yield "tool_centre", self.tool_centre


def read_mapping(path: Path) -> TopicMapping:
    """Read a mapping file. Raises `SpecError` naming file and field."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(
            f"mapping {path.name} cannot be read: {error}. Fix: correct it, or draft one with `actwright data topics FILE --draft OUT`"
        ) from error
    if open_points := sorted(_to_confirm(document, "")):
        raise SpecError(
            f"mapping {path.name}: a person must still decide {len(open_points)} entries: {'; '.join(open_points)}. "
            "Fix: replace each text that begins with 'confirm:' by the value that is true"
        )
    return from_document(TopicMapping, document, where=path.name)


def _to_confirm(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _to_confirm(part, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _to_confirm(part, f"{place}[{number}]")
    elif isinstance(value, str) and value.startswith("confirm:"):
        yield f"{place} ({value.removeprefix('confirm:').strip()})"


def check_mapping(mapping: TopicMapping, body: EmbodimentSpec) -> None:
    """Raise `SpecError` unless the mapping gives each camera, state and action dimension of the embodiment exactly once."""
    wanted = {
        "cameras": ([c.name for c in body.cameras], list(mapping.cameras)),
        "state": ([d.name for d in body.proprio.dims], [name for one in mapping.state for name in one.dims]),
        "actions": ([d.name for d in body.action.dims], [name for one in mapping.actions for name in one.dims]),
    }
    for part, (expected, got) in wanted.items():
        if sorted(expected) != sorted(got):
            raise SpecError(
                f"mapping, {part}: embodiment {body.name!r} has {', '.join(expected)}, each once; got {', '.join(got) or 'none'}. "
                "Fix: correct the mapping's dims, or the embodiment file"
            )
