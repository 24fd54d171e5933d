"""Names and instructions come from data: through each field of the API they reach the page as the text that they are, never as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from flows.web.console_endpoints import console_endpoints
from flows.web.http.endpoint import Endpoint, Events
from flows.web.http.people import People
from model_core.spec.documents import to_document
from tests.console_parts import client_of, console_over, platform_over
from tests.hostile_documents import document_of, filled, told

SOURCES = Path("flows/web/console/src")
MARKUP = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</title>",
        "javascript:alert(1)",
        "{{7*7}}",
        "&lt;",
        "\u2028",
        "\x00",
        "'",
    ]
)
HOSTILE = st.lists(MARKUP | st.text(max_size=8), min_size=1, max_size=4).map("".join)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory) -> Sequence[Endpoint]:
    return console_endpoints(platform_over(tmp_path_factory.mktemp("home")), People(None))


@settings(max_examples=5, phases=[Phase.generate], deadline=None)
@given(text=HOSTILE)
def test_each_field_of_each_answer_is_the_text_that_it_is(endpoints, text):
    asked = [one for one in endpoints if document_of(one) is not None]
    assert len(asked) > 30
    client = client_of([told(one, text) for one in asked], People(None))
    for one in asked:
        answer = client.request(one.method, re.sub(r"\{\w+(:\w+)?\}", "1", one.path))
        kind = "text/event-stream" if one.answer is Events else "application/json"
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind), one.path
        assert answer.headers["x-content-type-options"] == "nosniff"
        got = answer.text.removeprefix("data: ") if one.answer is Events else answer.text
        kind = document_of(one)
        assert json.loads(got) == msgspec.to_builtins(to_document(filled(kind, text))), one.path


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate], deadline=None)
@example(text="<b>\n</b>")
@given(text=HOSTILE)
def test_an_address_that_is_refused_is_told_as_text_and_a_page_never_repeats_it(text):
    client = console_over(Path("nowhere"))
    name = quote(f"x{text}", safe="")  # "." and ".." alone would be another address
    for path in (f"/api/cells/{name}/live", f"/api/models/{name}/1", f"/api/trials/{name}", f"/api/episode?place={name}", f"/api/{name}"):
        answer = client.get(path)
        assert answer.status_code >= 400
        assert answer.headers["content-type"].partition(";")[0] in ("application/json", "text/plain")  # the latter of no route at all
    page = client.get(f"/cells/{name}", headers={"accept": "text/html"})
    # no route of Starlette holds a line break
    assert page.content == (b"Not Found" if "\n" in text else client.get("/").content)
    assert page.headers["content-security-policy"]


def test_no_page_makes_markup_of_a_text():
    makes = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|new Function|srcdoc")
    links = re.compile(r"\bhref=\{[^}]*\}")  # of `Link`, which takes addresses of this application alone
    files = [path for path in SOURCES.rglob("*.ts*") if path.name != "schema.ts"]
    assert len(files) > 40
    for path in files:
        source = path.read_text(encoding="utf-8")
        assert not makes.search(source), path
        assert links.findall(source) == (["href={ours(to)}"] if path.name == "link.tsx" else []), path
