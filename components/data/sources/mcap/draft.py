"""A first mapping file for a robot log: what its topics suggest, each guess with its evidence, and what a person must decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from components.data.sources.mcap.mapping import FORMAT
from components.data.sources.mcap.topics import NumberField, TopicSummary

_COMMANDS = ("command", "cmd", "action", "target", "leader", "goal", "desired")
_AXES, _PLACES = ("x", "y", "z", "w"), ("position", "orientation", "linear", "angular", "point")
_STATES = ("position", "data", "pose.position", "pose.orientation", "point", "vector")


def draft_mapping(topics: Sequence[TopicSummary]) -> str:
    """The text of a mapping file (YAML) for these topics. It stays refused until a person has replaced every "confirm:"."""
    cameras = [topic for topic in topics if topic.image is not None]
    vectors = [(topic, number) for topic in topics if topic.image is None for number in _useful(topic)]
    actions = [(t, n) for t, n in vectors if any(word in t.name.lower() for word in _COMMANDS)]
    state = [pair for pair in vectors if pair not in actions]
    used = [*cameras, *(topic for topic, _ in vectors)]
    lines = [
        "# A draft: compare each line with what you know of the robot. Texts that begin with 'confirm:' must be replaced.",
        f"format: {FORMAT}",
        *_clock(used),
        "instruction: {text: 'confirm: the sentence that was asked for, or topic and field instead of text'}",
        "episodes:",
        "  by: file  # one file is one episode; or topic, field, start: [values], stop: [values]",
        "  on_gap: refuse  # or end: the episode ends before the first step without evidence",
        "cameras:",
        *(_camera(number, topic) for number, topic in enumerate(cameras)),
        *([] if cameras else ["  front: 'confirm: no topic of images was found'"]),
        "state:",
        *(line for topic, number in state for line in _field(topic, number, "linear")),
        *([] if state else ["  - 'confirm: no topic of numbers that looks like state was found'"]),
        "actions:",
        *(line for topic, number in actions for line in _field(topic, number, "previous")),
        *([] if actions else ["  - 'confirm: no topic that looks like commands was found; actions need one'"]),
    ]
    return "\n".join(lines) + "\n"


def _useful(topic: TopicSummary) -> Iterator[NumberField]:
    """The fields that carry joint positions, poses or commands."""
    for number in topic.numbers:
        parent, _, leaf = number.path.rpartition(".")
        is_part = leaf in _AXES and parent.split(".")[-1] in _PLACES
        if is_part or number.path in _STATES:
            yield number


def _clock(used: Sequence[TopicSummary]) -> Iterator[str]:
    stamped = bool(used) and all(topic.stamped == 1.0 for topic in used)
    evidence = "every message of these topics has a header stamp" if stamped else "not every message of these topics has a header stamp"
    delays = [topic.log_after_stamp_s for topic in used if topic.log_after_stamp_s is not None]
    if delays:
        evidence += f"; the log is {min(delays):.4f} to {max(delays):.4f} s after the stamps"
    yield f"clock: {'header' if stamped else 'log'}  # evidence: {evidence}"


def _camera(number: int, topic: TopicSummary) -> str:
    size = f"{topic.image[1]}x{topic.image[0]}" if isinstance(topic.image, tuple) else str(topic.image)
    name = next((part for part in topic.name.split("/") if part), f"camera_{number}")
    return f"  {name}_{number}: {{topic: {topic.name}, method: nearest, max_gap_s: {_gap(topic)}}}  # {size}, {_rate(topic)}"


def _field(topic: TopicSummary, number: NumberField, method: str) -> Iterator[str]:
    stem = topic.name.strip("/").replace("/", "_")
    leaf = number.path.replace(".", "_").replace("data", "").strip("_")
    dims = number.keys or tuple(
        f"{stem}_{leaf}_{i}".replace("__", "_") if number.width > 1 else f"{stem}_{leaf}" for i in range(number.width)
    )
    is_rotation = "orientation" in number.path.split(".")
    yield f"  - topic: {topic.name}  # {topic.schema}, {_rate(topic)}"
    yield f"    field: {number.path}"
    yield f"    dims: [{', '.join(dim.strip('_') for dim in dims)}]"
    if number.keys:
        yield f"    keys: [{', '.join(number.keys)}]"
    yield f"    method: {'nearest' if is_rotation else method}"
    yield f"    max_gap_s: {_gap(topic)}"


def _rate(topic: TopicSummary) -> str:
    return f"{topic.messages} messages, {topic.rate_hz:.4g} a second, largest gap {topic.largest_gap_s:.4g} s"


def _gap(topic: TopicSummary) -> float:
    """Twice the usual distance of messages: one message may be lost."""
    return round(max(2 * topic.median_gap_s, 0.001), 4)
