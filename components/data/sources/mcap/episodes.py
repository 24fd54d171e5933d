"""Where the episodes of a file begin and end, and which message each of their steps takes, by the rules of the mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.sources.mcap.mapping import FieldMap, TopicMapping
from components.data.sources.mcap.resampling import NS, Picks, StreamCount, count_stream, grid_ns, pick
from components.data.sources.mcap.series import FileSeries
from model_core.spec.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodePlan:
    """One episode of a file before any image is read. grid_ns_T: the times of its steps. values, logged, counts: by stream.

    values: (T, D) numbers of each field. logged: (T, 2) log time and repeat of the message that shows each step of a camera. trimmed_s: how
    much of its beginning and end lacked a topic. ended: why it ends before its end; "" where it does not.
    """

    instruction: str
    success: bool | None
    grid_ns_T: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    logged: Mapping[str, NDArray[np.int64]]
    counts: Mapping[str, StreamCount]
    trimmed_s: tuple[float, float]
    ended: str

    def __len__(self) -> int:
        return len(self.grid_ns_T)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From where to where an episode lasts, as it was marked. problem: why it is none; "" for a good one."""

    start_ns: int
    end_ns: int
    problem: str = ""


def spans(series: FileSeries, mapping: TopicMapping) -> list[Span]:
    """The episodes of a file by the mapping's rule. A mark that has no partner gives a span with a problem, never silence."""
    if mapping.episodes.by == "file":
        times = [(s.times_ns_N[0], s.times_ns_N[-1]) for s in series.streams.values()]
        return [Span(start_ns=int(min(first for first, _ in times)), end_ns=int(max(last for _, last in times)))]
    return list(_marked(series, mapping))


def _marked(series: FileSeries, mapping: TopicMapping) -> Iterator[Span]:
    rule, begun = mapping.episodes, None
    for time_ns, value in series.marks:
        if _is_one_of(value, rule.start):
            if begun is not None:
                yield Span(start_ns=begun, end_ns=time_ns, problem=f"{rule.topic} starts it, then starts another one before a stop")
            begun = time_ns
        elif _is_one_of(value, rule.stop):
            if begun is None:
                yield Span(start_ns=time_ns, end_ns=time_ns, problem=f"{rule.topic} stops an episode that it did not start")
            else:
                yield Span(start_ns=begun, end_ns=time_ns)
            begun = None
    if begun is not None:
        yield Span(start_ns=begun, end_ns=begun, problem=f"{rule.topic} starts it and never stops it")


def _is_one_of(value: object, wanted: tuple[object, ...]) -> bool:
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)


def plan_episode(series: FileSeries, span: Span, mapping: TopicMapping, rate_hz: float) -> EpisodePlan:
    """Which message each step of the span takes. Raises `DatasetError` with the reason why the mapping refuses this episode."""
    if span.problem:
        raise DatasetError(span.problem)
    start_ns, end_ns = _covered(series, span, mapping)
    grid_ns_T = grid_ns(start_ns, end_ns, rate_hz)
    picks = {
        name: pick(series.streams[name].times_ns_N, grid_ns_T, stream.method, float(stream.max_gap_s)) for name, stream in mapping.streams()
    }
    length, ended = _evidence(picks, grid_ns_T, mapping)
    if length < mapping.episodes.min_steps:
        raise DatasetError(f"it has {length} steps, expected at least {mapping.episodes.min_steps}{'; ' + ended if ended else ''}")
    grid_ns_T, picks = grid_ns_T[:length], {name: one.until(length) for name, one in picks.items()}
    streams = series.streams
    return EpisodePlan(
        instruction=_instruction(series, mapping, int(grid_ns_T[0]), int(grid_ns_T[-1])),
        success=_success(series, mapping, span),
        grid_ns_T=grid_ns_T,
        values={
            name: picks[name].values(streams[name].values_ND, angle=stream.angle)
            for name, stream in mapping.streams()
            if isinstance(stream, FieldMap)
        },
        logged={name: one.log_N2[picks[name].first_T] for name, one in streams.items()},
        counts={name: count_stream(streams[name].times_ns_N, grid_ns_T, one) for name, one in picks.items()},
        trimmed_s=(float((start_ns - span.start_ns) / NS), float((span.end_ns - int(grid_ns_T[-1])) / NS)),
        ended=ended,
    )


