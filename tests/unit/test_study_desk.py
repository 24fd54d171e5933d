"""A study that a person leads at a page: what starts a trial and what does not, answers that come late, twice or from two people."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from components.config.judging.gate_config import GateConfig
from components.config.records import Silent
from components.evaluation.studies.design import Scene, lock
from components.evaluation.studies.desk import AtTheDesk, Start, StudyDesk
from components.evaluation.studies.ledger import whole_ledger
from components.evaluation.studies.plan import planned_blocks
from components.evaluation.studies.run import Trialled, is_running, run_study
from flows.commands.main import command_line
from flows.web.http.people import People
from model_core.spec.documents import to_document
from model_core.spec.errors import NotReady
from tests.console_parts import TOKENS, console_over, tokens
from tests.loopback import wait_until
from tests.unit.test_study_run import design

KEYS = [f"{number:032x}" for number in range(9)]


class Led:
    """A study over a desk, run by a thread; each trial waits for `ends` before its outcome is asked, and `void` ones ask for none."""

    def __init__(self, home) -> None:
        gate = to_document(GateConfig(max_pairs=1, pairs_per_block=2, margin=0.3))
        scenes = (Scene(task="press", seed=7), Scene(task="press", seed=8))
        plan = design(gate=gate, scenes=scenes, tasks=("press",), rules={"stages": ["reach", "hold"]})
        self.folder = lock(home / "studies", plan)
        self.desk, self.ends, self.void = StudyDesk(self.folder), threading.Semaphore(0), set[int]()
        self.trials = [trial for block in planned_blocks(plan) for trial in block]
        self.is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.desk.asked() is not None)

    def _run(self) -> None:
        operator = AtTheDesk(self.desk, sleep=self._sleep)

        def trial(planned) -> Trialled:
            operator.lay_out(planned)
            self.ends.acquire()
            if planned.place in self.void:
                return Trialled(success=False, stop_reason="timeout", void=True)
            label = operator.label(planned)
            return Trialled(success=label.success, progress=label.progress, stop_reason="max_steps", operator=operator.name)

        with contextlib.suppress(NotReady):
            run_study(self.folder, trial, Silent())

    def _sleep(self, seconds: float) -> None:
        if self.is_over:
            raise NotReady("the test is over")
        time.sleep(seconds / 10)

    def close(self) -> None:
        self.is_over = True
        self.ends.release(9)
        self._thread.join(10)

    def waits(self, phase: str, place: int) -> None:
        wait_until(lambda: (asked := self.desk.asked()) is not None and (asked.phase, asked.place) == (phase, place))


@pytest.fixture
def led(tmp_path) -> Iterator[Led]:
    study = Led(tmp_path)
    yield study
    study.close()


@pytest.fixture
def ask(led, tmp_path) -> Callable[..., tuple[int, dict]]:
    """Call the console's API about the study, as a person of a role; gives status and document."""
    client = console_over(tmp_path, people=People(tokens()))

    def call(what: str = "", role: str = "operate", **body: object) -> tuple[int, dict]:
        path = f"/api/trials/{led.folder.name}{what}"
        headers = {"authorization": f"Bearer {TOKENS[role]}"}
        answer = client.post(path, json=body, headers=headers) if body else client.get(path, headers=headers)
        return answer.status_code, answer.json()

    return call


def started(ask, number: int) -> None:
    status, told = ask("/start", number=number, heard_at=ask()[1]["heard_at"])
    assert status == 200, told


