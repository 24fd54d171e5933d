"""What the agent asks over HTTP stays with the place that it was told."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serving.fleet.intake.http_client import HttpClient, HttpStatus


def test_a_token_is_not_taken_to_another_place():
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/other" else 302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/other")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = HttpClient(timeout_s=10, headers={"Authorization": "Bearer secret"})
        with pytest.raises(HttpStatus, match="answered 302"):
            client.exchange(f"http://127.0.0.1:{server.server_address[1]}/metadata", most=100)
        server.shutdown()
    assert asked == ["/metadata"]
