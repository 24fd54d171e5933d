"""An S3 endpoint as other providers have it, in this process: a region of its own, ETags that are no MD5, a faulty disk.

It speaks the part of S3 that the store uses, multipart uploads included, and checks the region that requests are signed for.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

DATE = "Sun, 29 Nov 2026 00:00:00 GMT"


@dataclass(slots=True)
class StoredObject:
    body: bytes
    meta: dict[str, str]


@dataclass(slots=True)
class Endpoint:
    """region: that requests must be signed for. etag: what it answers for every object. damage: turn one bit of what is stored.

    refusal, refusals: status and code of the answer to the next so many requests for objects, after as many as `answers_first`.
    """

    region: str = "eu-central-1"
    etag: str = "kms-0123456789abcdef"
    damage: bool = False
    refusal: tuple[int, str] = (503, "SlowDown")
    refusals: int = 0
    answers_first: int = 0
    address: str = ""
    objects: dict[str, StoredObject] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    begun: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def keep(self, key: str, body: bytes, meta: dict[str, str]) -> None:
        if self.damage and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.objects[key] = StoredObject(body, meta)


@contextlib.contextmanager
def s3_endpoint(**options: object) -> Iterator[Endpoint]:
    endpoint = Endpoint(**options)  # type: ignore[arg-type]
    handler = type("Handler", (_Handler,), {"endpoint": endpoint})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        endpoint.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        key, query = url.path.lstrip("/").partition("/")[2], parse_qs(url.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.endpoint.asked.append(f"{self.command} {'location' if 'location' in query else key}")
        signed = re.search(r"/\d{8}/([\w-]+)/s3/", self.headers.get("authorization", ""))
        if "location" in query:
            self.answer(200, f"<LocationConstraint>{self.endpoint.region}</LocationConstraint>".encode())
        elif signed is None or signed[1] != self.endpoint.region:
            told = {"x-amz-bucket-region": self.endpoint.region}
            said = f"the region '{signed and signed[1]}' is wrong; expecting '{self.endpoint.region}'"
            self.answer(400, f"<Error><Code>AuthorizationHeaderMalformed</Code><Message>{said}</Message></Error>".encode(), told)
        elif not key:
            self.answer(200)
        elif self.endpoint.answers_first == 0 and self.endpoint.refusals > 0:
            self.endpoint.refusals -= 1
            status, code = self.endpoint.refusal
            self.answer(status, f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode())
        else:
            self.endpoint.answers_first = max(0, self.endpoint.answers_first - 1)
            self.object(key, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def object(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        endpoint, meta = self.endpoint, {k.lower(): v for k, v in self.headers.items() if k.lower().startswith("x-amz-meta-")}
        if self.command == "POST" and "uploads" in query:
            endpoint.parts[key], endpoint.begun[key] = {}, meta
            self.answer(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        elif self.command == "POST":
            whole = b"".join(part for _, part in sorted(endpoint.parts.pop(key).items()))
            endpoint.keep(key, whole, endpoint.begun.pop(key))
            self.answer(200, f'<CompleteMultipartUploadResult><ETag>"{endpoint.etag}"</ETag></CompleteMultipartUploadResult>'.encode())
        elif self.command == "PUT" and "partNumber" in query:
            endpoint.parts[key][int(query["partNumber"][0])] = body
            self.answer(200)
        elif self.command == "PUT":
            endpoint.keep(key, body, meta)
            self.answer(200)
        elif self.command == "DELETE":
            endpoint.objects.pop(key, None)
            self.answer(204)
        elif key in endpoint.objects:
            self.answer(200, endpoint.objects[key].body, endpoint.objects[key].meta)
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        told = {
            "content-length": str(len(body)),
            "etag": f'"{self.endpoint.etag}"',
            "last-modified": DATE,
            "content-type": "application/xml",
        }
        for name, value in {**told, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
