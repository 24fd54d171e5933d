"""HTTP with a deadline: statuses are answers, everything else is one error that says why; waiting ends in one of three ways."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.adapters.http import NoAnswerError, Readiness, answers, get, request, wait_until_ready
from components.adapters.processes import free_port


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(0.05)
            return
        status = 503 if self.path == "/busy" else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b'{"token": "%s"}' % self.headers.get("x-token", "none").encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def raw_server(answer: bytes) -> Iterator[int]:
    """A TCP server that reads one request, sends `answer` and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def test_a_status_is_an_answer(service):
    assert get(f"{service}/", headers={"x-token": "secret"}).json() == {"token": "secret"}
    busy = get(f"{service}/busy")
    assert (busy.status, busy.ok, busy.json()) == (503, False, {"token": "none"})
    assert request("POST", f"{service}/", body=b"{}").body == b"{}"
    assert answers(service)
    assert not answers(f"{service}/busy")


def test_an_answer_that_trickles_in_ends_at_the_deadline(service):
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="was not complete after"):
        get(f"{service}/slow", timeout_s=0.3)
    assert time.monotonic() - began < 2.0


def test_what_went_wrong_is_told_apart():
    with pytest.raises(NoAnswerError) as refused:
        get(f"http://127.0.0.1:{free_port()}/")
    assert isinstance(refused.value.reason, ConnectionRefusedError)
    with raw_server(b"") as port, pytest.raises(NoAnswerError) as closed:
        get(f"http://127.0.0.1:{port}/")
    assert (closed.value.closed, closed.value.not_http) == (True, False)
    with raw_server(b"SSH-2.0-OpenSSH\r\n\r\n") as port, pytest.raises(NoAnswerError) as other:
        get(f"http://127.0.0.1:{port}/")
    assert (other.value.closed, other.value.not_http) == (False, True)
    with raw_server(b"HTTP/1.1 400 no\r\n\r\n") as port, pytest.raises(NoAnswerError) as plain:
        get(f"https://127.0.0.1:{port}/")
    assert isinstance(plain.value.reason, ssl.SSLError)


def test_waiting_ends_ready_died_or_late():
    asked: list[int] = []

    def third_time() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert wait_until_ready(third_time, timeout_s=5, poll_s=0.01) is Readiness.READY
    assert wait_until_ready(lambda: False, timeout_s=5, is_alive=lambda: False) is Readiness.DIED
    assert wait_until_ready(lambda: False, timeout_s=0.05, poll_s=0.01) is Readiness.LATE
