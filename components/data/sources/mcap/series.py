"""The numbers and times of the mapped topics of one file, read in one pass; images are not kept, only when they were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.sources.mcap.log_file import LogFile, LoggedMessage
from components.data.sources.mcap.mapping import CameraMap, FieldMap, TopicMapping
from components.data.sources.mcap.values import numbers_at, plain_at, stamp_ns, text_at
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """One stream of a file, by increasing time. values_ND: empty for a camera. log_N2: (log_ns, repeat) of each message.

    out_of_order: messages whose time lay before that of an earlier one; same_time: of messages with equal times only the last is kept.
    """

    times_ns_N: NDArray[np.int64]
    values_ND: NDArray[np.float64]
    log_N2: NDArray[np.int64]
    out_of_order: int
    same_time: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileSeries:
    """What one pass found. streams: by name, as `TopicMapping.streams` names them. marks, sentences, outcomes: (time, value) by time."""

    streams: Mapping[str, Series]
    marks: tuple[tuple[int, Any], ...]
    sentences: tuple[tuple[int, str], ...]
    outcomes: tuple[tuple[int, Any], ...]


@dataclass(slots=True)
class _Column:
    times_ns: list[int] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    logged: list[tuple[int, int]] = field(default_factory=list)

    def sorted(self, width: int) -> Series:
        times_ns_N = np.array(self.times_ns, np.int64)
        order_N = np.argsort(times_ns_N, kind="stable")
        sorted_N = times_ns_N[order_N]
        kept_N = np.append(sorted_N[1:] != sorted_N[:-1], True)[: len(order_N)]
        values_ND = np.stack(self.values) if self.values else np.zeros((len(order_N), width))
        return Series(
            times_ns_N=sorted_N[kept_N],
            values_ND=values_ND[order_N][kept_N],
            log_N2=np.array(self.logged, np.int64).reshape(-1, 2)[order_N][kept_N],
            out_of_order=int((np.diff(times_ns_N) < 0).sum()),
            same_time=int((~kept_N).sum()),
        )


def read_series(log: LogFile, mapping: TopicMapping) -> FileSeries:
    """Read every mapped topic once. Raises `DatasetError` for a topic that is missing, or a message without its field or stamp."""
    columns = {name: _Column() for name, _ in mapping.streams()}
    marks: list[tuple[int, Any]] = []
    sentences: list[tuple[int, str]] = []
    outcomes: list[tuple[int, Any]] = []
    for message in log.messages(_topics(log, mapping)):
        decoded = _Once(message)
        for name, stream in mapping.streams():
            if stream.topic == message.topic:
                _add(columns[name], stream, mapping.clock_of(stream), decoded, log.name)
        if message.topic == mapping.episodes.topic:
            marks.append((decoded.time_ns(mapping.clock, log.name), plain_at(decoded.value, mapping.episodes.field)))
        if message.topic == mapping.instruction.topic:
            sentences.append((decoded.time_ns(mapping.clock, log.name), text_at(decoded.value, mapping.instruction.field)))
        if mapping.outcome is not None and message.topic == mapping.outcome.topic:
            outcomes.append((decoded.time_ns(mapping.clock, log.name), plain_at(decoded.value, mapping.outcome.field)))
    widths = {name: len(stream.dims) if isinstance(stream, FieldMap) else 0 for name, stream in mapping.streams()}
    return FileSeries(
        streams={name: column.sorted(widths[name]) for name, column in columns.items()},
        marks=tuple(sorted(marks, key=lambda mark: mark[0])),
        sentences=tuple(sorted(sentences, key=lambda sentence: sentence[0])),
        outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome[0])),
    )


class _Once:
    """A message that is decoded when it is first asked for, and once."""

    def __init__(self, message: LoggedMessage) -> None:
        self.message, self._value, self._is_decoded = message, None, False

    @property
    def value(self) -> Any:
        if not self._is_decoded:
            self._value, self._is_decoded = self.message.decode(), True
        return self._value

    def time_ns(self, clock: str, file: str) -> int:
        if clock == "log":
            return self.message.log_ns
        stamp = stamp_ns(self.value)
        if not stamp:
            told = "0" if stamp == 0 else "none"
            raise DatasetError(
                f"{file}: {self.message.topic} at log time {self.message.log_ns} has header stamp {told}, its clock is 'header'. "
                "Fix: write clock: log for this topic in the mapping"
            )
        return stamp


def _add(column: _Column, stream: FieldMap | CameraMap, clock: str, decoded: _Once, file: str) -> None:
    column.times_ns.append(decoded.time_ns(clock, file))
    column.logged.append((decoded.message.log_ns, decoded.message.repeat))
    if isinstance(stream, FieldMap):
        try:
            column.values.append(numbers_at(decoded.value, stream))
        except DatasetError as error:
            raise DatasetError(f"{file}, log time {decoded.message.log_ns}: {error}") from error


def _topics(log: LogFile, mapping: TopicMapping) -> list[str]:
    wanted = {stream.topic for _, stream in mapping.streams()}
    wanted |= {topic for topic in (mapping.episodes.topic, mapping.instruction.topic) if topic}
    if missing := sorted(topic for topic in wanted if not (topic in log.topics and log.topics[topic].messages)):
        raise DatasetError(
            f"{log.name} has no message of {', '.join(missing)}; it has {', '.join(sorted(log.topics)) or 'no topics'}. "
            "Fix: correct the topics of the mapping, or leave this file out"
        )
    # a log may lack any word of the outcome: then it is unknown
    outcome = set() if mapping.outcome is None else {mapping.outcome.topic}
    return sorted(wanted | outcome)
