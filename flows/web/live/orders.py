"""Orders of people to a cell: written as a file for the cell to take, and what the cell answers in its view."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass

from flows.web.http.endpoint import Person, Refused
from flows.web.live.cells import Cells
from flows.web.live.pen import Pens
from model_core.access import Role
from model_core.spec.documents import to_document
from model_core.spec.files import atomic_write
from model_core.spec.live.orders import ORDERS, Kind, Order
from model_core.spec.live.view import OrderOutcome

SILENT_S = 3.0  # a cell that has shown nothing for so long does not run
_ANSWER_S, _LOOK_S = 2.0, 0.03
_WITHOUT_PEN = frozenset({"hold", "stop"})  # who sees a danger does not ask first
_FOR_ADMINS = frozenset({"resume"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """What a person orders; fields as in `model_core.spec.live.orders.Order`."""

    kind: Kind
    camera: str = ""
    points: tuple[tuple[float, float], ...] = ()
    ttl_ms: float = 60_000.0
    trace: tuple[tuple[int, int], ...] = ()
    depth: tuple[int, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReply:
    """What became of it. outcome: "applied" (in force from the cell's next control step), "refused", or "unanswered" by the cell."""

    order_id: str
    outcome: str
    reason: str = ""
    revision: int = 0


class OrderDesk:
    """Gives orders to the cells of one home."""

    def __init__(self, cells: Cells, pens: Pens) -> None:
        self._cells, self._pens = cells, pens

    def give(self, cell: str, person: Person, asked: OrderRequest) -> OrderReply:
        """Hand an order over and wait up to two seconds for the answer. Raises Refused where the person may not order it now."""
        self._check(cell, person, asked)
        order = Order(
            order_id=secrets.token_hex(8),
            kind=asked.kind,
            author=person.name[:100],
            given_at=time.time(),
            camera=asked.camera,
            points=asked.points,
            ttl_ms=asked.ttl_ms,
            trace=asked.trace,
            depth=asked.depth,
            sentence=asked.sentence,
        )
        path = self._cells.folder_of(cell) / ORDERS / f"{time.time_ns()}-{order.order_id}.json"
        atomic_write(path, json.dumps(to_document(order)), durable=False)
        answer = self._answer(cell, order)
        if answer is None:
            path.unlink(missing_ok=True)  # it is not carried out later, when the situation is another one
            return OrderReply(order_id=order.order_id, outcome="unanswered", reason=f"{cell} did not answer within {_ANSWER_S:g} s")
        return OrderReply(order_id=order.order_id, outcome=answer.outcome, reason=answer.reason, revision=answer.revision)

    def _check(self, cell: str, person: Person, asked: OrderRequest) -> None:
        view = self._cells.view(cell)
        silent_s = time.time() - view.written_at
        if view.ended or silent_s > SILENT_S:
            raise Refused(f"{cell} does not run: it showed itself {silent_s:.0f} s ago. Fix: start it with `actwright workcell run`", 409)
        if asked.kind in _FOR_ADMINS and not person.role.allows(Role.ADMIN):
            raise Refused(f"{person.name!r} has the role {person.role}; {asked.kind} needs {Role.ADMIN}", 403)
        if asked.kind not in (*_WITHOUT_PEN, *_FOR_ADMINS):
            self._pens.take(cell, person)

    def _answer(self, cell: str, order: Order) -> OrderOutcome | None:
        give_up_at = time.monotonic() + _ANSWER_S
        while time.monotonic() < give_up_at:
            found = next((one for one in self._cells.view(cell).outcomes if one.order_id == order.order_id), None)
            if found is not None:
                return found
            time.sleep(_LOOK_S)
        return None