def test_trials_are_led_at_the_page_and_each_is_on_record_once(led, ask):
    status, now = ask(role="observe")
    assert (status, now["phase"], now["number"], now["planned"], now["last"]) == (200, "lay out", 1, 4, None)
    assert now["stages"] == [{"name": "none", "progress": 0.0}, {"name": "reach", "progress": 0.5}]
    assert "void" in now["void_rule"]
    assert ask("/start", role="observe", number=1, heard_at=0)[0] == 403
    assert ask("/start", number=1, heard_at=now["heard_at"] - 60)[0] == 409  # it was under way for a minute
    assert ask("/start", number=2, heard_at=now["heard_at"])[0] == 409
    assert ask("/answer", number=1, key=KEYS[0], success=True, progress=1)[0] == 425  # nothing was run yet
    started(ask, 1)
    assert ask("/start", number=1, heard_at=0)[1]["is_repeated"]  # the page did not hear that it was taken
    assert ask("/answer", number=1, key=KEYS[0], success=True, progress=1)[0] == 425  # the robot still moves
    led.ends.release()
    led.waits("label", 0)
    for wrong in ({"success": True, "progress": 0.5}, {"success": False, "progress": 7}, {"success": False, "progress": "1"}):
        assert ask("/answer", number=1, key=KEYS[0], **wrong)[0] == 400
    assert ask("/answer", number=1, key="no key", success=True, progress=1)[0] == 400
    told = [ask("/answer", number=1, key=KEYS[0], success=False, progress=0.5) for _ in range(3)]
    assert [(status, document["is_repeated"]) for status, document in told] == [(200, False), (200, True), (200, True)]
    status, refused = ask("/answer", number=1, key=KEYS[1], role="admin", success=True, progress=1)  # a second phone
    assert (status, "has an answer of operate: failure, stage progress 0.5" in refused["reason"]) == (409, True)
    led.waits("lay out", 1)
    last = ask()[1]["last"]
    assert last == {
        "number": 1, "blind": led.trials[0].blind, "task": "press", "outcome": "failure", "progress": 0.5, "stop_reason": "max_steps",
    }  # fmt: skip
    started(ask, 2)
    led.void.add(1)
    led.ends.release()
    led.waits("lay out", 2)
    status, refused = ask("/answer", number=2, key=KEYS[2], success=True, progress=1)  # said while the page had no connection
    assert (status, "void by the study's rule" in refused["reason"]) == (409, True)
    assert ask()[1]["last"]["outcome"] == "void"
    assert ask("/answer", number=9, key=KEYS[3], success=True, progress=1)[0] == 409
    trials = whole_ledger(led.folder).trials
    assert [(trial.success, trial.void, trial.operator) for trial in trials] == [(False, False, "operate"), (False, True, "")]


def test_the_page_never_learns_which_policy_it_is(led, ask):
    started(ask, 1)
    led.ends.release()
    led.waits("label", 0)
    ask("/answer", number=1, key=KEYS[0], success=True, progress=1)
    led.waits("lay out", 1)
    told = [str(ask()[1]), *(path.read_text() for path in led.desk.folder.rglob("*.json"))]
    for word in ("candidate", "champion", "a" * 8, "c" * 8):
        assert all(word not in one for one in told), word


def test_a_start_that_nobody_took_in_time_starts_nothing(led):
    led.close()  # only this desk looks from here on
    clock = time.time()
    desk = StudyDesk(led.folder, wall=lambda: clock)
    for given_at, place, is_taken in ((clock - 4.0, 0, False), (clock + 60.0, 0, False), (clock, 1, False), (clock, 0, True)):
        desk.give_start(Start(place=place, author="Ada", given_at=given_at))
        assert (desk.take_start(0) is not None) == is_taken
        assert desk.take_start(0) is None, "it is used up"
    desk.give_start(Start(place=0, author="Ada", given_at=clock))
    desk.ask("lay out", led.trials[0])
    assert desk.take_start(0) is None, "it was given before this question"


def test_without_a_program_nothing_starts_and_answers_are_kept_by_the_page(led, ask):
    started(ask, 1)
    led.ends.release()
    led.waits("label", 0)
    led.close()
    wait_until(lambda: not is_running(led.folder))
    now = ask()[1]
    assert now["phase"] == ""
    assert ask("/start", number=1, heard_at=now["heard_at"])[0] == 425
    assert ask("/answer", number=1, key=KEYS[0], success=True, progress=1)[0] == 425
    assert ask("/stop", number=1)[0] == 425
    assert ask("x")[0] == 404


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--operator", "Ada", "--phone", "https://cell-pc:3100", "--url", "candidate=http://a"], "leave --operator and --answers out"),
        (["--phone", "cell-pc:3100", "--url", "candidate=http://a"], "expected the address of a console"),
        (["--phone", "https://cell-pc:3100", "--candidate", "actwright/4"], "a page leads trials on a robot"),
    ],
)
def test_a_page_that_could_lead_nothing_is_refused_before_anything_runs(words, sentence):
    done = CliRunner().invoke(command_line("study"), ["study", "run", "loop", *words])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
