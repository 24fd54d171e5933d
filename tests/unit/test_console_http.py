"""The console's HTTP: who is asking, what other sites may not do, what is read and how much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from flows.web.http.endpoint import Call, Endpoint, Events
from flows.web.http.guards import refusal
from flows.web.http.operator_log import OperatorLog
from flows.web.http.pages import STATIC
from flows.web.http.people import People
from model_core.access import Role
from tests.console_parts import SAME_SITE, TOKENS, client_of, console_over, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order of the tests. count: 1 unless told."""

    word: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of it."""

    word: str
    by: str


def _endpoint(role: Role = Role.OPERATE) -> Endpoint:
    def handle(call: Call) -> Told:
        return Told(word=call.body.word * call.body.count, by=call.person.name)

    return Endpoint(method="POST", path="/api/orders", does="Order", role=role, answer=Told, handle=handle, body=Order, most_body_bytes=100)


@pytest.mark.parametrize(
    ("method", "path", "headers", "is_refused"),
    [
        ("GET", "/models", {"sec-fetch-site": "cross-site"}, False),  # a link in a mail opens the page
        ("GET", "/api/models", {"sec-fetch-site": "cross-site"}, True),
        ("GET", "/api/models", {"sec-fetch-site": "same-site"}, True),  # another port of this machine
        ("GET", "/api/models", {"sec-fetch-site": "same-origin"}, False),
        ("POST", "/api/orders", {}, False),  # curl
        ("POST", "/api/orders", {"origin": "http://evil.example"}, True),
        ("POST", "/api/orders", {"origin": "null"}, True),
        ("POST", "/models", {"sec-fetch-site": "cross-site"}, True),
        ("POST", "/api/orders", SAME_SITE, False),
        ("POST", "/api/orders", SAME_SITE | {"sec-fetch-site": "cross-site"}, True),
    ],
)
def test_another_site_neither_asks_nor_orders(method, path, headers, is_refused):
    told = refusal(method, path, "http", {"host": "127.0.0.1:3100", **headers}, only_loopback=True)
    assert bool(told) == is_refused, told


@pytest.mark.parametrize(
    ("host", "is_refused"), [("localhost:3100", False), ("[::1]:3100", False), ("evil.example:3100", True), ("", True)]
)
def test_a_foreign_name_that_points_here_reaches_nothing_on_loopback(host, is_refused):
    assert bool(refusal("GET", "/", "http", {"host": host}, only_loopback=True)) == is_refused
    assert not refusal("GET", "/", "http", {"host": host}, only_loopback=False)  # there tokens decide


def test_every_answer_carries_the_policy_for_browsers():
    client = console_over()
    for path in ("/", "/api/me", "/api/nothing", "/assets/nothing.js"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_body_is_read_strictly_and_only_so_far():
    client = client_of([_endpoint()], People(None))
    assert client.post("/api/orders", json={"word": "ab", "count": 2}).json() == {"word": "abab", "by": "loopback"}
    for document, sentence in (({"word": 1}, "word"), ({"words": "a"}, "words"), ({"word": "a", "count": "2"}, "count")):
        answer = client.post("/api/orders", json=document)
        assert answer.status_code == 400, answer.text
        assert sentence in answer.json()["reason"]
    assert client.post("/api/orders", json={"word": "a" * 200}).status_code == 413
    assert client.post("/api/orders", content=b'{"word": "a"}', headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/api/orders", content=b"[" * 90, headers={"content-type": "application/json"}).status_code == 400


def test_a_fault_of_ours_gives_a_sentence_and_no_traceback():
    broken = Endpoint(method="GET", path="/api/broken", does="Break", role=Role.OBSERVE, answer=Told, handle=lambda _: 1 / 0)
    answer = client_of([broken], People(None)).get("/api/broken")
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "division" not in answer.text


def test_an_order_that_fails_by_a_fault_of_ours_stands_in_the_log(tmp_path):
    broken = Endpoint(method="POST", path="/api/orders", does="Order", role=Role.OPERATE, answer=Told, handle=lambda _: 1 / 0, body=Order)
    log = OperatorLog(tmp_path / "operators.jsonl")
    assert client_of([broken], People(None), log=log).post("/api/orders", json={"word": "a"}).status_code == 500
    [(_, line)], _, _ = log.newest(10)
    assert (line["asked"], "may have been done in part" in str(line["refused"])) == ({"word": "a", "count": 1}, True)


def test_a_token_opens_what_its_role_allows():
    people = People(tokens())
    client = client_of([_endpoint()], people)
    assert client.get("/api/me").status_code == 404  # not among these endpoints
    assert client.post("/api/orders", json={"word": "a"}).status_code == 401
    for role, status in (("observe", 403), ("operate", 200), ("admin", 200)):
        answer = client.post("/api/orders", json={"word": "a"}, headers={"authorization": f"Bearer {TOKENS[role]}"})
        assert answer.status_code == status
        assert status != 200 or answer.json()["by"] == role


def test_a_browser_signs_in_with_a_token_and_out_again(tmp_path):
    client = console_over(tmp_path, people=People(tokens()))
    assert client.post("/api/session", json={"token": "guessed"}).status_code == 401
    entered = client.post("/api/session", json={"token": TOKENS["observe"], "name": "admin"})
    assert entered.json() == {"name": "observe", "role": "observe", "has_session": True, "needs_token": True}
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKENS["observe"] not in cookie
    assert client.get("/api/me").json()["name"] == "observe"
    client.delete("/api/session")
    assert client.get("/api/me").status_code == 401


def test_who_comes_and_goes_stands_in_the_log_without_a_token(tmp_path):
    log = OperatorLog(tmp_path / "operators.jsonl")
    client = client_of([_endpoint()], People(tokens()), log=log)
    assert client.post("/api/session", json={"token": "guessed", "name": "mallory"}).status_code == 401
    client.post("/api/session", json={"token": TOKENS["observe"]})
    client.delete("/api/session")
    client.delete("/api/session")  # nobody is signed in any more
    lines = [line for _, line in reversed(log.newest(10)[0])]
    assert [(line["order"], line["person"], line["role"]) for line in lines] == [
        ("sign in", "", ""),
        ("sign in", "observe", "observe"),
        ("sign out", "observe", "observe"),
    ]
    assert lines[0]["asked"] == {"name": "mallory", "from": "testclient", "left_out_before": 0}
    assert lines[0]["refused"]
    assert lines[1]["asked"] == lines[2]["asked"] == {"from": "testclient"}
    written = (tmp_path / "operators.jsonl").read_text()
    assert not [token for token in (TOKENS["observe"], "guessed") if token in written]


def test_whoever_guesses_tokens_cannot_fill_the_log(tmp_path):
    now = [0.0]
    log = OperatorLog(tmp_path / "operators.jsonl", clock=lambda: now[0])
    client = client_of([_endpoint()], People(tokens()), log=log)

    def guess() -> None:
        assert client.post("/api/session", json={"token": "guessed"}).status_code == 401

    for _ in range(50):
        guess()
    assert log.newest(100)[1] == 20
    now[0] = 200.0
    guess()
    [(_, line)], count, _ = log.newest(1)
    assert (count, line["asked"]["left_out_before"]) == (21, 30)
    client.post("/api/session", json={"token": TOKENS["observe"]})
    assert log.newest(1)[1] == 22, "people who are known are written whatever others do"


def test_a_stream_ends_with_the_token_that_opened_it():
    held = tokens()
    sent: list[int] = []

    async def numbers() -> AsyncIterator[object]:
        for number in range(10):
            sent.append(number)
            if number == 3:
                held._table.clear()  # as a table in which the token was revoked
            yield Told(word=str(number), by="cell-1")

    endpoint = Endpoint(
        method="GET", path="/api/live", does="Follow", role=Role.OBSERVE, answer=Told, event=Told, handle=lambda _: Events(stream=numbers)
    )
    answer = client_of([endpoint], People(held)).get("/api/live", headers={"authorization": f"Bearer {TOKENS['observe']}"})
    assert [line for line in answer.text.split("\n\n") if line][-1] == 'data: {"word":"2","by":"cell-1"}'
    assert sent == [0, 1, 2, 3]


def test_a_session_ends_with_its_time_and_with_its_token():
    now = [0.0]
    held = tokens()
    people = People(held, clock=lambda: now[0])
    first = people.enter(TOKENS["operate"], "")
    assert people.who(first.session, None, Role.OPERATE).name == "operate"
    held._table.clear()
    assert people.who(first.session, None, Role.OBSERVE).status == 401
    second = People(None, clock=lambda: now[0])
    named = second.enter("", "Anna")
    assert second.who(named.session, None, Role.ADMIN).name == "Anna"
    now[0] = 13 * 3600.0
    assert second.who(named.session, None, Role.ADMIN).name == "loopback"


@pytest.mark.parametrize("name", ["assets/../../server.py", "..%2fserver.py", "assets/%2e%2e/%2e%2e/server.py", "built_from.json%00.html"])
def test_a_path_reaches_no_file_but_the_built_ones(name):
    answer = console_over().get(f"/{name}", headers={"accept": "*/*"})
    assert answer.status_code == 404 or b'<div id="root">' in answer.content


def test_every_address_of_a_view_opens_the_application():
    client = console_over()
    page = client.get("/models/a/1", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert '<div id="root">' in page.text
    assert "<script>" not in page.text
    assert client.get("/", headers={"if-none-match": page.headers["etag"]}).status_code == 304


def test_a_file_is_sent_by_gzip_to_who_takes_it_and_is_the_same():
    client = console_over()
    [first] = [name for name in client.get("/files.json").json() if name.startswith("/assets/application-")]
    plain, small = (client.get(first, headers={"accept-encoding": how}) for how in ("identity", "gzip, br"))
    assert (plain.headers.get("content-encoding"), small.headers["content-encoding"], small.headers["vary"]) == (
        None,
        "gzip",
        "accept-encoding",
    )
    assert plain.content == small.content
    assert 2 * int(small.headers["content-length"]) < len(plain.content)
    assert "immutable" in small.headers["cache-control"]


def test_a_browser_keeps_every_file_of_the_application_but_its_worker():
    client = console_over()
    kept = client.get("/files.json").json()
    named = {f"/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".svg")}
    assert set(kept) == named - {"/worker.js"}
    worker = client.get("/worker.js")
    assert (worker.headers["content-type"].partition(";")[0], worker.headers["cache-control"]) == ("text/javascript", "no-cache")
