"""What a running cell shows to people, and what it does at their orders: drawn, edited, held, stopped. A virtual clock, the real loop."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from model_core.spec.errors import SpecError, WireError
from model_core.spec.live.orders import Order
from model_core.spec.live.view import VIEW_FILE, decode_view, encode_view
from model_core.spec.protocol.wire import Control, Observe
from serving.workcell.audit.interface import NullAudit
from serving.workcell.audit.live_view import LiveView
from serving.workcell.control.order_files import OrderedCell, OrderFiles, read_order
from serving.workcell.motion.motion_state import MotionState
from tests.fakes import make_contract
from tests.virtual_world import Service, make_world

ID = "0123456789abcdef"


@dataclass
class ResettingService(Service):
    is_resetting: bool = False


def reasoning_service() -> ResettingService:
    """Answers with depth codes and a trace and applies steering; while `is_resetting` it says RESET with every answer."""
    service = ResettingService(make_contract())

    def answer(observe: Observe):
        revision = 0 if observe.steering is None else observe.steering.revision
        codes_G, trace_N2 = np.arange(100, dtype=np.int64), np.array([[10, 20], [30, 40]], np.int64)
        chunk = service.chunk(observe, depth_codes_G=codes_G, trace_N2=trace_N2, applied_revision=revision, timing_ms={"decode": 40.0})
        reset = Control(kind="RESET", session_id=observe.session_id, epoch=observe.epoch)
        return [(0.05, chunk), (0.05, reset)] if service.is_resetting else [(0.05, chunk)]

    service.answer = answer
    return service


class Watched:
    """A world whose cell is shown in a folder and takes orders from it."""

    def __init__(self, folder, *, is_realtime: bool = True, **world: object) -> None:
        self.folder = folder
        self.view_of = LiveView(NullAudit(), folder, "cell-v", every_s=0.01)
        self.world = make_world(audit=self.view_of, service=reasoning_service(), **world)
        body = self.world.service.contract.embodiment
        ordered = OrderedCell(cell=self.world.cell, body=body, camera=body.cameras[0].name, is_realtime=is_realtime)
        self.orders = OrderFiles(folder, ordered, self.view_of.answered, wall=lambda: 1000.0)

    def order(self, kind: str, **what: object) -> None:
        (self.folder / "orders").mkdir(exist_ok=True)
        document = {"order_id": ID, "kind": kind, "author": "Anna", "given_at": 999.0, **what}
        (self.folder / "orders" / f"{kind}.json").write_text(json.dumps(document))
        self.orders.look()

    def seen(self):
        """The last view, after which the cell shows nothing more."""
        self.view_of.close()
        return decode_view((self.folder / VIEW_FILE).read_bytes())


def test_a_view_has_what_a_person_needs_to_see(tmp_path):
    watched = Watched(tmp_path)
    watched.world.step(12)
    view = watched.seen()
    assert view.cell == "cell-v"
    assert view.running
    assert view.ended
    assert view.mode == "RUN"
    assert view.decision.outcome == "installed"
    assert view.pictures_of == view.decision.number
    assert len(view.decision.depth) == 100
    assert view.decision.trace
    assert len(view.decision.actions[0]) == len(view.body.actions) == len(view.rows[-1].action)
    camera = view.body.cameras[0]
    assert len(view.pictures[camera.name]) == camera.width * camera.height * 3
    numbers = [row.number for row in view.rows]
    assert numbers == sorted(set(numbers))
    assert any(event.kind == "mode" for event in view.events)


def test_a_drawn_trace_is_in_the_next_request_with_its_author(tmp_path):
    watched = Watched(tmp_path)
    watched.world.step(5)
    watched.order("trace", points=[[1, 2], [10, 12]], ttl_ms=30_000)
    watched.world.step(20)
    view = watched.seen()
    assert [(one.outcome, one.revision, one.author) for one in view.outcomes] == [("applied", 1, "Anna")]
    assert view.decision.steering.points == ((1.0, 2.0), (10.0, 12.0))
    assert view.decision.steering.author == "Anna"
    assert view.decision.applied_revision == 1
    assert any(event.kind == "steering" and "Anna" in event.text for event in view.events)


def test_a_cleared_trace_and_another_sentence_are_in_the_next_request(tmp_path):
    watched = Watched(tmp_path)
    watched.order("trace", points=[[1, 2]])
    watched.world.step(5)
    watched.order("clear")
    watched.order("instruct", sentence="push the button")
    watched.world.step(20)
    view = watched.seen()
    assert view.decision.steering is None
    assert view.instruction == "push the button"


def test_a_persons_hold_is_not_ended_by_the_service(tmp_path):
    watched = Watched(tmp_path)
    watched.world.step(12)
    watched.order("hold")
    watched.world.step(2)
    assert watched.world.cell.machine.mode is MotionState.HOLD
    commands = len(watched.world.robot.tags)
    asked, watched.world.service.is_resetting = len(watched.world.service.heard), True
    watched.world.step(20)
    assert {tag.mode for tag in watched.world.robot.tags[commands:]} == {"HOLD"}
    assert len(watched.world.service.heard) > asked  # answers came meanwhile, and a RESET with each
    watched.world.service.is_resetting = False
    watched.order("go")
    watched.world.step(20)
    assert watched.world.cell.machine.mode is MotionState.RUN
    assert "held by Anna" in " ".join(event.text for event in watched.seen().events)


def test_a_person_stops_the_cell_and_resumes_it(tmp_path):
    watched = Watched(tmp_path, cell={"operator_wait_s": 60.0})
    watched.world.step(12)
    watched.order("stop", sentence="a hand is in the way")
    watched.world.step(3)
    assert watched.world.cell.machine.mode is MotionState.SAFE_STOP
    assert "Anna: a hand is in the way" in watched.world.cell.machine.reason
    watched.order("go")
    watched.world.step(5)
    assert watched.world.cell.machine.mode is MotionState.SAFE_STOP
    watched.order("resume")
    watched.world.step(30)
    assert watched.world.cell.machine.mode is MotionState.RUN


@pytest.mark.parametrize(
    ("kind", "what", "sentence"),
    [
        ("trace", {"points": [[1, 2]], "given_at": 990.0}, "10.0 s old"),
        ("trace", {"points": [[1, 400]]}, "outside"),
        ("trace", {"points": [[1, 2]], "camera": "ceiling"}, "ceiling"),
        ("edit", {"depth": [1, 2, 3]}, "depth codes"),
        ("edit", {"depth": [10**30]}, "OverflowError"),  # the next order is taken all the same
    ],
)
def test_an_order_that_cannot_be_carried_out_changes_nothing_and_says_why(tmp_path, kind, what, sentence):
    watched = Watched(tmp_path)
    watched.order(kind, **what)
    watched.world.step(12)
    view = watched.seen()
    assert view.outcomes[-1].outcome == "refused"
    assert sentence in view.outcomes[-1].reason
    assert view.decision.steering is None
    assert not list((tmp_path / "orders").iterdir())


def test_a_simulated_world_that_waits_for_no_person_takes_no_hold(tmp_path):
    watched = Watched(tmp_path, is_realtime=False)
    watched.order("hold")
    assert "--realtime" in watched.seen().outcomes[-1].reason


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[" * 5000,
        b"x" * 20_000,
        b'{"order_id": "' + ID.encode() + b'", "kind": "dance", "author": "Anna", "given_at": 1}',
        b'{"order_id": "../../etc", "kind": "hold", "author": "Anna", "given_at": 1}',
        b'{"order_id": "' + ID.encode() + b'", "kind": "hold", "author": "", "given_at": 1}',
        b'{"order_id": "' + ID.encode() + b'", "kind": "trace", "author": "Anna", "given_at": 1, "points": [[1e999, 2]]}',
    ],
)
def test_what_is_no_order_is_refused(content):
    with pytest.raises(SpecError):
        read_order(content)


def test_orders_from_before_the_cell_began_are_dropped(tmp_path):
    watched = Watched(tmp_path)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "old.json").write_text("{}")
    with watched.orders:
        assert not list((tmp_path / "orders").iterdir())
    watched.view_of.close()


def test_what_is_no_view_is_refused(tmp_path):
    watched = Watched(tmp_path)
    watched.world.step(12)
    view = watched.seen()
    assert decode_view(encode_view(view)) == view
    whole = encode_view(view)
    for wrong in (b"", whole[:-1], b"\xc1", whole.replace(b"\xa6format\x01", b"\xa6format\x02")):
        with pytest.raises(WireError):
            decode_view(wrong)
    assert isinstance(Order(order_id=ID, kind="hold", author="Anna", given_at=1.0), Order)
