"""The pages of episodes, failures and labelling in a real browser: found, looked at, sorted by keyboard, drawn on, made into a version.

ACTWRIGHT_PICTURES=docs/pictures/console writes the pictures of the documents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.step_store import StepStore
from components.config.records import Silent
from flows.pipeline.episodes.library import episode_library
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from serving.workcell.audit.log import AuditLog
from tests.audit_data import tell_episode
from tests.browser import IN_BROWSER, barriers, chromium, faults_of, served_console
from tests.episodes import episode, write_dataset
from tests.unit.test_episode_frames import tell_bad

pytestmark = IN_BROWSER
EVIL = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    write_dataset(root / "ours", [episode(n, length=20 + n, success=n != 1, instruction=EVIL if n == 2 else "push it") for n in range(3)])
    audit = AuditLog(root / "audit")
    tell_episode(audit, decisions=2)
    tell_bad(audit)
    audit.close()
    library = episode_library(Settings(home=root / "home", data=root / "elsewhere" / "data", runs=root / "runs"))
    library.refresh([root / "ours", root / "audit"], Silent())
    return library


@pytest.fixture(scope="module")
def address(library) -> Iterator[str]:
    with served_console(Platform(settings=library.settings, store=StepStore(library.settings.store_root))) as served:
        yield served


@pytest.fixture(scope="module")
def page(address) -> Iterator[Any]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900}, base_url=address)
        page.set_default_timeout(60_000)
        faults = faults_of(page)
        yield page
    assert not faults


def seen(page: Any, name: str) -> None:
    """Keep a screenshot, and check the page for what axe calls serious."""
    folder = os.environ.get("ACTWRIGHT_PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
    assert barriers(page, "{}") == []


def dragged(page: Any, handle: Any, start: int, end: int) -> None:
    """Drag the handle of a range of 0 to 20."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x_start, x_end = (box["x"] + 8 + (box["width"] - 16) * value / 20 for value in (start, end))
    page.mouse.move(x_start, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(x_end, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


def introduced(page: Any, shown: Any) -> None:
    """A browser asks once who states something, in place of what is `shown` then: whichever test comes first answers."""
    asked = page.get_by_label("Your name")
    asked.or_(shown).first.wait_for()
    if asked.count():
        asked.fill("Ana")
        page.get_by_role("button", name="Continue").click()


def test_a_failed_episode_is_found_tagged_corrected_and_put_into_a_version(page, library, monkeypatch):
    monkeypatch.setattr("flows.pipeline.data_sets.record", lambda platform, folder: "")  # DVC: tests/integration/test_dvc.py
    page.goto("/episodes")
    page.get_by_role("grid", name="Episodes").get_by_text("square-0002").wait_for()
    assert page.title() == "Episodes - Actwright"  # no instruction of the data was run
    seen(page, "episodes")
    page.get_by_text("More filters").click()
    page.get_by_label("Robot").select_option("metaworld-sawyer")
    page.get_by_label("up to").fill("21")
    page.get_by_text("2 episodes in 2 places").wait_for()
    page.get_by_label("Outcome").select_option("failed")
    page.get_by_label("Kind").select_option("set")
    row = page.get_by_role("grid", name="Episodes").get_by_role("row").nth(1)
    row.get_by_text("square-0001").wait_for()
    page.get_by_role("grid", name="Episodes").focus()
    page.keyboard.press("Enter")
    image = page.get_by_role("img", name="front, frame 0")
    image.wait_for()
    introduced(page, page.get_by_role("group", name="Why it failed"))
    page.get_by_role("group", name="Why it failed").wait_for()
    page.locator("h1").click()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_role("img", name="front, frame 3").wait_for()
    assert page.url.endswith("frame=3")
    page.keyboard.press("2")
    page.get_by_role("cell", name='causes: causes ["dropped"]').wait_for()
    page.keyboard.press("[")
    page.get_by_role("cell", name="trim: first 3, end 21").wait_for()
    handle = page.get_by_label("Keep up to")
    dragged(page, handle, 20, 18)
    page.get_by_role("cell", name="trim: first 3, end 19").wait_for()
    handle.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("cell", name="trim: first 3, end 21").nth(1).wait_for()
    page.get_by_label("Frame", exact=True).fill("3")
    page.locator("h1").click()
    page.keyboard.press("d")
    box = page.get_by_role("img", name="front, frame 3").bounding_box()
    for share in (0.25, 0.75):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + share * box["height"])
    seen(page, "episode")
    page.keyboard.press("Enter")
    page.get_by_role("cell", name="trace: camera").wait_for()
    page.keyboard.press("x")
    page.get_by_role("cell", name="include: included false").first.wait_for()
    page.keyboard.press("u")
    page.get_by_text("included false (undone)").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("f")  # opens a page, and does not state that the episode failed
    page.get_by_role("heading", name="Failures").wait_for()
    place = library.place("ours")
    stated = library.book(place).revised["square-0001"]
    assert (stated.causes, stated.trim, stated.included) == (("dropped",), (3, 21), None)
    assert {one.author for one in library.book(place).revisions} == {"Ana"}
    assert "outcome" not in {one.kind for one in library.book(place).revisions}
    ((x0, y0), (x1, y1)) = stated.traces[("front", 3)].change.points
    assert (x0, y0, x1, y1) == pytest.approx((7.75, 7.75, 23.25, 23.25), abs=0.3)

    page.goto(f"/episodes?place={place.key}")
    page.get_by_text("Make a version of ours").click()
    page.get_by_label("Name").fill("sorted")
    page.get_by_label("Why").fill("a test")
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("sorted.yaml: 3 episodes, 0 left out").wait_for()
    made = library.edits.open("sorted").source
    assert [row.length for row in made.rows] == [20, 18, 22]


def test_what_went_wrong_leaves_the_queue_when_it_is_sorted(page, library):
    page.goto("/failures")
    page.get_by_role("region", name="hold: HOLD").wait_for()
    page.get_by_role("link", name="bad-1").first.wait_for()
    seen(page, "failures")
    page.get_by_role("checkbox", name="choose bad-1").first.check()
    introduced(page, page.get_by_label("Why it failed"))
    page.get_by_label("Why it failed").select_option("refused")
    page.get_by_text("Nothing waits.").wait_for()
    place = next(one for one, _, _ in library.index.places() if one.kind == "audit")
    assert library.book(place).revised["bad-1"].causes == ("refused",)
    page.get_by_role("checkbox", name="also what was sorted").check()
    page.get_by_role("link", name="bad-1 at").first.click()
    page.get_by_text("refusal: refused: busy: too many").wait_for()


def test_a_second_person_labels_a_frame_by_a_click(page, library):
    place = library.place("ours")
    page.goto(f"/labelling?place={place.key}")
    image = page.get_by_role("img", name="front: click where the gripper is")
    introduced(page, image)
    image.wait_for()
    seen(page, "labelling")
    box = image.bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text("1 of 63 answered").wait_for()
    page.keyboard.press("n")
    page.get_by_text("2 of 63 answered").wait_for()
    first, second = library.opinions(place).opinions
    assert first.point == pytest.approx((15.5, 15.5), abs=0.1)
    assert (second.point, second.abstained) == (None, False)
    page.locator("svg.pointing:focus").wait_for()  # of the next frame, without a click
    for key in ("Shift+ArrowLeft", "ArrowUp", "Space"):
        page.keyboard.press(key)
    page.get_by_text("3 of 63 answered").wait_for()
    assert library.opinions(place).opinions[2].point == pytest.approx((0.45 * 32 - 0.5, 0.49 * 32 - 0.5))


def test_a_second_person_draws_a_trace_by_keyboard_and_looks_ahead(page, library):
    place = library.place("ours")
    page.goto(f"/labelling?place={place.key}")
    page.get_by_label("Of each frame").select_option("trace")
    drawing = page.get_by_role("application")
    introduced(page, drawing)
    page.get_by_text("0 of 63 answered").wait_for()
    page.get_by_text("the frame that is asked").wait_for()
    page.locator("svg.pointing:focus").wait_for()
    for key in ("Space", "Shift+ArrowRight", "Space", ".", "ArrowDown", "Space", "u"):
        page.keyboard.press(key)
    page.get_by_text("2 of 5 points").wait_for()
    seen(page, "labelling_trace")
    page.keyboard.press("Enter")
    page.get_by_text("1 of 63 answered").wait_for()
    [drawn] = [one for one in library.opinions(place).opinions if one.what == "trace"]
    assert [x for x, _ in drawn.trace] == pytest.approx([15.5, 0.55 * 32 - 0.5])
    page.get_by_text("What the answers say of the labels").click()
    page.get_by_text("The label error is not measured").wait_for()
