"""A file server on loopback that answers range requests after a fixed delay: the network between a store and a trainer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer:
    """Serves `root`; every answer comes `latency_s` late. asked: requests by method. sent: bytes of bodies."""

    def __init__(self, root: Path, latency_s: float = 0.0) -> None:
        self.root, self.latency_s = root.resolve(), latency_s
        self.asked: Counter[str] = Counter()
        self.sent = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> RangeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """One request: the whole file, or the range that is asked for."""
        self.asked[request.command] += 1
        time.sleep(self.latency_s)
        path = (self.root / request.path.partition("?")[0].lstrip("/")).resolve()
        if self.root not in path.parents or not path.is_file():
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        size = path.stat().st_size
        first, last, status = 0, size - 1, 200
        if (asked := request.headers.get("Range")) is not None:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first = int(begin) if begin else max(0, size - int(end))
            last, status = (min(int(end), last) if begin and end else last), 206
        request.send_response(status)
        request.send_header("Content-Length", str(last - first + 1))
        request.send_header("Accept-Ranges", "bytes")
        if status == 206:
            request.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        request.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(first)
                request.wfile.write(file.read(last - first + 1))
            self.sent += last - first + 1
