"""The console in a real browser: a drawn trace moves the arm, two operators, what a role does not see, hostile names, barriers (axe).

ACTWRIGHT_PICTURES=docs/pictures/console writes the pictures of the documents.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from components.config.records import Silent
from components.evaluation.studies.design import lock
from components.evaluation.studies.run import run_study
from tests.browser import IN_BROWSER, SLOW_MS, barriers, chromium, eventually, served_console
from tests.console_parts import GOLDEN_HOME, TOKENS, add_training, platform_over, token_file
from tests.drawn_arm import MARK_M, SIZE, DrawnCell, to_pixel
from tests.fleet_console import NEW, OLD, live_fleet, token_of
from tests.unit.test_study_run import design, outcomes

PICTURES = os.environ.get("ACTWRIGHT_PICTURES", "")
_POST = (  # the status of an order that a page sends
    "([path, body]) => fetch(path, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body)})"
    ".then((response) => response.status)"
)
pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("console")
    (folder / "store").symlink_to(GOLDEN_HOME.resolve() / "store")
    shutil.copyfile(GOLDEN_HOME / "mlflow.db", folder / "mlflow.db")
    add_training(folder / "mlflow.db", "half-the-rate")
    for rates in ((0.9, 0.9), (0.2, 0.95)):
        run_study(lock(folder / "studies", design(seed=int(10 * rates[0]))), outcomes(*rates), Silent())
    return folder


@pytest.fixture(scope="module")
def serve(home) -> Iterator[Callable[..., str]]:
    """Start a console over the home; returns its address."""
    with contextlib.ExitStack() as running:
        yield lambda fleet_url="", **address: running.enter_context(served_console(platform_over(home, fleet_url=fleet_url), **address))


@pytest.fixture(scope="module")
def console(serve) -> str:
    return serve()


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


def opened(browser, address: str, path: str, *, name: str = "", token: str = "", **context: object):
    """A page of a person's own browser; signed in by name or token."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
    page.set_default_timeout(SLOW_MS)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address + path)
    if name or token:
        page.get_by_label("Token" if token else "Name").fill(token or name)
        page.get_by_role("button", name="Sign in" if token else "Continue").click()
    return page


def picture(page, name: str) -> None:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


def test_a_drawn_trace_moves_the_arm_and_a_second_person_sees_who_draws(browser, console, home):
    with DrawnCell(home) as cell:
        eventually(lambda: np.hypot(*(cell.pixel_2 - to_pixel(np.array(MARK_M)))) < 5, "the arm did not go to the mark by itself")
        anna = opened(browser, console, "/cells/cell-1", name="Anna")
        anna.get_by_role("button", name="Take the pen").click()
        canvas = anna.locator("svg.draws")
        canvas.wait_for()
        # the instruction comes from data: it is shown as text and never run
        assert "<img" in anna.get_by_label("Instruction").input_value()
        assert anna.evaluate("window.hacked") is None
        end = np.array([78.0, 24.0])  # far from the mark, in pixels
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        for x, y in ((20.0, 60.0), (60.0, 70.0), (90.0, 90.0)):
            anna.mouse.click(box["x"] + (x + 0.5) / SIZE * box["width"], box["y"] + (y + 0.5) / SIZE * box["height"])
        anna.keyboard.press("u")  # the last point is taken back, and set where it belongs
        anna.mouse.click(box["x"] + (end[0] + 0.5) / SIZE * box["width"], box["y"] + (end[1] + 0.5) / SIZE * box["height"])
        canvas.focus()  # the same by keyboard
        for key in ("ArrowRight", "Enter"):
            anna.keyboard.press(key)
        assert anna.locator("g.drawn circle").count() == 4
        anna.keyboard.press("u")
        assert anna.locator("g.drawn circle").count() == 3
        anna.get_by_role("button", name="Follow this trace").click()
        anna.get_by_text("trace: applied, revision 1").wait_for()
        eventually(lambda: np.hypot(*(cell.pixel_2 - end)) < 5, f"the arm is at {cell.pixel_2}, drawn was {end}")
        anna.get_by_text("revision 1 by Anna: applied").wait_for()
        picture(anna, "live_cell")

        ben = opened(browser, console, "/cells/cell-1", name="Ben", color_scheme="dark")
        ben.get_by_text("Anna has the pen.").wait_for()
        assert ben.get_by_role("button", name="Take the pen").is_disabled()
        assert ben.get_by_role("button", name="Follow this trace").count() == 0
        ben.keyboard.press("h")  # but anyone may hold
        ben.get_by_text("held by Ben").first.wait_for()
        eventually(lambda: cell.cell.machine.mode.value == "HOLD", "the cell does not hold")
        assert barriers(ben) == []
        picture(ben, "live_cell_held")

        ben.keyboard.press("g")
        ben.keyboard.press("o")
        ben.get_by_text("lines, the chain holds").wait_for()
        assert ben.get_by_role("row").filter(has_text="Anna").filter(has_text='"trace"').count() == 1
        assert barriers(ben) == []
        picture(ben, "operators")

        cell.goes.clear()  # the loop hangs: nothing is shown as live any more
        anna.get_by_text("not live: taken").first.wait_for()
        assert barriers(anna) == []
        assert anna.errors == ben.errors == []


