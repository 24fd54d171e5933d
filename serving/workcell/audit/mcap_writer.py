"""One audit file being written: records chained, frames encoded once, every batch a whole MCAP chunk on its way to the disk.

Frames are stored as PNG: what the model saw is read back bit for bit, which a replay needs; JPEG would change the model's input.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer
from numpy.typing import NDArray
from PIL import Image

from model_core.spec.audit.format import (
    AUDIT_FORMAT,
    NO_HASH,
    PROFILE,
    Kind,
    camera_topic,
    digest,
    encode_record,
    plain,
    record_schema,
    time_ns,
    topic_of,
    trace_topic,
)
from model_core.spec.audit.foxglove import IMAGE_SCHEMA, TRACE_SCHEMA, Frame, encode_frame, image_schema, trace_drawing, trace_schema
from model_core.spec.contract import document_of
from model_core.spec.types import TRACE_RANGE
from serving.workcell.audit.append_file import AppendedFile, Disk
from serving.workcell.audit.index import decision_row, rows_of
from serving.workcell.audit.interface import ActionExecuted, DecisionMade, EpisodeBegun, EpisodeEnded

_REMEMBERED_FRAMES = 32
_CHUNK_BYTES = 4 * 2**20  # a batch is flushed sooner; this only bounds a very large one


class AuditWriter:
    """Writes the file of one episode. Not thread-safe. Only `push` and `close` touch the disk, and only they raise OSError."""

    def __init__(self, path: Path, begun: EpisodeBegun, *, wall_ns: int, before: Mapping[str, str], disk: Disk) -> None:
        self.path, self.begun = path, begun
        self.tip = NO_HASH
        self._rows: list[dict[str, Any]] = []  # of the index: one a decision
        self.counts = {"decisions": 0, "executed": 0, "frames": 0, "lost_frames": 0, "lost_records": 0}
        self._end: Mapping[str, Any] = {}
        self.records = 0
        self.wall_ns = wall_ns
        self.length_s = 0.0
        self._is_sealed = False
        self._frames: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._file = AppendedFile(path, disk)
        self._mcap = Writer(self._file, chunk_size=_CHUNK_BYTES, compression=CompressionType.ZSTD, enable_data_crcs=True)  # pyright: ignore[reportArgumentType]
        self._mcap.start(profile=PROFILE, library="actwright")
        body = {item.name: getattr(begun, item.name) for item in fields(begun) if item.name not in ("contract", "body", "t_s")}
        if begun.body is not None and begun.body != begun.contract.embodiment:
            body["body"] = document_of(begun.body)
        codebook = begun.contract.reasoning.codebook_digest
        opening = {"format": AUDIT_FORMAT, "wall_ns": wall_ns, "before": before, "codebook_digest": codebook}
        self._begin = self._record(Kind.BEGIN, begun.t_s, {**body, **opening, "contract": begun.contract.to_json()})

    @property
    def size(self) -> int:
        """Bytes so far, those included that the disk has not taken yet."""
        return self._file.tell()

    def decision(self, made: DecisionMade, *, room_for_frames: bool = True, lost: str = "") -> None:
        """A decision and the frames that it was made on. lost: why they are not there any more."""
        lost = lost or ("" if room_for_frames else "the spool has no room for frames")
        if lost:
            frames: dict[str, dict[str, Any]] = {camera.name: {"lost": lost} for camera in self.begun.contract.embodiment.cameras}
            self.counts["lost_frames"] += len(frames)
        else:
            frames = {camera: self._frame_or_why(camera, image_HW3, made.t_s) for camera, image_HW3 in made.observation.images.items()}
        seen = made.observation
        body = {item.name: getattr(made, item.name) for item in fields(made) if item.name not in ("observation", "t_s", "answered_s")}
        body["answer_ms"] = round(1e3 * (made.answered_s - made.t_s), 3)
        body |= {"frames": frames, "proprio": seen.proprio_P, "instruction": seen.instruction, "drawn": seen.steering}
        body |= {
            "model_version": self.begun.model_version,
            "contract_id": self.begun.contract_id,
            "bundle_digest": self.begun.bundle_digest,
        }
        chunk = made.chunk
        if chunk is not None and chunk.trace_N2 is not None:
            body["drawing"] = self._drawing(frames, chunk.trace_N2, made.t_s)
        if chunk is not None and chunk.depth_codes_G is not None:
            body["codebook_digest"] = self.begun.contract.reasoning.codebook_digest
        self.counts["decisions"] += 1
        self._rows.append(decision_row(self.records, self._since_begin(made.t_s), self._record(Kind.DECISION, made.t_s, body)))
        self._mcap.flush()  # ends the chunk: an incomplete file can be read up to its last whole one

    def executed(self, action: ActionExecuted) -> None:
        """One control step."""
        self.counts["executed"] += 1
        self._record(Kind.EXECUTED, action.t_s, {item.name: getattr(action, item.name) for item in fields(action) if item.name != "t_s"})

    def event(self, t_s: float, kind: str, detail: Mapping[str, object]) -> None:
        """Anything else."""
        self._record(Kind.EVENT, t_s, {"event": kind, "detail": detail})

    def lost(self, records: int, reason: str) -> None:
        """Record that `records` were given but could not be kept."""
        self.counts["lost_records"] += records
        self._record(Kind.EVENT, self.begun.t_s + self.length_s, {"event": "lost", "detail": {"records": records, "reason": reason}})

    def end(self, ended: EpisodeEnded) -> None:
        """How the episode went."""
        self._end = self._record(
            Kind.END, ended.t_s, {item.name: getattr(ended, item.name) for item in fields(ended) if item.name != "t_s"}
        )

    def push(self, *, sync: bool = False) -> None:
        """Close the batch and hand it to the disk. Raises OSError; may be called again."""
        self._mcap.flush()
        self._file.push(sync=sync)

    def seal(self) -> None:
        """Write the last record and the file's index, once; `push` must follow."""
        if self._is_sealed:
            return
        self._is_sealed = True
        complete = bool(self._end) and self.counts["lost_records"] == 0
        self._record(Kind.SEAL, self.begun.t_s + self.length_s, {"counts": dict(self.counts), "complete": complete})
        self._mcap.finish()

    def index_rows(self) -> list[dict[str, Any]]:
        """What the index holds of the sealed file: the same as is read back from it."""
        whole = {"file": self.path.name, "n": self.records, "t": self.length_s, "counts": self.counts, "sealed": True, "tip": self.tip}
        return rows_of(self._begin, self._end, self._rows, whole)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _record(self, kind: Kind, t_s: float, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the next link of the chain; returns what it holds."""
        t, document = self._since_begin(t_s), _body(body)
        self.length_s = max(self.length_s, t)
        data = encode_record(self.records, kind, self.tip, t, document)
        channel = self._channel(topic_of(kind), f"actwright.{kind.value}", "json", record_schema(kind))
        self._write(channel, t, data)
        self.tip = digest(data)
        self.records += 1
        return document

    def _since_begin(self, t_s: float) -> float:
        return round(t_s - self.begun.t_s, 6)

    def _write(self, channel: int, t: float, data: bytes) -> None:
        stamp = time_ns(self.wall_ns, t)
        self._mcap.add_message(channel, log_time=stamp, data=data, publish_time=stamp, sequence=self.records)

    def _channel(self, topic: str, schema: str, encoding: str, text: bytes) -> int:
        if topic not in self._channels:
            if schema not in self._schemas:
                self._schemas[schema] = self._mcap.register_schema(schema, "protobuf" if encoding == "protobuf" else "jsonschema", text)
            self._channels[topic] = self._mcap.register_channel(topic, encoding, self._schemas[schema])
        return self._channels[topic]

    def _frame_or_why(self, camera: str, image_HW3: NDArray[np.uint8], t_s: float) -> dict[str, Any]:
        try:
            return self._frame(camera, image_HW3, t_s)
        except Exception as error:  # a camera that gives no image must not cost the record of what was done with it
            self.counts["lost_frames"] += 1
            return {"lost": f"no picture: {error!r}"[:200]}

    def _frame(self, camera: str, image_HW3: NDArray[np.uint8], t_s: float) -> dict[str, Any]:
        """Store a frame once: the same image again is referred to, not stored."""
        pixels = np.ascontiguousarray(image_HW3)
        key = camera + hashlib.sha256(pixels.data).hexdigest() + str(pixels.shape)
        if key not in self._frames:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
            t = self._since_begin(t_s)
            message = encode_frame(Frame(camera=camera, format="png", data=buffer.getvalue(), time_ns=time_ns(self.wall_ns, t)))
            self._write(self._channel(camera_topic(camera), IMAGE_SCHEMA, "protobuf", image_schema()), t, message)
            height, width = pixels.shape[:2]
            self._frames[key] = {"digest": digest(message), "format": "png", "width": width, "height": height}
            self.counts["frames"] += 1
            while len(self._frames) > _REMEMBERED_FRAMES:
                self._frames.popitem(last=False)
        return self._frames[key]

    def _drawing(self, frames: Mapping[str, Mapping[str, Any]], trace_N2: NDArray[np.int64], t_s: float) -> str:
        """The trace as a line on the camera that it belongs to, for viewers; "" where there is no such frame."""
        camera = self.begun.contract.reasoning.trace_camera or next(iter(frames), "")
        frame = frames.get(camera, {})
        if "digest" not in frame:
            return ""
        scale = ((frame["width"] - 1) / TRACE_RANGE, (frame["height"] - 1) / TRACE_RANGE)
        t = self._since_begin(t_s)
        points = [(float(x) * scale[0], float(y) * scale[1]) for x, y in trace_N2]
        message = trace_drawing(points, time_ns(self.wall_ns, t))
        self._write(self._channel(trace_topic(camera), TRACE_SCHEMA, "json", trace_schema()), t, message)
        return digest(message)


def _body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Every value as JSON; one that cannot be is stored as text rather than losing the record."""
    told: dict[str, Any] = {}
    for name, value in body.items():
        try:
            told[name] = plain(value)
        except Exception:
            told[name] = {"unwritable": repr(value)[:500]}
    return told
