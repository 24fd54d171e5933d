"""What a cell is doing, published as one file for people to look at (`model_core.spec.live.view`): taken from what its audit is told.

The control loop only stores references. A thread of its own packs them and writes the file, at most ten times a second; a disk that takes
nothing delays that thread and no one else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_core.spec.files import atomic_write
from model_core.spec.live.view import (
    FORMAT,
    KEPT_EVENTS,
    KEPT_OUTCOMES,
    KEPT_ROWS,
    VIEW_FILE,
    CellView,
    LiveBody,
    LiveCamera,
    LiveDim,
    LiveEvent,
    LiveRow,
    OrderOutcome,
    encode_view,
)
from serving.workcell.audit.interface import ActionExecuted, Audit, DecisionMade, EpisodeBegun, EpisodeEnded
from serving.workcell.audit.live_decision import live_decision

logger = logging.getLogger(__name__)

EVERY_S, AT_LEAST_EVERY_S = 0.1, 1.0
_QUIET = frozenset({"part"})


class LiveView:
    """Passes everything on to `inner` and writes the newest state into `folder` now and then. wall: seconds since 1970."""

    def __init__(self, inner: Audit, folder: Path, cell: str, *, every_s: float = EVERY_S, wall: Callable[[], float] = time.time) -> None:
        self._inner, self._path, self._every_s, self._wall = inner, folder / VIEW_FILE, every_s, wall
        self._lock = threading.Lock()
        self._view = CellView(format=FORMAT, cell=cell, written_at=wall(), mode="HOLD", reason="no episode has begun", mode_since=wall())
        self._rows: deque[tuple[int, ActionExecuted]] = deque(maxlen=KEPT_ROWS)
        self._events: deque[LiveEvent] = deque(maxlen=KEPT_EVENTS)
        self._outcomes: deque[OrderOutcome] = deque(maxlen=KEPT_OUTCOMES)
        self._newest: tuple[DecisionMade, float] | None = None
        self._numbers = {"decision": 0, "row": 0, "event": 0}
        self._counts = {"finished": 0, "successes": 0, "decisions": 0, "refused": 0, "holds": 0}
        self._is_changed, self._trouble = True, ""
        self._ended = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._main, name="live-view", daemon=True)
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
            self._rows.clear()
            self._newest, self._is_changed = None, True
            self._view = replace(
                self._view,
                body=live_body(begun),
                task=begun.task,
                instruction=begun.instruction,
                episode=self._view.episode + 1,
                episode_id=begun.episode_id,
                strategy=begun.strategy,
                model_version=begun.model_version,
                contract_id=begun.contract_id,
                running=True,
                step=0,
            )
        self._inner.begin_episode(begun)

    def decision(self, made: DecisionMade) -> None:
        """A request was answered, refused or cancelled."""
        with self._lock:
            self._numbers["decision"] += 1
            self._counts["decisions" if made.chunk is not None else "refused"] += 1
            # how long ago the pictures were taken is known by the cell's own clock, which may be a simulated one
            self._newest, self._is_changed = (made, self._wall() - max(0.0, made.answered_s - made.t_s)), True
        self._inner.decision(made)

    def executed(self, action: ActionExecuted) -> None:
        """A command was given to the driver."""
        with self._lock:
            self._numbers["row"] += 1
            self._counts["holds"] += action.row < 0
            self._rows.append((self._numbers["row"], action))
            self._is_changed = True
        self._inner.executed(action)

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        """Anything else."""
        if kind not in _QUIET:
            self._note(kind, detail)
        self._inner.event(t_s, kind, detail)

    def end_episode(self, ended: EpisodeEnded) -> None:
        """The episode is over."""
        with self._lock:
            self._counts["finished"] += 1
            self._counts["successes"] += ended.success
            self._view = replace(self._view, running=False)
        self._note("ended", {"stop_reason": ended.stop_reason, "detail": ended.detail})
        self._inner.end_episode(ended)

    def answered(self, outcome: OrderOutcome) -> None:
        """What became of a person's order; safe from any thread."""
        with self._lock:
            self._outcomes.append(outcome)
            self._is_changed = True

    def close(self) -> None:
        """Write the last view, which says that the cell has ended, and end the audit inside."""
        self._ended.set()
        self._thread.join(1.0)
        self._inner.close()

    def _note(self, kind: str, detail: Mapping[str, object]) -> None:
        now = self._wall()
        with self._lock:
            self._numbers["event"] += 1
            words = " ".join(f"{name}={value}" for name, value in detail.items())
            self._events.append(LiveEvent(number=self._numbers["event"], at=now, kind=kind, text=words[:300]))
            if kind == "mode":
                mode, reason = str(detail.get("mode", "")), str(detail.get("reason", ""))[:300]
                self._view = replace(self._view, mode=mode, reason=reason, mode_since=now)
            elif kind == "instruction":
                self._view = replace(self._view, instruction=str(detail.get("text", ""))[:500])
            self._is_changed = True

    # --- the writing thread -------------------------------------------------------------------------------------------

    def _main(self) -> None:
        is_last, written_at = False, -np.inf
        while not is_last:
            is_last = self._ended.wait(self._every_s)
            with self._lock:
                if not (self._is_changed or is_last or time.monotonic() - written_at >= AT_LEAST_EVERY_S):
                    continue
                self._is_changed = False
                rows, newest, number = list(self._rows), self._newest, self._numbers["decision"]
                view = replace(self._view, counts=dict(self._counts), events=tuple(self._events), outcomes=tuple(self._outcomes))
            written_at = time.monotonic()
            self._write(replace(_whole(view, rows, newest, number), ended=is_last, written_at=self._wall()))

    def _write(self, view: CellView) -> None:
        try:
            atomic_write(self._path, encode_view(view), durable=False)
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:  # once, and not at every write
                logger.warning("live_view.unwritten file=%s reason=%s", self._path, error)
            self._trouble = str(error)


def live_body(begun: EpisodeBegun) -> LiveBody:
    """What a viewer must know of the body and of the policy's language."""
    body, reasoning = begun.body or begun.contract.embodiment, begun.contract.reasoning
    return LiveBody(
        cameras=tuple(LiveCamera(name=one.name, width=one.width, height=one.height) for one in body.cameras),
        actions=tuple(LiveDim(name=one.name, unit=one.unit, low=float(one.low), high=float(one.high)) for one in body.action.dims),
        control_hz=float(body.control_hz),
        trace_camera=reasoning.trace_camera or body.cameras[0].name,
        trace_range=reasoning.trace_range,
        trace_points=reasoning.trace_points,
        depth_grid=reasoning.depth_grid,
        depth_codes=reasoning.depth_codes,
        codebook_digest=reasoning.codebook_digest,
        takes_steering=reasoning.steering,
    )


def _whole(view: CellView, rows: list[tuple[int, ActionExecuted]], newest: tuple[DecisionMade, float] | None, number: int) -> CellView:
    told = tuple(
        LiveRow(number=count, step=row.step, mode=row.mode, action=tuple(row.sent_A.tolist()), clipped=tuple(row.clipped))
        for count, row in rows
    )
    step = rows[-1][1].step if rows else view.step
    if newest is None:
        return replace(view, rows=told, step=step)
    made, taken_at = newest
    sizes = {one.name: (one.height, one.width, 3) for one in view.body.cameras}
    images = made.observation.images
    pictures = {name: np.ascontiguousarray(image).tobytes() for name, image in images.items() if image.shape == sizes.get(name)}
    return replace(view, rows=told, step=step, decision=live_decision(made, number, taken_at), pictures_of=number, pictures=pictures)