def test_who_may_only_observe_gets_no_button(browser, serve, home, tmp_path):
    address = serve(tokens=token_file(tmp_path))
    with DrawnCell(home, "cell-2"):
        page = opened(browser, address, "/cells/cell-2", token=TOKENS["observe"])
        page.get_by_text("No person has the pen.").wait_for()
        page.locator(".state-bar").wait_for()
        for name in ("Hold", "Go on", "Stop ...", "Take the pen", "Resume"):
            assert page.get_by_role("button", name=name, exact=True).count() == 0
        assert page.evaluate(_POST, ["/api/cells/cell-2/orders", {"kind": "hold"}]) == 403
        page.goto(f"{address}/cells")
        page.get_by_role("row").filter(has_text="cell-2").filter(has_text="RUN").wait_for()
        assert barriers(page) == []
        picture(page, "cells")
        assert page.errors == []


def test_models_are_found_by_keyboard_and_told_without_barriers(browser, console):
    page = opened(browser, console, "/cells", color_scheme="dark")
    page.get_by_role("heading", name="Cells").wait_for()
    assert barriers(page) == []
    page.keyboard.press("g")
    page.keyboard.press("m")
    table = page.get_by_role("grid", name="Models")
    table.wait_for()
    assert barriers(page) == []
    picture(page, "models")
    table.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Criteria of the gate").wait_for()
    assert page.url.endswith("/models/actwright-miniature/1")
    assert barriers(page) == []
    picture(page, "model")
    page.get_by_role("link", name="Model card").click()
    page.get_by_role("heading", name="What is not known").wait_for()
    page.get_by_text("It was compared with no champion.").wait_for()
    assert barriers(page) == []
    picture(page, "model_card")
    page.go_back()
    page.get_by_text("Criteria of the gate").wait_for()
    page.go_back()
    table.wait_for()
    page.goto(f"{console}/models/none/1")
    page.get_by_text("model none/1 is not here").wait_for()
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    assert barriers(page) == []
    assert page.errors == []


def test_two_trainings_are_chosen_by_keyboard_and_shown_beside_each_other(browser, console):
    page = opened(browser, console, "/cells")
    page.get_by_role("heading", name="Cells").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("u")
    table = page.get_by_role("grid", name="Runs")
    table.wait_for()
    assert barriers(page) == []
    table.focus()
    for key in ("Enter", "ArrowDown", "Enter", "b"):
        page.keyboard.press(key)
    page.get_by_text("Parameters that differ").wait_for()
    assert page.url.endswith("/runs?of=half-the-rate,430f7fb52a20a68260037061")
    assert page.get_by_role("row").filter(has_text="train.learning_rate").inner_text().split() == ["train.learning_rate", "0.0005", "0.001"]
    assert page.get_by_text("train/loss now: half-the-rat").count() == 1
    assert barriers(page) == []
    picture(page, "runs")
    page.goto(f"{console}/runs?of=none")
    page.get_by_text("a run 'none' is not here").wait_for()
    assert page.errors == []


def test_studies_are_shown_beside_each_other_and_better_stands_only_where_it_was_shown(browser, console):
    page = opened(browser, console, "/models", color_scheme="dark")
    page.get_by_role("grid", name="Models").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("s")
    table = page.get_by_role("grid", name="Studies")
    table.wait_for()
    assert page.get_by_role("navigation").locator("[aria-current]").all_inner_texts() == ["Studies"]
    assert barriers(page) == []
    table.focus()
    for key in ("Enter", "ArrowDown", "Enter", "b"):
        page.keyboard.press(key)
    groups = page.get_by_role("region", name="Groups")
    groups.wait_for()
    assert [text.split(":")[0] for text in groups.get_by_role("listitem").all_inner_texts()] == ["c" * 12, "a" * 12]
    assert page.get_by_text("is not worse than").count() >= 1
    assert page.get_by_text("is better than").count() == 0
    assert page.get_by_text("is worse than cccccccccccc").count() >= 1
    assert barriers(page) == []
    picture(page, "studies")
    page.goto(f"{console}/models/studies?of=none")
    page.get_by_text("a study 'none' is not here").wait_for()
    assert page.errors == []


