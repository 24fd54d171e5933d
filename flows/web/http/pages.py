"""The built pages, read once: a request is looked up by name and never opens a file."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from model_core.spec.errors import NotReady

STATIC = Path(__file__).parents[1] / "static"
_FIRST = "index.html"
_LEAST_COMPRESSED = 1024  # bytes; what is smaller fits into one packet as it is


@dataclass(frozen=True, kw_only=True)
class _Page:
    data: bytes
    media_type: str
    etag: str

    @cached_property
    def compressed(self) -> bytes:
        """The same by gzip, made for the first browser that takes it."""
        return gzip.compress(self.data, mtime=0)


class Pages:
    """The files of one built console. folder: holds index.html. Raises NotReady where nothing was built."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._files = _read(folder)
        if _FIRST not in self._files:
            raise NotReady(f"{folder} holds no {_FIRST}: the pages were not built. Fix: `make console`, or install the wheel")

    async def answer(self, request: Request) -> Response:
        """A file by its name; every other address is one of the application's views, which it reads from the address itself."""
        name = request.path_params["name"] or _FIRST
        found = self._files.get(name)
        is_asset = name.startswith("assets/")
        if found is None:
            if is_asset or "text/html" not in request.headers.get("accept", "text/html"):
                return PlainTextResponse("not here\n", status_code=404)
            found = self._files[_FIRST]
        headers = {"etag": found.etag, "cache-control": "public, max-age=31536000, immutable" if is_asset else "no-cache"}
        if request.headers.get("if-none-match") == found.etag:
            return Response(status_code=304, headers=headers)
        if len(found.data) < _LEAST_COMPRESSED or "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(found.data, media_type=found.media_type, headers=headers)
        headers |= {"content-encoding": "gzip", "vary": "accept-encoding"}
        return Response(found.compressed, media_type=found.media_type, headers=headers)


def _read(folder: Path) -> Mapping[str, _Page]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: _Page(data=data, media_type=_media_type(name), etag=f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        for name, data in files.items()
    }


def _media_type(name: str) -> str:
    known = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}  # not as this machine's table has them
    return known.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
