"""What of Label Studio's API the exchange uses, as api.labelstud.io documents it: projects, import, export, both kinds of token.

A stand-in for the real server, which takes minutes to install: it refuses what the documents refuse, and people label through `label`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.etree import ElementTree

from PIL import Image

LEGACY, PERSONAL, ACCESS = "abc123", "head.refresh.sign", "head.access.sign"


class FakeLabelStudio:
    """Its projects: title, labelling interface, tasks."""

    def __init__(self) -> None:
        self.projects: dict[int, dict[str, Any]] = {}
        self.url = ""

    def label(self, project: int, number: int, result: list[dict[str, Any]]) -> None:
        """A person labels a task and submits."""
        task = self.projects[project]["tasks"][number]
        task["annotations"].append(
            {"id": 1, "completed_by": 7, "was_cancelled": False, "result": result, "updated_at": "2026-11-30T06:00:00Z"}
        )

    def answer(self, method: str, path: str, header: str, body: bytes) -> tuple[int, Any]:
        """Status and document."""
        document = json.loads(body) if body else None
        if (method, path) == ("POST", "/api/token/refresh"):
            return (200, {"access": ACCESS}) if document == {"refresh": PERSONAL} else (401, {"detail": "Token is invalid or expired"})
        if header not in (f"Token {LEGACY}", f"Bearer {ACCESS}"):
            return 401, {"detail": "Authentication credentials were not provided."}
        if (method, path) == ("POST", "/api/projects"):
            ElementTree.fromstring(document["label_config"])
            number = len(self.projects) + 1
            self.projects[number] = {**document, "tasks": []}
            return 201, {"id": number, **document}
        _, api, projects, number, what = path.partition("?")[0].split("/")
        if (api, projects) != ("api", "projects") or int(number) not in self.projects:
            return 404, {"detail": "Not found."}
        tasks = self.projects[int(number)]["tasks"]
        if (method, what) == ("POST", "import"):
            for task in document:
                Image.open(io.BytesIO(base64.b64decode(task["data"]["image"].partition("base64,")[2]))).verify()
                tasks.append({"id": len(tasks) + 1, "data": task["data"], "annotations": []})
            return 201, {"task_count": len(document), "annotation_count": 0, "prediction_count": 0}
        if (method, path.partition("?")[2]) == ("GET", "exportType=JSON"):
            return 200, [task for task in tasks if task["annotations"]]  # unfinished ones need download_all_tasks
        return 405, {"detail": f'Method "{method}" not allowed.'}


@contextlib.contextmanager
def served_label_studio() -> Iterator[FakeLabelStudio]:
    """The server on loopback."""
    studio = FakeLabelStudio()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, document = studio.answer(self.command, self.path, self.headers.get("authorization", ""), body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        studio.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield studio
        server.shutdown()
