"""The cells of this home: their views, read from files that each cell writes over; any number of readers cost one read for each change."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.web.http.endpoint import not_found
from model_core.spec.errors import WireError
from model_core.spec.live.view import MAX_VIEW_BYTES, VIEW_FILE, CellView, LiveCamera, decode_view

_NAME = re.compile(r"^[\w.-]{1,100}$")
_KEPT_PICTURES = 8


@dataclass(slots=True)
class _Seen:
    stamp: tuple[int, int] = (0, 0)
    view: CellView | None = None
    pictures: OrderedDict[int, Mapping[str, bytes]] = field(default_factory=OrderedDict)


class Cells:
    """The views below one folder, one cell a folder. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Cells that have shown something, by name."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{VIEW_FILE}") if _NAME.match(path.parent.name))

    def folder_of(self, name: str) -> Path:
        """Where a cell shows itself and looks for orders. Raises Refused (404) for one that has never shown anything."""
        folder = self._folder / name
        if not _NAME.match(name) or name.startswith(".") or not (folder / VIEW_FILE).is_file():
            raise not_found(f"cell {name[:80]!r}", "choose one of the list of cells, or start one with `actwright workcell run`")
        return folder

    def view(self, name: str) -> CellView:
        """The newest view. Raises Refused (404) for no such cell, WireError for a file that is no view."""
        path = self.folder_of(name) / VIEW_FILE
        with self._lock:
            seen = self._seen.setdefault(name, _Seen())
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if seen.view is not None and stamp == seen.stamp:
                return seen.view
            if found.st_size > MAX_VIEW_BYTES:
                raise WireError(f"{path} has {found.st_size} bytes: this is no view of a cell")
            view = decode_view(path.read_bytes())
            if seen.view is not None and view.decision is not None and view.pictures_of < seen.view.pictures_of:
                seen.pictures.clear()  # another process began to count again
            if view.pictures:
                seen.pictures[view.pictures_of] = view.pictures
                while len(seen.pictures) > _KEPT_PICTURES:
                    seen.pictures.popitem(last=False)
            seen.stamp, seen.view = stamp, view
            return view

    def picture(self, name: str, number: int, camera: str) -> tuple[LiveCamera, bytes]:
        """A camera's RGB bytes of a recent decision. Raises Refused (404) where they are not kept any more."""
        view = self.view(name)
        spec = next((one for one in view.body.cameras if one.name == camera), None)
        with self._lock:
            pixels = self._seen[name].pictures.get(number, {}).get(camera)
        if spec is None or pixels is None:
            raise not_found(f"picture {number} of camera {camera[:60]!r}", "ask for that of the newest decision")
        return spec, pixels
