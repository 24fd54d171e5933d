"""The console's side of a live cell: views read once, what a reader is told, the pen, orders and their answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from flows.web.http.endpoint import Person, Refused
from flows.web.http.people import People
from flows.web.live.cells import Cells
from flows.web.live.pen import PEN_S, PenHolder, Pens
from flows.web.live.stream import Reader, updates
from model_core.access import Role
from model_core.spec.files import atomic_write
from model_core.spec.live.view import (
    FORMAT,
    VIEW_FILE,
    CellView,
    LiveBody,
    LiveCamera,
    LiveDecision,
    LiveDim,
    LiveRow,
    OrderOutcome,
    encode_view,
)
from tests.console_parts import TOKENS, console_over, tokens

BODY = LiveBody(
    cameras=(LiveCamera(name="front", width=4, height=3),), actions=(LiveDim(name="dx", unit="m", low=-1, high=1),), trace_camera="front"
)
ANNA, BEN = (Person(name=name, role=Role.OPERATE, session=name) for name in ("Anna", "Ben"))
CHIEF = Person(name="Chief", role=Role.ADMIN, session="Chief")


def view(**changes: object) -> CellView:
    number = changes.pop("number", 7)
    decision = LiveDecision(
        number=number, seq=7, step=3, outcome="installed", taken_at=time.time(), latency_ms=40.0, depth=tuple(range(100))
    )
    base: dict[str, object] = {
        "format": FORMAT, "cell": "cell-1", "written_at": time.time(), "body": BODY, "running": True, "mode": "RUN", "decision": decision,
        "rows": (LiveRow(number=1, step=1, mode="RUN", action=(0.5,)), LiveRow(number=2, step=2, mode="RUN", action=(0.6,))),
        "pictures_of": number, "pictures": {"front": bytes(range(36))}, "episode": 1,
    }  # fmt: skip
    return CellView(**(base | changes))


def show(home, shown: CellView, name: str = "cell-1") -> None:
    atomic_write(home / "cells" / name / VIEW_FILE, encode_view(shown), durable=False)


def test_cells_are_listed_also_one_whose_view_is_damaged(tmp_path):
    show(tmp_path, view())
    show(tmp_path, view(written_at=time.time() - 60), "cell-2")
    atomic_write(tmp_path / "cells" / "cell-3" / VIEW_FILE, b"\xc1")
    rows = {row["name"]: row for row in console_over(tmp_path).get("/api/cells").json()["cells"]}
    assert rows["cell-1"]["is_running"]
    assert not rows["cell-2"]["is_running"]
    assert rows["cell-2"]["silent_s"] >= 60
    assert "no view" in rows["cell-3"]["problem"]


def test_pictures_of_recent_decisions_are_given_and_no_others(tmp_path):
    show(tmp_path, view())
    client = console_over(tmp_path)
    picture = client.get("/api/cells/cell-1/pictures/7/front")
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "no-store"  # numbers begin again with the next process
    show(tmp_path, view(number=8))
    assert client.get("/api/cells/cell-1/pictures/8/front").status_code == 200
    assert client.get("/api/cells/cell-1/pictures/7/front").status_code == 200
    for path in ("pictures/9/front", "pictures/7/wrist", "pictures/-1/front", "pictures/7/..%2fview.msgpack", "depth/7"):
        assert client.get(f"/api/cells/cell-1/{path}").status_code == 404, path
    for name in ("cell-9", "..", "%2e%2e%2fcell-1", ".hidden"):
        assert client.get(f"/api/cells/{name}/pictures/7/front").status_code == 404


def test_a_reader_is_told_what_is_new_and_that_a_picture_is_stale():
    reader, now = Reader(), time.time()
    first = reader.update(view(written_at=now), PenHolder(), now)
    assert first.body is not None
    assert first.decision is not None
    assert not first.is_stale
    assert reader.update(view(written_at=now), PenHolder(), now + 0.1) is None
    assert reader.update(view(written_at=now), PenHolder(name="Ben", left_s=9), now + 0.1).pen.name == "Ben"
    next_rows = (LiveRow(number=2, step=2, mode="RUN", action=(0.6,)), LiveRow(number=3, step=3, mode="HOLD", action=(0.0,)))
    second = reader.update(view(written_at=now + 0.2, rows=next_rows), PenHolder(), now + 0.2)
    assert [row.number for row in second.rows] == [3]
    assert second.body is None
    assert second.decision is None
    late = reader.update(view(written_at=now + 0.2, rows=next_rows), PenHolder(), now + 9.0)
    assert late.is_stale
    assert late.silent_s > 8
    restarted = reader.update(view(written_at=now + 10, rows=next_rows[:1], number=1), PenHolder(), now + 10)
    assert restarted.body is not None
    assert restarted.decision.number == 1


def test_the_stream_follows_the_file(tmp_path):
    show(tmp_path, view())

    async def two() -> list[object]:
        stream = updates(Cells(tmp_path / "cells"), Pens(), "cell-1")
        first = await anext(stream)
        show(tmp_path, view(mode="HOLD", reason="held by Anna"))
        return [first, await anext(stream)]

    first, second = asyncio.run(two())
    assert (first.mode, second.mode, second.reason) == ("RUN", "HOLD", "held by Anna")


def test_one_person_has_the_pen_and_it_returns_by_itself():
    now = [0.0]
    pens = Pens(clock=lambda: now[0])
    assert pens.take("cell-1", ANNA).name == "Anna"
    with pytest.raises(Refused, match="Anna has the pen"):
        pens.take("cell-1", BEN)
    with pytest.raises(Refused, match="needs admin"):
        pens.take("cell-1", BEN, over=True)
    assert pens.give_back("cell-1", BEN).name == "Anna"
    assert pens.take("cell-1", CHIEF, over=True).name == "Chief"
    now[0] = PEN_S + 1
    assert pens.holder("cell-1").name == ""
    assert pens.take("cell-1", BEN).name == "Ben"
    assert pens.take("cell-2", ANNA).name == "Anna"


def test_who_takes_the_pen_is_told_once_and_not_at_each_renewal(tmp_path):
    show(tmp_path, view())
    client = console_over(tmp_path, people=People(tokens()))
    sent = {role: {"authorization": f"Bearer {token}"} for role, token in TOKENS.items()}

    def ask(role: str, status: int, **asked: bool) -> None:
        assert client.post("/api/cells/cell-1/pen", json=asked, headers=sent[role]).status_code == status

    ask("operate", 200, take=True)
    ask("operate", 200, take=True)
    ask("admin", 409, take=True)
    ask("admin", 200, take=True, over=True)
    ask("operate", 200, take=False)  # it has none: nothing changes
    ask("admin", 200, take=False)
    lines = list(reversed(client.get("/api/operators", headers=sent["observe"]).json()["lines"]))
    assert [(line["number"], line["person"], json.loads(line["asked"])["take"], bool(line["refused"])) for line in lines] == [
        (1, "operate", True, False), (2, "admin", True, True), (3, "admin", True, False), (4, "admin", False, False),
    ]  # fmt: skip
    older = client.get("/api/operators?before=3", headers=sent["observe"]).json()
    assert ([line["number"] for line in older["lines"]], older["count"]) == ([2, 1], 4)
    assert client.get("/api/operators?before=-1", headers=sent["observe"]).status_code == 400


def _obedient(home, orders: list[dict], stop: threading.Event) -> None:
    """A cell that answers every order in its next view."""
    outcomes: list[OrderOutcome] = []
    while not stop.wait(0.02):
        for path in (home / "cells" / "cell-1" / "orders").glob("*.json"):
            orders.append(json.loads(path.read_text()))
            path.unlink()
            order = orders[-1]
            outcomes.append(
                OrderOutcome(
                    order_id=order["order_id"],
                    kind=order["kind"],
                    author=order["author"],
                    outcome="applied",
                    reason="",
                    revision=1,
                    at=time.time(),
                )
            )
            show(home, view(outcomes=tuple(outcomes)))


def test_orders_reach_the_cell_with_who_gave_them_and_their_answer_comes_back(tmp_path):
    show(tmp_path, view())
    orders, stop = [], threading.Event()
    thread = threading.Thread(target=_obedient, args=(tmp_path, orders, stop))
    thread.start()
    client = console_over(tmp_path, people=People(tokens()))
    sent = {role: {"authorization": f"Bearer {token}"} for role, token in TOKENS.items()}
    try:
        drawn = {"kind": "trace", "points": [[1, 2], [3, 1]]}
        answer = client.post("/api/cells/cell-1/orders", json=drawn, headers=sent["operate"])
        assert answer.json() | {"order_id": ""} == {"order_id": "", "outcome": "applied", "reason": "", "revision": 1}
        assert orders[0]["author"] == "operate"
        assert orders[0]["points"] == [[1, 2], [3, 1]]
        # another person sees who has the pen, and may still hold the cell
        refused = client.post("/api/cells/cell-1/orders", json=drawn, headers=sent["admin"])
        assert refused.status_code == 409
        assert "operate has the pen" in refused.json()["reason"]
        assert client.post("/api/cells/cell-1/orders", json={"kind": "hold"}, headers=sent["admin"]).json()["outcome"] == "applied"
        assert client.post("/api/cells/cell-1/orders", json={"kind": "resume"}, headers=sent["operate"]).status_code == 403
        for role in ("observe",):
            for path, body in (("orders", {"kind": "hold"}), ("pen", {"take": True})):
                assert client.post(f"/api/cells/cell-1/{path}", json=body, headers=sent[role]).status_code == 403
    finally:
        stop.set()
        thread.join()
    assert [order["kind"] for order in orders] == ["trace", "hold"]
    log = client.get("/api/operators", headers=sent["observe"]).json()
    assert log["problem"] == ""
    told = [(line["person"], (json.loads(line["asked"]) or {}).get("kind"), bool(line["refused"])) for line in reversed(log["lines"])]
    assert told == [
        ("operate", "trace", False), ("admin", "trace", True), ("admin", "hold", False), ("operate", "resume", True),
        ("observe", None, True), ("observe", None, True),  # what the role does not allow is not read, and told
    ]  # fmt: skip
    assert "has the role observe" in log["lines"][0]["refused"] or "observe" in log["lines"][0]["refused"]
    path = tmp_path / "console" / "operators.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"person": "admin"', b'"person": "Anna!"', 1))
    assert "changed" in console_over(tmp_path).get("/api/operators").json()["problem"]


@pytest.mark.parametrize(
    "order", [{"kind": "trace"}, {"kind": "trace", "points": [[1, 2]] * 6}, {"kind": "dance"}, {"kind": "stop"}, {"kind": "edit"}]
)
def test_an_order_that_says_nothing_is_refused_before_the_cell_sees_it(tmp_path, order):
    show(tmp_path, view())
    assert console_over(tmp_path).post("/api/cells/cell-1/orders", json=order).status_code == 400
    assert not list((tmp_path / "cells" / "cell-1").glob("orders/*"))


def test_a_cell_that_does_not_run_gets_no_order_and_one_that_is_silent_none_later(tmp_path):
    client = console_over(tmp_path)
    show(tmp_path, view(ended=True))
    assert client.post("/api/cells/cell-1/orders", json={"kind": "hold"}).status_code == 409
    show(tmp_path, view())
    answer = client.post("/api/cells/cell-1/orders", json={"kind": "hold"}).json()
    assert answer["outcome"] == "unanswered"
    assert not list((tmp_path / "cells" / "cell-1" / "orders").iterdir())
