"""Trials of studies on a robot, led by a person at a page: the endpoints, over the desk and the ledger of each study."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from components.evaluation.studies.desk import DESK, ROBOT, Answer, Asked, Start, StudyDesk
from components.evaluation.studies.labels import Label
from components.evaluation.studies.run import is_running
from flows.web.http.endpoint import Call, Endpoint, Refused, not_found
from flows.web.live.cells import Cells
from flows.web.live.orders import OrderDesk, OrderReply, OrderRequest
from flows.web.live.pen import Pens
from flows.web.views.trials.documents import StudyRows, TrialAnswer, TrialNow, TrialStart, TrialStop, TrialTaken
from flows.web.views.trials.standing import row_of, trial_now
from model_core.access import Role
from model_core.spec.errors import require

_FRESH_S = 5.0  # a start counts where the page has heard from the console since
_TAKEN_S, _STOP_S, _LOOK_S = 2.0, 10.0, 0.05
_TOO_EARLY = 425  # the page keeps its answer and sends it again
_STUDY, _KEY = re.compile(r"^[0-9a-f]{16}$"), re.compile(r"^[0-9a-f]{16,64}$")
_TRIAL = "/api/trials/{study}"


def trial_endpoints(home: Path) -> Sequence[Endpoint]:
    """The studies, one study's trial, and what a person orders and says of it."""
    pages = _TrialPages(home.resolve() / "studies")
    return (
        Endpoint(method="GET", path="/api/trials", does="Studies on a robot", role=Role.OBSERVE, answer=StudyRows, handle=pages.listed),
        Endpoint(method="GET", path=_TRIAL, does="What is asked now", role=Role.OBSERVE, answer=TrialNow, handle=pages.now),
        Endpoint(
            method="POST", path=f"{_TRIAL}/start", does="The scene is laid out: let the robot move", role=Role.OPERATE, answer=TrialTaken,
            body=TrialStart, handle=pages.start,
        ),
        Endpoint(
            method="POST", path=f"{_TRIAL}/answer", does="What came of a trial; once for each key", role=Role.OPERATE, answer=TrialTaken,
            body=TrialAnswer, handle=pages.answer,
        ),
        Endpoint(
            method="POST", path=f"{_TRIAL}/stop", does="Stop the robot of a trial", role=Role.OPERATE, answer=OrderReply,
            body=TrialStop, handle=pages.stop,
        ),
    )  # fmt: skip


class _TrialPages:
    def __init__(self, studies: Path) -> None:
        self._studies = studies

    def listed(self, _: Call) -> StudyRows:
        folders = sorted(path.parent for path in self._studies.glob(f"*/{DESK}") if _STUDY.match(path.parent.name))
        return StudyRows(studies=tuple(row_of(folder) for folder in folders))

    def now(self, call: Call) -> TrialNow:
        return trial_now(self._folder(call))

    def start(self, call: Call) -> TrialTaken:
        """A start that was under way for long, or is of a page that shows what is over, moves nothing."""
        folder, number = self._folder(call), call.body.number
        desk, place = StudyDesk(folder), number - 1
        asked = _asked(folder, desk)
        if asked.place == place and asked.phase != "lay out":
            return TrialTaken(number=number, is_repeated=True)
        if asked.place != place:
            raise Refused(f"trial {asked.place + 1} is asked for, not {number}. Fix: read the page and press start again", 409)
        silent_s = time.time() - call.body.heard_at
        if abs(silent_s) > _FRESH_S:
            raise Refused(f"the page heard from the console {silent_s:.0f} s ago. Fix: look at the robot and press start again", 409)
        desk.give_start(Start(place=place, author=call.person.name, given_at=time.time()))
        if not _eventually(lambda: _asked(folder, desk).phase != "lay out"):
            desk.take_back_start()
            raise Refused(f"the study did not start trial {number} within {_TAKEN_S:g} s. Fix: press start again", 409)
        return TrialTaken(number=number, is_repeated=False)

    def answer(self, call: Call) -> TrialTaken:
        folder, given = self._folder(call), call.body
        require(bool(_KEY.match(given.key)), "key: expected 16 to 64 hex digits", got=given.key[:80])
        require(1 <= given.number <= 10**6, "number: expected that of a trial", got=given.number)
        label = Label(success=given.success, progress=float(given.progress))
        desk, place = StudyDesk(folder), given.number - 1
        answer = Answer(place=place, key=given.key, success=label.success, progress=label.progress, author=call.person.name)
        found = desk.answer(place)
        if found is None:
            _check_answer(folder, desk, place)
            found = desk.give_answer(answer)
        if found.key != given.key:
            said = "success" if found.success else f"failure, stage progress {found.progress:g}"
            raise Refused(f"trial {given.number} has an answer of {found.author}: {said}. Yours does not count", 409)
        return TrialTaken(number=given.number, is_repeated=found is not answer)

    def stop(self, call: Call) -> OrderReply:
        """Ordered until the robot has it: the cell of a trial that was just started does not listen at once."""
        folder, place = self._folder(call), call.body.number - 1
        desk = StudyDesk(folder)
        orders = OrderDesk(Cells(desk.folder), Pens())
        request = OrderRequest(kind="stop", sentence=f"trial {place + 1} was stopped at its page")
        give_up_at, said = time.monotonic() + _STOP_S, "the cell shows nothing"
        while time.monotonic() < give_up_at:
            asked = _asked(folder, desk)
            if (asked.place, asked.phase) != (place, "running"):
                raise Refused(f"trial {place + 1} does not run: nothing was stopped", 409)
            try:
                reply = orders.give(ROBOT, call.person, request)
            except Refused as error:
                said = str(error)
            else:
                if reply.outcome != "unanswered":
                    return reply
                said = reply.reason
            time.sleep(_LOOK_S)
        raise Refused(f"the robot did not take the stop of trial {place + 1}: {said}. Fix: use the robot's own stop", 409)

    def _folder(self, call: Call) -> Path:
        name = call.path["study"]
        folder = self._studies / name
        if not _STUDY.match(name) or not (folder / DESK).is_dir():
            raise not_found(f"study {name[:40]!r}", "start one with `actwright study run --phone`")
        return folder


def _asked(folder: Path, desk: StudyDesk) -> Asked:
    """What is asked by the program that runs the study; refused where none does."""
    asked = desk.asked()
    if asked is None or not is_running(folder):
        raise Refused(f"no program runs study {folder.name}. Fix: the same command of `actwright study run` again", _TOO_EARLY)
    return asked


def _check_answer(folder: Path, desk: StudyDesk, place: int) -> None:
    """Refused where the trial is not one that an answer is asked for; with `_TOO_EARLY` where one will be."""
    asked = desk.asked()
    if asked is not None and place < asked.place:
        raise Refused(
            f"trial {place + 1} is on record without this answer: it was void by the study's rule. The answer does not count", 409
        )
    if asked is None or place > asked.place:
        raise Refused(f"trial {place + 1} was not run: there is nothing to say of it", 409)
    if _asked(folder, desk).phase != "label":
        raise Refused(f"trial {place + 1} has not ended. Fix: send the answer again when the robot has stopped", _TOO_EARLY)


def _eventually(holds: Callable[[], bool]) -> bool:
    give_up_at = time.monotonic() + _TAKEN_S
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_LOOK_S)
    return True
