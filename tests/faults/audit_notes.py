"""What a cell told its audit, as plain documents: kept in memory for runs on a virtual clock, or read from an audit file.

Both give the same list for the checker: {"kind": "begin" | "decision" | "executed" | "event" | "end", field: value, ...}.
The file is read with the `mcap` package and `json`; nothing of ours takes part.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Note = dict[str, Any]


class MemoryAudit:
    """An audit port that keeps every note. `can_begin` may be set to False, as a full disk would."""

    def __init__(self) -> None:
        self.can_begin = True
        self.notes: list[Note] = []

    def begin_episode(self, begun: object) -> None:
        self._keep("begin", begun)

    def decision(self, made: object) -> None:
        self._keep("decision", made)

    def executed(self, action: object) -> None:
        self._keep("executed", action)

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        self.notes.append({"kind": "event", "t_s": t_s, "event": kind, "detail": dict(detail)})

    def end_episode(self, ended: object) -> None:
        self._keep("end", ended)

    def close(self) -> None:
        pass

    def _keep(self, kind: str, value: object) -> None:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in {"observation", "contract"}}  # type: ignore[arg-type]
        self.notes.append({"kind": kind, **{name: _plain(field) for name, field in fields.items()}})

    def events(self, kind: str) -> list[Note]:
        return [note for note in self.notes if note["kind"] == "event" and note["event"] == kind]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def read_notes(path: Path, driver: Sequence[Note] = ()) -> list[Note]:
    """The notes of one audit file, in order, with times in the driver's clock (its commands and their notes are paired in order)."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        found = [
            json.loads(message.data)
            for _, channel, message in make_reader(file).iter_messages(log_time_order=False)
            if channel.topic.startswith("/actwright/")
        ]
    found.sort(key=lambda note: note["n"])
    executed = [note for note in found if note["kind"] == "executed"]
    # The cell reads its clock at the start of a control step, the driver a little later: the smallest distance is the offset.
    offset = min((line["t"] - note["t"] for line, note in zip(driver, executed, strict=False)), default=0.0)
    for note in found:
        note["t_s"] = note["t"] + offset
        if "answer_ms" in note:
            note["answered_s"] = note["t_s"] + note["answer_ms"] / 1e3
    return found
