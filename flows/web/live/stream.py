"""The live stream of one cell: what changed since the last event, for each reader; a slow reader gets fewer events, not old ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from flows.web.live.cells import Cells
from flows.web.live.orders import SILENT_S
from flows.web.live.pen import PenHolder, Pens
from model_core.spec.live.view import CellView, LiveBody, LiveDecision, LiveEvent, LiveRow, OrderOutcome

EVERY_S, AT_LEAST_EVERY_S = 0.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveUpdate:
    """One event. body, decision: None where they are those of the event before; rows, events, outcomes: the new ones.

    silent_s: since the cell last showed itself. picture_age_s: since the newest pictures were taken. is_stale: they are not live.
    """

    cell: str
    silent_s: float
    picture_age_s: float
    is_stale: bool
    is_running: bool
    has_ended: bool
    mode: str
    reason: str
    mode_for_s: float
    task: str
    instruction: str
    episode: int
    episode_id: str
    step: int
    strategy: str
    model_version: str
    contract_id: str
    counts: Mapping[str, int]
    pen: PenHolder
    body: LiveBody | None
    decision: LiveDecision | None
    rows: tuple[LiveRow, ...]
    events: tuple[LiveEvent, ...]
    outcomes: tuple[OrderOutcome, ...]


class Reader:
    """What one reader has been told."""

    def __init__(self) -> None:
        self._written_at = self._told_at = 0.0
        self._episode, self._decision, self._row, self._event, self._outcome = -1, -1, 0, 0, 0.0
        self._pen = PenHolder()

    def update(self, view: CellView, pen: PenHolder, now: float) -> LiveUpdate | None:
        """The next event; None while there is nothing to tell. now: seconds since 1970."""
        is_same_pen = pen.name == self._pen.name
        if view.written_at == self._written_at and is_same_pen and now - self._told_at < AT_LEAST_EVERY_S:
            return None
        if view.written_at < self._written_at or (view.rows and view.rows[-1].number < self._row):  # another process
            self.__init__()
        update = self._whole(view, pen, now)
        self._written_at, self._told_at, self._pen, self._episode = view.written_at, now, pen, view.episode
        self._decision = view.decision.number if view.decision else -1
        self._row = view.rows[-1].number if view.rows else self._row
        self._event = view.events[-1].number if view.events else self._event
        self._outcome = view.outcomes[-1].at if view.outcomes else self._outcome
        return update

    def _whole(self, view: CellView, pen: PenHolder, now: float) -> LiveUpdate:
        silent_s = max(0.0, now - view.written_at)
        picture_age_s = max(0.0, now - view.decision.taken_at) if view.decision else 0.0
        is_new = view.decision is not None and view.decision.number != self._decision
        return LiveUpdate(
            cell=view.cell,
            silent_s=round(silent_s, 2),
            picture_age_s=round(picture_age_s, 2),
            is_stale=view.ended or not view.running or silent_s > SILENT_S or picture_age_s > SILENT_S,
            is_running=view.running and silent_s <= SILENT_S and not view.ended,
            has_ended=view.ended,
            mode=view.mode,
            reason=view.reason,
            mode_for_s=round(max(0.0, now - view.mode_since), 1),
            task=view.task,
            instruction=view.instruction,
            episode=view.episode,
            episode_id=view.episode_id,
            step=view.step,
            strategy=view.strategy,
            model_version=view.model_version,
            contract_id=view.contract_id,
            counts=view.counts,
            pen=pen,
            body=view.body if view.episode != self._episode else None,
            decision=view.decision if is_new else None,
            rows=tuple(row for row in view.rows if row.number > self._row),
            events=tuple(event for event in view.events if event.number > self._event),
            outcomes=tuple(outcome for outcome in view.outcomes if outcome.at > self._outcome),
        )


async def updates(cells: Cells, pens: Pens, name: str) -> AsyncIterator[LiveUpdate]:
    """Events for one reader, until it leaves."""
    reader = Reader()
    while True:
        view = await run_in_threadpool(cells.view, name)
        update = reader.update(view, pens.holder(name), time.time())
        if update is not None:
            yield update
        await asyncio.sleep(EVERY_S)
