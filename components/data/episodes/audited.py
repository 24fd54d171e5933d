"""One audited episode, opened to be looked at: the frames that decisions were made on, what was predicted, executed, held and refused."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.episodes.signals import Mark, Series, Signals, spans
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile, AuditRecord
from model_core.spec.errors import DatasetError
from model_core.spec.types import TRACE_MAX_POINTS

MOVING = ("RUN", "STRETCH")  # modes of a cell in which it follows a chunk
BAD_ANSWERS = ("refused", "late", "dropped")


class AuditEpisode:
    """The episode in an audit file, as far as its chain holds. A frame is a decision that saw the camera."""

    def __init__(self, found: AuditFile) -> None:
        self.found = found
        self._seen: dict[str, list[tuple[AuditRecord, Mapping[str, Any]]]] = {}
        for record in found.of(Kind.DECISION):
            for camera, frame in record.body.get("frames", {}).items():
                if frame.get("digest") in found.frames:
                    self._seen.setdefault(camera, []).append((record, frame))
        self.cameras = tuple(self._seen)

    def count(self, camera: str) -> int:
        """As many as decisions saw it and are still there."""
        return len(self._seen.get(camera, ()))

    def frames(self, camera: str, steps: range) -> NDArray[np.uint8]:
        """These frames (T, H, W, 3)."""
        from PIL import Image

        images: list[NDArray[np.uint8]] = []
        for _, frame in self._seen[camera][steps.start : steps.stop]:
            with Image.open(io.BytesIO(self.found.frames[frame["digest"]].data)) as image:
                images.append(np.asarray(image.convert("RGB"), np.uint8))
        if not images:
            raise DatasetError(f"{self.found.path.name} has no frames {steps.start} to {steps.stop - 1} of camera {camera!r}")
        return np.stack(images)

    def depth(self, camera: str, step: int) -> NDArray[np.float32] | None:
        """None: an audit keeps depth as codes, which only the model's own decoder turns into metres."""
        return None

    def signals(self) -> Signals:
        """State and commands of each control step, chunks' traces, and marks where the cell held, was refused or was clipped."""
        return Signals(
            frames={camera: np.array([record.t for record, _ in seen]) for camera, seen in self._seen.items()},
            series=self._series,
            marks=marks_of(self.found),
            traces=self._traces(),
        )

    @cached_property
    def _series(self) -> dict[str, Series]:
        executed = self.found.of(Kind.EXECUTED)
        times_N = np.array([record.t for record in executed])
        embodiment = self.found.contract.get("embodiment") or {}
        made: dict[str, Series] = {}
        for name, field, vector in (("state", "state_P", "proprio"), ("action", "raw_A", "action"), ("executed", "sent_A", "action")):
            rows = [record.body.get(field) or () for record in executed]
            width = max(map(len, rows), default=0)
            if width:
                values_ND = np.array([[float(value) for value in row] if len(row) == width else [np.nan] * width for row in rows])
                names = [str(dim["name"]) for dim in (embodiment.get(vector) or {}).get("dims", ())]
                said = tuple(names) if len(names) == width else tuple(map(str, range(width)))
                made[name] = Series(names=said, times_N=times_N, values_ND=values_ND.astype(np.float32))
        return made

    def _traces(self) -> dict[str, NDArray[np.int16]]:
        stated = (self.found.contract.get("reasoning") or {}).get("trace_camera") or next(iter(self.cameras), "")
        if stated not in self._seen:
            return {}
        trace_N52 = np.full((len(self._seen[stated]), TRACE_MAX_POINTS, 2), -1, np.int16)
        for place, (record, _) in enumerate(self._seen[stated]):
            points = ((record.body.get("chunk") or {}).get("trace_N2") or ())[:TRACE_MAX_POINTS]
            if points:
                trace_N52[place, : len(points)] = points
        return {stated: trace_N52} if (trace_N52 >= 0).any() else {}


def marks_of(found: AuditFile) -> list[Mark]:
    """Where the cell held or stopped, where its answers were refused or late, and where the safety envelope brought a command back."""
    executed = found.of(Kind.EXECUTED)
    made = [
        Mark(kind="refusal", start_s=r.t, end_s=r.t, text=_refusal(r.body))
        for r in found.of(Kind.DECISION)
        if r.body.get("outcome") in BAD_ANSWERS
    ]
    modes = [str(record.body.get("mode", "")) for record in executed]
    held_T, clipped_T = np.array([mode not in MOVING for mode in modes], bool), np.array([bool(r.body.get("clipped")) for r in executed])
    for kind, flags_T in (("hold", held_T), ("clip", clipped_T)):
        for first, end in spans(flags_T.astype(bool)):
            said = modes[first] if kind == "hold" else "clipped: " + ", ".join(sorted(executed[first].body["clipped"]))
            made.append(Mark(kind=kind, start_s=executed[first].t, end_s=executed[end - 1].t, text=said))
    return sorted(made, key=lambda mark: (mark.start_s, mark.kind))


def _refusal(body: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (str(body.get("outcome")), str(body.get("code") or ""), str(body.get("reason") or "")) if part)
