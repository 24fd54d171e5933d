"""Live cells: the list, one cell's stream and pictures, its pen, and orders to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.pipeline.model_lookup import policies_here
from flows.platform.settings import Settings
from flows.web.http.endpoint import Call, Content, Endpoint, Events, not_found
from flows.web.live.cells import Cells
from flows.web.live.orders import SILENT_S, OrderDesk, OrderReply, OrderRequest
from flows.web.live.pen import PenHolder, Pens
from flows.web.live.pictures import depth_picture, encoded_picture
from flows.web.live.stream import LiveUpdate, updates
from model_core.access import Role
from model_core.spec.errors import WireError
from model_core.spec.live.view import CELLS

_CELL = "/api/cells/{cell}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """One cell. problem: why its view cannot be read, "" where it can. silent_s: since it last showed itself."""

    name: str
    task: str = ""
    mode: str = ""
    reason: str = ""
    is_running: bool = False
    silent_s: float = 0.0
    episode: int = 0
    successes: int = 0
    finished: int = 0
    model_version: str = ""
    pen: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellList:
    """Every cell that has shown itself in this home, by name."""

    cells: tuple[CellRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PenRequest:
    """Take the pen (or keep it for longer), or give it back. over: take it from the person who has it."""

    take: bool
    over: bool = False


def cell_endpoints(settings: Settings) -> Sequence[Endpoint]:
    """Everything of the cells of one home."""
    pages = _CellPages(settings)
    return (
        Endpoint(method="GET", path="/api/cells", does="The cells", role=Role.OBSERVE, answer=CellList, handle=pages.listed),
        Endpoint(
            method="GET",
            path=f"{_CELL}/live",
            does="What a cell does, as it happens",
            role=Role.OBSERVE,
            answer=Events,
            event=LiveUpdate,
            handle=pages.live,
        ),
        Endpoint(
            method="GET",
            path=f"{_CELL}/pictures/{{number}}/{{camera}}",
            does="What a camera saw at a recent decision",
            role=Role.OBSERVE,
            answer=Content,
            handle=pages.picture,
        ),
        Endpoint(
            method="GET",
            path=f"{_CELL}/depth/{{number}}",
            does="The depth that the newest decision predicted, decoded",
            role=Role.OBSERVE,
            answer=Content,
            handle=pages.depth,
        ),
        Endpoint(
            method="POST",
            path=f"{_CELL}/pen",
            does="Take or give back the pen of a cell",
            role=Role.OPERATE,
            answer=PenHolder,
            body=PenRequest,
            is_news=pages.changes_pen,
            handle=pages.pen,
        ),
        Endpoint(
            method="POST",
            path=f"{_CELL}/orders",
            does="Order a cell: a drawn trace, an edit, another sentence, hold, go, stop, resume",
            role=Role.OPERATE,
            answer=OrderReply,
            body=OrderRequest,
            handle=pages.order,
        ),
    )


class _CellPages:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cells, self._pens = Cells(settings.home.resolve() / CELLS), Pens()
        self._desk = OrderDesk(self._cells, self._pens)
        self._codebooks: tuple[Path, ...] | None = None

    def listed(self, _: Call) -> CellList:
        return CellList(cells=tuple(self._row(name) for name in self._cells.names()))

    def live(self, call: Call) -> Events:
        name = call.path["cell"]
        self._cells.view(name)  # refused here, before the stream begins
        return Events(stream=lambda: updates(self._cells, self._pens, name))

    def picture(self, call: Call) -> Content:
        spec, pixels = self._cells.picture(call.path["cell"], _number(call), call.path["camera"])
        return encoded_picture(pixels, spec.width, spec.height)

    def depth(self, call: Call) -> Content:
        view, number = self._cells.view(call.path["cell"]), _number(call)
        if view.decision is None or view.decision.number != number or not view.decision.depth:
            raise not_found(f"the depth of decision {number}", "ask for that of the newest decision")
        if not view.body.codebook_digest:
            raise not_found("the depth codec", "this contract names none; the page shows the codes")
        if self._codebooks is None:
            self._codebooks = tuple(packed.codebook for packed in policies_here(self._settings))
        return depth_picture(view.decision.depth, view.body.codebook_digest, self._codebooks)

    def pen(self, call: Call) -> PenHolder:
        name, asked = call.path["cell"], call.body
        self._cells.folder_of(name)
        return self._pens.take(name, call.person, over=asked.over) if asked.take else self._pens.give_back(name, call.person)

    def changes_pen(self, call: Call) -> bool:
        """Not so for a page that keeps its pen every few seconds."""
        return call.body.take != self._pens.has(call.path["cell"], call.person)

    def order(self, call: Call) -> OrderReply:
        return self._desk.give(call.path["cell"], call.person, call.body)

    def _row(self, name: str) -> CellRow:
        try:
            view = self._cells.view(name)
        except (WireError, OSError) as error:
            return CellRow(name=name, problem=str(error)[:300])
        silent_s = max(0.0, time.time() - view.written_at)
        return CellRow(
            name=name,
            task=view.task,
            mode=view.mode,
            reason=view.reason,
            is_running=view.running and not view.ended and silent_s <= SILENT_S,
            silent_s=round(silent_s, 1),
            episode=view.episode,
            successes=view.counts.get("successes", 0),
            finished=view.counts.get("finished", 0),
            model_version=view.model_version,
            pen=self._pens.holder(name).name,
        )


def _number(call: Call) -> int:
    text = call.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise not_found(f"decision {text[:20]!r}", "ask with the number of a decision")
    return int(text)
