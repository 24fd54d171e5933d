"""Trials on a robot led from a phone: Chromium with a touch screen that loses its connection, real services and cells, the ledger.

ACTWRIGHT_PICTURES=docs/pictures/console writes the pictures of the documents.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.config.judging.gate_config import GateConfig
from components.config.records import Silent
from components.deployment.cell_process import STRICT_DRIVER
from components.deployment.service_address import ServiceCredentials
from components.deployment.study_cells import ask_services, robot_design, robot_trials
from components.evaluation.studies.design import Scene, lock
from components.evaluation.studies.desk import ROBOT, AtTheDesk, StudyDesk
from components.evaluation.studies.labels import STAGES
from components.evaluation.studies.ledger import problem_of, whole_ledger
from components.evaluation.studies.run import run_study
from model_core.spec.execution.cell_options import CellOptions
from tests.browser import IN_BROWSER, SLOW_MS, barriers, chromium, eventually, faults_of, served_console
from tests.console_parts import TOKENS, platform_over, token_file
from tests.fakes import EchoPolicy, make_contract
from tests.loopback import echo_gateway, serve

PICTURES = os.environ.get("ACTWRIGHT_PICTURES", "")
SMALL_TARGETS = """() => [...document.querySelectorAll('.trial button, .trial summary')]
    .map((one) => [one.textContent, one.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44).map(([text, box]) => `${text}: ${box.width} x ${box.height}`)"""
SEND = """([path, body]) => fetch(path, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body)})
    .then(async (response) => [response.status, await response.json()])"""

pytestmark = IN_BROWSER


@pytest.fixture
def study(tmp_path) -> Iterator[Path]:
    """A study of two scenes on the strict arm, whose trials a thread runs; its folder."""
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps(make_contract().to_json()))
    with ExitStack() as stack:
        policies = {side: EchoPolicy(contract=make_contract(), model_version=f"arm/{side}") for side in ("candidate", "champion")}
        urls = {side: f"http://{stack.enter_context(serve(echo_gateway(policy)))}" for side, policy in policies.items()}
        served = ask_services(urls, ServiceCredentials())
        cell = CellOptions(
            robot=STRICT_DRIVER,
            task="",
            url=served["candidate"].url,
            cell="study",
            result=Path("result.json"),
            robot_options=(f"contract={contract}", "steps=160"),
            realtime=True,
        )
        gate = GateConfig(max_pairs=1, pairs_per_block=1, margin=0.3)
        design = robot_design(gate, (Scene(task="wave", seed=11),), served, cell, draw=(0, "success"), timeout_s=120.0)
        design = replace(design, rules={**design.rules, STAGES: ["reach", "grasp", "lift"]})
        folder = lock(tmp_path / "home" / "studies", design)
        desk, complaints = StudyDesk(folder), list[str]()
        trials = robot_trials(folder, design, served, replace(cell, console=desk.folder / ROBOT), AtTheDesk(desk), complaints.append)
        thread = threading.Thread(target=run_study, args=(folder, trials, Silent()), daemon=True)
        thread.start()
        eventually(lambda: desk.asked() is not None, "no trial is asked for")
        yield folder
        thread.join(60)
        assert not thread.is_alive()


def on_record(folder: Path) -> list[tuple[bool, float, str]]:
    return [(trial.success, round(trial.progress, 2), trial.operator) for trial in whole_ledger(folder).trials]


def picture(page: Any, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def test_trials_are_led_by_touch_and_an_answer_without_connection_counts_once(study, tmp_path):
    home = tmp_path / "home"
    with served_console(platform_over(home), tokens=token_file(tmp_path)) as address, chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.goto(f"{address}/trials/{study.name}")
        page.get_by_label("Token").fill(TOKENS["operate"])
        page.get_by_role("button", name="Sign in").tap()

        def tap(name: str) -> None:
            page.get_by_role("button", name=name, exact=True).tap()

        page.get_by_role("heading", name="Trial 1 of at most 2").wait_for()
        assert page.evaluate(SMALL_TARGETS) == barriers(page) == []
        assert "arm/" not in page.content()
        tap("Start")
        tap("Stop")
        page.get_by_role("button", name="Success").wait_for()  # the robot has stopped
        page.reload()  # a phone that slept
        page.get_by_role("button", name="Success").wait_for()
        faults = faults_of(page)
        tap("Failure")
        assert page.get_by_role("button", name="Record").is_disabled()
        tap("grasp")
        assert page.evaluate(SMALL_TARGETS) == barriers(page) == []
        picture(page, "trial")
        tap("Record")
        page.get_by_role("heading", name="Trial 2 of at most 2").wait_for()
        assert on_record(study) == [(False, 0.67, "operate")]
        assert faults == []

        tap("Start")
        page.get_by_text("The robot is at work: RUN").wait_for()
        page.evaluate("navigator.serviceWorker.ready")
        page.wait_for_function("caches.match('/').then((kept) => kept !== undefined)")
        context.set_offline(True)
        page.reload()  # the phone slept, and there is no connection any more
        page.get_by_text("Not connected.").wait_for()
        assert page.get_by_role("button", name="Stop").is_disabled()
        tap("Success")
        tap("Record")
        page.get_by_text("Trial 2, success: kept on this phone, not sent yet.").wait_for()
        assert barriers(page) == []
        picture(page, "trial_offline")
        eventually(lambda: (asked := StudyDesk(study).asked()) is not None and asked.phase == "label", "the trial does not end")
        assert len(on_record(study)) == 1
        [kept] = page.evaluate("JSON.parse(localStorage.getItem('actwright:trials'))")
        context.set_offline(False)
        page.get_by_text("No program runs this study now").wait_for()
        page.get_by_text("kept on this phone").wait_for(state="detached")
        assert page.evaluate("localStorage.getItem('actwright:trials')") == "[]"
        again = {name: kept[name] for name in ("number", "key", "success", "progress")}  # its first sending had arrived, unheard
        assert page.evaluate(SEND, [f"/api/trials/{study.name}/answer", again]) == [200, {"number": 2, "is_repeated": True}]
        page.goto(f"{address}/trials")
        page.get_by_text("2 of at most 2 trials, not running").wait_for()
        assert barriers(page) == []
        picture(page, "trials")
    assert on_record(study) == [(False, 0.67, "operate"), (True, 1.0, "operate")]
    assert "stopped by operate: trial 1 was stopped at its page" in whole_ledger(study).trials[0].detail
    assert problem_of(study) == ""
