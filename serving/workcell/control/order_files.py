"""Orders of people, from files in a folder (`model_core.spec.live.orders`): each is taken once, carried out or refused, and answered.

An order that waited too long, or that no cell could carry out, changes nothing. Every order is told to the audit with who gave it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import from_document
from model_core.spec.errors import ActwrightError, SpecError, require
from model_core.spec.live.orders import MAX_ORDER_BYTES, ORDERS, TOO_OLD_S, Order
from model_core.spec.live.view import OrderOutcome
from model_core.spec.protocol.steering_input import drawing
from model_core.spec.protocol.wire import Edit, SteeringInput
from serving.workcell.control.operator_input import GO, HOLD

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_DEMANDS: Mapping[str, str] = {"hold": HOLD, "go": GO}
_IN_REAL_TIME = frozenset({"hold", "go", "resume"})


class TakesOrders(Protocol):
    """What of a cell people order; every method is safe from any thread."""

    def steer(self, steering: SteeringInput | None) -> None: ...  # noqa: D102

    def edit(self, edit: Edit) -> None: ...  # noqa: D102

    def instruct(self, instruction: str) -> None: ...  # noqa: D102

    def demand(self, kind: str, person: str) -> None: ...  # noqa: D102

    def stop(self, reason: str) -> None: ...  # noqa: D102

    def resume(self, operator: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedCell:
    """The cell, its body, the camera on which the policy takes a trace, and whether its world goes on while a person thinks."""

    cell: TakesOrders
    body: EmbodimentSpec
    camera: str
    is_realtime: bool


class OrderFiles:
    """Looks into `folder`/orders from a thread of its own. answered: is told what became of each order. wall: seconds since 1970."""

    def __init__(
        self, folder: Path, ordered: OrderedCell, answered: Callable[[OrderOutcome], None], *, wall: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._ordered, self._answered, self._wall = folder / ORDERS, ordered, answered, wall
        self._revision = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, name="orders", daemon=True)

    def __enter__(self) -> Self:
        """Keep looking. Orders that were given before this cell began are dropped: they were for another one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self._folder.iterdir():
            old.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> None:
        """Carry out what is there, oldest first."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                with path.open("rb") as file:
                    content = file.read(MAX_ORDER_BYTES + 1)
                path.unlink()
            except OSError as error:
                logger.warning("order.unreadable file=%s reason=%s", path, error.strerror)
                continue
            self._take(path, content)

    def _take(self, path: Path, content: bytes) -> None:
        try:
            order = read_order(content)
        except ActwrightError as error:
            logger.warning("order.refused file=%s reason=%s", path, error)
            return
        try:
            self._carry_out(order)
        except ActwrightError as error:
            self._answer(order, "refused", str(error))
        except Exception as error:  # one order must not end the thread that takes the next one, which may be a stop
            logger.exception("order.failed file=%s", path)
            self._answer(order, "refused", f"the cell could not carry it out: {type(error).__name__}: {error}")
        else:
            self._answer(order, "applied", "")

    def _carry_out(self, order: Order) -> None:
        ordered, cell = self._ordered, self._ordered.cell
        age_s = self._wall() - order.given_at
        require(age_s <= TOO_OLD_S, f"the order is {age_s:.1f} s old, at most {TOO_OLD_S:g} s may pass. Fix: give it again")
        if order.kind in _IN_REAL_TIME and not ordered.is_realtime:
            raise SpecError(f"{order.kind}: this cell's simulated world waits for no person. Fix: start the cell with --realtime")
        match order.kind:
            case "trace":
                more = {"author": order.author, "ttl_ms": order.ttl_ms}
                drawn = drawing(order.points, ordered.body, order.camera or ordered.camera, revision=self._revision + 1, more=more)
                self._revision += 1
                cell.steer(drawn)
            case "clear":
                cell.steer(None)
            case "edit":
                edit = edit_of(order, self._revision + 1)
                self._revision += 1
                cell.edit(edit)
            case "instruct":
                cell.instruct(order.sentence)
            case "stop":
                cell.stop(f"stopped by {order.author}: {order.sentence}")
            case "resume":
                cell.resume(order.author)
            case _:
                cell.demand(_DEMANDS[order.kind], f"{order.author}{': ' if order.sentence else ''}{order.sentence}")

    def _answer(self, order: Order, outcome: str, reason: str) -> None:
        logger.info("order.%s kind=%s author=%s id=%s reason=%s", outcome, order.kind, order.author, order.order_id, reason)
        revision = self._revision if outcome == "applied" and order.kind in ("trace", "edit") else 0
        self._answered(
            OrderOutcome(
                order_id=order.order_id,
                kind=order.kind,
                author=order.author,
                outcome=outcome,
                reason=reason[:300],
                revision=revision,
                at=self._wall(),
            )
        )

    def _main(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.look()


def read_order(content: bytes) -> Order:
    """An order from a file. Raises SpecError saying what is wrong with it."""
    require(len(content) <= MAX_ORDER_BYTES, f"an order has at most {MAX_ORDER_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"an order is JSON: {error}") from error
    return from_document(Order, document, where="order")


def edit_of(order: Order, revision: int) -> Edit:
    """What a person changed in the model's reasoning. Raises SpecError for depth codes that are not one a cell."""
    return Edit(
        depth_codes_G=np.array(order.depth, np.int64) if order.depth else None,
        trace_N2=np.array(order.trace, np.int64) if order.trace else None,
        revision=revision,
        author=order.author,
    )


def operator_file(path: Path) -> Callable[[], str]:
    """A person resumes by writing a name into this file; the file is used up by it."""

    def name() -> str:
        try:
            text = path.read_text().strip()
            path.unlink()
        except OSError:
            return ""
        return text[:100]

    return name
