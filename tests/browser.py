"""A real browser over a console that is served in the process of the test: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.platform.wiring import Platform
from flows.web.server import ConsoleAddress, make_server

# the shell without windows takes half of the processor time of a whole Chromium
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), "")
AXE = Path("tests/data/browser/axe.min.js")
SLOW_MS = 120_000  # a busy machine; nothing here measures time
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium-headless-shell"),
]


@contextlib.contextmanager
def served_console(platform: Platform, **address: Any) -> Iterator[str]:
    """The console over this platform; gives its address."""
    server = make_server(platform, ConsoleAddress(port=0, **address))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started, "the console does not start")
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without any page."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser:
        yield browser


def faults_of(page: Any) -> list[str]:
    """What goes wrong on this page from now on: exceptions, and what the browser refuses."""
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    return faults


WCAG = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']}"


def barriers(page: Any, rules: str = WCAG) -> list[str]:
    """Serious findings of axe on this page, one a line. rules: axe's options in JavaScript, "{}" for all rules."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(f"axe.run(document, {{...{rules}, resultTypes: ['violations']}})")
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
    """Wait for it; what: the failure."""
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.05)
