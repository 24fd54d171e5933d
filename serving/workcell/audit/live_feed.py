"""What a cell is doing right now, as JSON lines for a display: taken from what the cell gives its audit.

    {"live": {"episode": 2, "step": 31, "mode": "RUN", "successes": 1, "finished": 1, "p50_ms": 41.0, "p99_ms": 63.2, ...}}

A thread of its own writes them, so that a pipe without a reader never delays the control loop.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from serving.workcell.audit.interface import ActionExecuted, Audit, DecisionMade, EpisodeBegun, EpisodeEnded


class LiveAudit:
    """Passes everything on to `inner` and tells `write` a line now and then while something happens."""

    def __init__(self, inner: Audit, write: Callable[[str], object], *, every_s: float = 0.5) -> None:
        self._inner, self._write, self._every_s = inner, write, every_s
        self._lock = threading.Lock()
        self._now: dict[str, object] = {"step": 0, "mode": ""}
        self._counts = Counter(episode=0, finished=0, successes=0, decisions=0, refused=0)
        self._latency_ms: deque[float] = deque(maxlen=1000)
        self._modes: Counter[str] = Counter()
        self._changed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="live", daemon=True)
        self._thread.start()

    @property
    def can_begin(self) -> bool:
        """As the audit inside says."""
        return self._inner.can_begin

    @property
    def reason(self) -> str:
        """As the audit inside says; "" of one that gives none."""
        return str(getattr(self._inner, "reason", ""))

    def begin_episode(self, begun: EpisodeBegun) -> None:
        """An episode begins."""
        with self._lock:
            self._counts["episode"] += 1
            self._now |= {"step": 0, "task": begun.task, "model_version": begun.model_version}
            self._changed = True
        self._inner.begin_episode(begun)

    def decision(self, made: DecisionMade) -> None:
        """A request was answered, refused or cancelled."""
        with self._lock:
            self._now["thinking"], self._changed = "", True
            if made.chunk is not None:
                self._latency_ms.append(1e3 * (made.answered_s - made.t_s))
                self._counts["decisions"] += 1
            else:
                self._counts["refused"] += 1
                self._now["why"] = made.code
        self._inner.decision(made)

    def executed(self, action: ActionExecuted) -> None:
        """A command was given to the driver."""
        with self._lock:
            self._now["step"], self._now["mode"] = action.step, action.mode
            self._modes[action.mode] += 1
            self._changed = True
        self._inner.executed(action)

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        """Anything else."""
        if kind == "part":
            with self._lock:
                self._now["thinking"], self._changed = str(detail.get("field", "")), True
        self._inner.event(t_s, kind, detail)

    def end_episode(self, ended: EpisodeEnded) -> None:
        """The episode is over."""
        with self._lock:
            self._counts.update(finished=1, successes=int(ended.success))
            self._changed = True
        self._inner.end_episode(ended)

    def close(self) -> None:
        """End the lines and the audit inside."""
        self._ended.set()
        self._thread.join(1.0)
        self._inner.close()

    def _tell(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ended.wait(self._every_s)  # what happened since the last line is written at the end too
            with self._lock:
                if not self._changed:
                    continue
                self._changed = False
                times, now, modes = list(self._latency_ms), {**self._counts, **self._now}, dict(self._modes)
            times_ms = {"p50_ms": round(percentile(times, 0.5), 1), "p99_ms": round(percentile(times, 0.99), 1)}
            try:
                self._write(json.dumps({"live": {**now, **times_ms, "modes": modes}}) + "\n")
            except (OSError, ValueError):  # the reader has closed the pipe
                return


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of `values` do not exceed (nearest rank); 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)] if ordered else 0.0
