"""What is in a robot log: its topics with schema, rate, gaps and clock, and the numbers that their messages hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from components.data.sources.mcap.images import COMPRESSED, IMAGE_SCHEMAS, decode_image
from components.data.sources.mcap.log_file import LogFile, LoggedMessage, Topic
from components.data.sources.mcap.resampling import NS
from components.data.sources.mcap.values import members_of, stamp_ns, value_at
from model_core.spec.errors import DatasetError

LOOKED_AT = 50  # messages of a topic that are decoded: enough for its fields and for how its stamps stand to the log's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberField:
    """Numbers that a message holds. keys: what the message calls each of them (a JointState's names); empty where it does not."""

    path: str
    width: int
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSummary:
    """One topic. Gaps are in seconds between messages by log time (0 for fewer than two).

    stamped: share of the looked-at messages with a header stamp. log_after_stamp_s: median of log time minus stamp; None without stamps.
    image: (height, width) of the first image, or why it cannot be read. numbers: of the first message.
    """

    name: str
    schema: str
    encoding: str
    messages: int
    rate_hz: float
    median_gap_s: float
    largest_gap_s: float
    stamped: float
    log_after_stamp_s: float | None
    image: tuple[int, int] | str | None
    numbers: tuple[NumberField, ...]
    problem: str = ""


@dataclass(slots=True)
class _Seen:
    times_ns: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    looked_at: int = 0
    first: Any = None
    problem: str = ""


def list_topics(path: Path) -> tuple[TopicSummary, ...]:
    """Every topic of a log, by name. Reads the whole file once. Raises `DatasetError` for a file that is torn or damaged."""
    log = LogFile(path)
    try:
        topics = log.topics
        seen = {name: _Seen() for name in topics}
        for message in log.messages(sorted(topics)):
            _look(seen[message.topic], message)
        return tuple(_summary(topics[name], seen[name]) for name in sorted(topics))
    finally:
        log.close()


def _look(seen: _Seen, message: LoggedMessage) -> None:
    seen.times_ns.append(message.log_ns)
    if seen.problem or seen.looked_at >= LOOKED_AT:
        return
    try:
        decoded = message.decode()
    except DatasetError as error:
        seen.problem = str(error)
        return
    seen.looked_at += 1
    seen.first = decoded if seen.first is None else seen.first
    if stamp := stamp_ns(decoded):
        seen.stamps_ns.append(message.log_ns - stamp)


def _summary(topic: Topic, seen: _Seen) -> TopicSummary:
    gaps_s = np.diff(np.array(seen.times_ns, np.int64)) / NS if len(seen.times_ns) > 1 else np.zeros(0)
    median_s = float(np.median(gaps_s)) if gaps_s.size else 0.0
    is_image = topic.schema in IMAGE_SCHEMAS
    return TopicSummary(
        name=topic.name,
        schema=topic.schema,
        encoding=topic.encoding,
        messages=topic.messages,
        rate_hz=1.0 / median_s if median_s > 0 else 0.0,
        median_gap_s=median_s,
        largest_gap_s=float(gaps_s.max()) if gaps_s.size else 0.0,
        stamped=len(seen.stamps_ns) / seen.looked_at if seen.looked_at else 0.0,
        log_after_stamp_s=float(np.median(seen.stamps_ns)) / NS if seen.stamps_ns else None,
        image=_image(seen.first, topic.schema) if is_image and seen.first is not None else None,
        numbers=() if is_image or seen.first is None else tuple(_numbers(seen.first)),
        problem=seen.problem,
    )


def _image(message: Any, schema: str) -> tuple[int, int] | str:
    try:
        height, width = decode_image(message, schema).shape[:2]
    except DatasetError as error:
        if schema not in COMPRESSED and {"height", "width"} <= set(members_of(message)):
            return f"{value_at(message, 'width')}x{value_at(message, 'height')}: {error}"
        return str(error)
    return height, width


def _numbers(message: Any, path: str = "", depth: int = 0) -> Iterator[NumberField]:
    """The numbers below a message, at most four levels deep; times and texts are passed over."""
    names = members_of(message)
    keys = _names_of(message, names)
    for name in names:
        if name in ("header", "timestamp", "stamp", "layout") or depth > 3:
            continue
        value, place = value_at(message, name), f"{path}.{name}".lstrip(".")
        if isinstance(value, bool | int | float):
            yield NumberField(path=place, width=1)
        elif isinstance(value, str | bytes) or value is None:
            continue
        elif _is_object(value):
            yield from _numbers(value, place, depth + 1)
        else:
            entries = list(value)
            if entries and all(isinstance(one, bool | int | float) for one in entries):
                yield NumberField(path=place, width=len(entries), keys=keys if len(keys) == len(entries) else ())


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "DESCRIPTOR") or bool(getattr(type(value), "__slots__", ()) and members_of(value))


def _names_of(message: Any, names: list[str]) -> tuple[str, ...]:
    if "name" not in names:
        return ()
    value: Any = value_at(message, "name")
    if value is None or isinstance(value, str | bytes | int | float) or _is_object(value):
        return ()
    return tuple(str(one) for one in value)
