"""Every page of the console in a real browser, over an API whose every text is markup: it is shown, and nothing of it is run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn

from components.data.episodes.signals import Mark, Series, Signals, packed
from flows.web.app import create_app
from flows.web.console_endpoints import console_endpoints
from flows.web.http.endpoint import Content, Endpoint
from flows.web.http.pages import Pages
from flows.web.http.people import People
from flows.web.views.session import SignedIn
from tests.browser import IN_BROWSER, SLOW_MS, chromium, eventually
from tests.console_parts import platform_over
from tests.hostile_documents import document_of, told
from tests.loopback import serve_app

MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'
QUERIES = {"/labelling": "?place=p", "/lineage": "?of=m/1", "/fleet/ran": "?at=2026-11-30T06:00"}  # without them these show nothing
PAGES = [
    re.sub(r":\w+", "x", pattern) + QUERIES.get(pattern, "")
    for pattern in re.findall(r'pattern: "([^"]+)"', Path("flows/web/console/src/app/pages.ts").read_text(encoding="utf-8"))
]
PAGES += ["/runs?of=x", "/models/studies?of=x"]  # without the query they are lists
pytestmark = IN_BROWSER

SHOWN = """([text]) => [...document.querySelectorAll('main *')].some(
    (one) => one.textContent.includes(text) || [...one.attributes].some((named) => named.value.includes(text)))"""


def hostile(endpoint: Endpoint) -> Endpoint:
    if endpoint.path == "/api/me":  # an admin, who sees every button
        me = SignedIn(name=MARKUP, role="admin", has_session=True, needs_token=False)
        return replace(endpoint, handle=lambda _: me)
    if endpoint.path == "/api/episode/signals":
        times_N, mark = np.arange(2.0), Mark(kind=MARKUP, start_s=0.0, end_s=1.0, text=MARKUP)
        series = {name: Series(names=(MARKUP,), times_N=times_N, values_ND=np.ones((2, 1))) for name in ("state", "action", "executed")}
        signals = packed(Signals(frames={MARKUP: times_N}, series=series, marks=(mark,)))
        return replace(endpoint, query=None, handle=lambda _: Content(data=signals, media_type="application/octet-stream"))
    return endpoint if document_of(endpoint) is None else told(endpoint, MARKUP)


def test_markup_in_data_is_text_on_every_page(tmp_path):
    endpoints = [hostile(one) for one in console_endpoints(platform_over(tmp_path), People(None))]
    app = create_app(endpoints, People(None), Pages(), only_loopback=True)
    with serve_app(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")) as address, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(SLOW_MS)
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None)
        assert len(PAGES) > 12
        for path in PAGES:
            page.goto(f"http://{address}{path}")
            eventually(lambda: page.evaluate(SHOWN, [MARKUP]), f"{path} shows nothing of the data")
            assert page.evaluate("window.hacked") is None, path
            assert page.locator("img[src=x], main script").count() == 0, path
        assert refused == []
