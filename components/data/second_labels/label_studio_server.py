"""Label Studio's own API: a project for frames that are asked, and the tasks that people finished there.

Source: api.labelstud.io (projects, import, export) and labelstud.io/guide/access_tokens. A legacy token is sent as it is; a personal access
token is a refresh token, for which the server gives an access token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.adapters.http import NoAnswerError, Reply, request
from components.data.second_labels.label_studio import CONFIG
from model_core.spec.errors import NotReady, SpecError

_MOST_BYTES = 20_000_000  # of one import; the server takes up to 200 MB
_TIMEOUT_S = 120.0


class LabelStudio:
    """One server, as one person. url: such as http://127.0.0.1:8080. Raises `SpecError` for another kind of address.

    Every call raises `NotReady` where the server does not answer or refuses, with what it said; the token is in no message.
    """

    def __init__(self, url: str, token: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise SpecError(f"Label Studio: expected an address such as http://127.0.0.1:8080, got {url[:100]!r}")
        self._url = url.rstrip("/")
        is_personal = token.count(".") == 2  # a JSON web token
        self._headers = {"authorization": f"Bearer {self._access(token)}" if is_personal else f"Token {token}"}

    def add_project(self, title: str) -> int:
        """A new project with the labelling interface for points; its number."""
        made = self._json("POST", "/api/projects", {"title": title, "label_config": CONFIG})
        return int(_field(made, "id", "/api/projects"))

    def add_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> int:
        """Import tasks, in parts; how many the server says it took."""
        path, taken = f"/api/projects/{project}/import", 0
        for part in _parts(tasks):
            taken += int(_field(self._json("POST", path, part), "task_count", path))
        return taken

    def finished(self, project: int) -> Any:
        """The tasks with annotations, as an export in JSON has them."""
        return self._json("GET", f"/api/projects/{project}/export?exportType=JSON")

    def _access(self, token: str) -> str:
        self._headers = dict[str, str]()
        return str(_field(self._json("POST", "/api/token/refresh", {"refresh": token}), "access", "/api/token/refresh"))

    def _json(self, method: str, path: str, document: object = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        headers = {**self._headers, "content-type": "application/json"}
        try:
            reply = request(method, self._url + path, timeout_s=_TIMEOUT_S, headers=headers, body=body)
        except NoAnswerError as error:
            raise NotReady(f"Label Studio does not answer: {error}. Fix: start it, or give its address") from error
        if not reply.ok:
            raise NotReady(f"Label Studio refused {method} {path} with status {reply.status}: {_said(reply)}. Fix: {_fix(reply.status)}")
        try:
            return reply.json()
        except ValueError as error:
            raise NotReady(f"{self._url}{path} gave no JSON. Fix: is this the address of Label Studio itself?") from error


def _field(document: Any, name: str, path: str) -> Any:
    if not isinstance(document, dict) or name not in document:
        raise NotReady(
            f"Label Studio answered {path} without {name!r}. Fix: a server of version 1.x; others answer imports in another form"
        )
    return document[name]


def _parts(tasks: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The tasks in parts whose images are at most `_MOST_BYTES`, each at least one task."""
    parts, size = list[list[Mapping[str, Any]]](), 0
    for task in tasks:
        own = len(str(task["data"]["image"]))
        if not parts or size + own > _MOST_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(task)
        size += own
    return parts


def _said(reply: Reply) -> str:
    return reply.body[:200].decode("utf-8", "replace")


def _fix(status: int) -> str:
    return "a token of that server, in the file of --token-file" if status in (401, 403) else "see what it says"