def _covered(series: FileSeries, span: Span, mapping: TopicMapping) -> tuple[int, int]:
    """The part of a span in which every topic has begun and none has ended. Raises `DatasetError` where it lacks more than may be cut."""
    start_ns, end_ns, late, early = span.start_ns, span.end_ns, "", ""
    for name, stream in mapping.streams():
        times_ns_N = series.streams[name].times_ns_N
        # a value stays good for max_gap_s after its message; one between two messages needs the second
        slack_ns = 0 if stream.method == "linear" else int(min(float(stream.max_gap_s), 1e9) * NS)
        if times_ns_N[0] > start_ns:
            start_ns, late = int(times_ns_N[0]), name
        if times_ns_N[-1] + slack_ns < end_ns:
            end_ns, early = int(times_ns_N[-1]) + slack_ns, name
    most_ns = float(mapping.episodes.max_trim_s) * NS
    if start_ns - span.start_ns > most_ns:
        lacks = f"{late} begins {(start_ns - span.start_ns) / NS:.3f} s after the episode"
    elif span.end_ns - end_ns > most_ns and mapping.episodes.on_gap == "refuse":
        lacks = f"{early} ends {(span.end_ns - end_ns) / NS:.3f} s before the episode"
    else:
        return start_ns, end_ns
    raise DatasetError(f"{lacks}, at most {float(mapping.episodes.max_trim_s):g} s may lack (episodes.max_trim_s)")


def _evidence(picks: Mapping[str, Picks], grid_ns_T: NDArray[np.int64], mapping: TopicMapping) -> tuple[int, str]:
    """How many steps have evidence of everything, and why no more have. Raises `DatasetError` where the mapping refuses a gap."""
    length, why = len(grid_ns_T), ""
    for name, stream in mapping.streams():
        lacking = np.flatnonzero(~picks[name].is_known_T[:length])
        if lacking.size:
            length = int(lacking[0])
            gap_s = float(picks[name].gap_s_T[length])
            found = f"a gap of {gap_s:.4f} s" if np.isfinite(gap_s) else "no message"
            at_s = (grid_ns_T[length] - grid_ns_T[0]) / NS
            why = f"step {length} (at {at_s:.3f} s): {name} ({stream.topic}) has {found}, at most {float(stream.max_gap_s):g} s is declared"
    if why and mapping.episodes.on_gap == "refuse":
        raise DatasetError(f"{why}. Fix: repair the log, or write in the mapping a tolerance that you can answer for")
    return length, why


def _instruction(series: FileSeries, mapping: TopicMapping, start_ns: int, end_ns: int) -> str:
    if mapping.instruction.text:
        return mapping.instruction.text
    before = [text for time_ns, text in series.sentences if time_ns <= start_ns]
    inside = [text for time_ns, text in series.sentences if start_ns < time_ns <= end_ns]
    said = list(dict.fromkeys([*before[-1:], *inside]))
    if len(said) != 1 or not said[0].strip():
        told = f"{len(said)} instructions: {said[:3]}" if said else "no instruction"
        raise DatasetError(f"{mapping.instruction.topic} gives it {told}; expected one sentence")
    return said[0]


def _success(series: FileSeries, mapping: TopicMapping, span: Span) -> bool | None:
    if mapping.outcome is None:
        return None
    told = [value for time_ns, value in series.outcomes if span.start_ns <= time_ns <= span.end_ns]
    return _is_one_of(told[-1], mapping.outcome.success) if told else None