def test_a_rollout_is_approved_and_rolled_back(browser, serve, tmp_path):
    with live_fleet(tmp_path) as fleet:
        fleet.start()
        address = serve(fleet_url=fleet.url, tokens=fleet.tokens)
        ada, lou = (opened(browser, address, "/fleet", token=token_of(name)) for name in ("ada", "lou"))
        while fleet.is_waiting_for("episodes"):
            fleet.round()
        for page in (ada, lou):
            page.get_by_text("Still needed: 1 approvals of stage fleet").wait_for()
        assert ada.get_by_role("row").filter(has_text="interventions").inner_text().split("\t")[-1] == "30 %"
        ada.keyboard.press("a")
        ada.get_by_role("dialog", name="Approve fleet").wait_for()
        ada.keyboard.press("Enter")
        ada.get_by_text("stage fleet approved by ada").first.wait_for()
        fleet.round(3)
        fleet.round(3, silent="cell-4")
        ada.get_by_text("reached 3 of 3").wait_for()
        ada.get_by_text("1 stale since").first.wait_for()
        assert barriers(ada) == barriers(lou) == []
        picture(ada, "fleet")

        assert lou.get_by_role("main").get_by_role("button").count() == 0
        assert lou.evaluate(_POST, ["/api/fleet/rollouts/1/orders", {"kind": "rollback", "reason": "r"}]) == 403
        assert ada.get_by_role("button", name="Stop by the kill switch").count() == 0  # that needs an admin
        ada.keyboard.press("b")
        ada.keyboard.press("Enter")  # no reason: nothing is sent
        assert fleet.is_waiting_for("episodes")
        ada.keyboard.type("drops cups")
        ada.keyboard.press("Enter")
        ada.get_by_text("rollback by ada: drops cups").first.wait_for()
        fleet.round(2)
        assert {cell.running for cell in fleet.cells} == {OLD}
        ada.get_by_role("link", name="The log").click()
        ada.get_by_text("entries, the chain holds").wait_for()
        assert barriers(ada) == []
        picture(ada, "fleet_log")
        assert ada.errors == lou.errors == []


def test_a_wrong_annotator_is_followed_to_the_robots_and_what_ran_where_is_proven(browser, serve, tmp_path):
    with live_fleet(tmp_path) as fleet:
        for number in range(1, 10):  # eight of them alike, which the picture shows as one box
            fleet.add(f"cell-{number}", "lab" if number < 9 else "plant")
        fleet.post("/v1/releases", {"digest": OLD, "model_version": "actwright-miniature/1", "allowed_by": "the gate promotes it"})
        fleet.round(2)
        fleet.cells[8].running = NEW
        fleet.round(2)
        page = opened(browser, serve(fleet_url=fleet.url, tokens=fleet.tokens), "/cells", token=token_of("lou"))
        page.get_by_role("heading", name="Cells").wait_for()
        page.keyboard.press("g")
        page.keyboard.press("n")
        table = page.get_by_role("grid", name="What there is")
        table.wait_for()
        assert barriers(page) == []
        page.keyboard.press("/")
        page.keyboard.type("recorded-depth")
        page.keyboard.press("Enter")
        page.get_by_text("1 version; 1 release; runs on cell-1, cell-2").wait_for()
        made = page.get_by_role("region", name="annotator recorded-depth/1").get_by_role("listitem")
        assert made.filter(has_text="version actwright-miniature/1").count() >= 1
        assert made.filter(has_text="cell cell-3 (lab)").last.inner_text().endswith("UTC")
        assert page.locator("svg .thing").filter(has_text="8 cells at lab").count() == 1
        assert page.locator("svg .thing").filter(has_text="cell-9").count() == 1
        assert barriers(page) == []
        picture(page, "lineage")
        page.get_by_role("link", name="cell cell-9 (plant)").click()  # back from a robot: what it ran before, too
        page.get_by_role("listitem").filter(has_text="ran it from").first.wait_for()
        page.goto(page.url.replace("/lineage?of=cell%3Acell-9", "/fleet/ran"))
        page.get_by_text("9 of 9 cells are proven").wait_for()
        assert page.get_by_role("row").filter(has_text="cell-9").filter(has_text=NEW[:12]).count() == 1
        assert barriers(page) == []
        picture(page, "ran")
        page.get_by_label("At", exact=True).fill("2020-01-01T00:00:00")
        page.get_by_text("0 of 9 cells are proven").wait_for()
        page.goto(f"{page.url.partition('/fleet')[0]}/lineage?of=0000")
        page.get_by_text("'0000' is not here").wait_for()
        assert page.errors == []
