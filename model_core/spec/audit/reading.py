"""Read an audit file, whole or torn, and prove its chain. Never raises for what is in the file: damage is a finding.

What is read was found good up to the first damage: `AuditFile.problem` names it and `broken_at` the first record that is missing
or wrong. Everything before that can be used.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_core.spec.audit.format import NO_HASH, THINNED, Kind, digest, time_ns, topic_of
from model_core.spec.audit.foxglove import IMAGE_SCHEMA, Frame, decode_frame
from model_core.spec.errors import WireError

MAX_RECORD_BYTES = 256 * 2**20
_MAGIC = bytes((0x89, 0x4D, 0x43, 0x41, 0x50, 0x30, 0x0D, 0x0A))
_TAIL = struct.Struct("<BQQQI8s")  # footer: opcode, length, summary start, offsets start, CRC; then the end mark


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditRecord:
    """One link. body: its JSON document. digest: SHA-256 of its bytes, which the next record carries."""

    n: int
    kind: Kind
    t: float
    body: Mapping[str, Any]
    digest: str


@dataclass(slots=True, kw_only=True, eq=False)
class AuditFile:
    """What could be read. frames: by the digest that decisions name. thinned: images were taken out on purpose, so some are missing.

    problem: "" when everything was proven. broken_at: number of the first record that is missing or wrong; None when none is.
    """

    path: Path
    records: list[AuditRecord] = field(default_factory=list[AuditRecord])
    frames: dict[str, Frame] = field(default_factory=dict[str, Frame])
    thinned: int = 0
    missing_frames: int = 0
    problem: str = ""
    broken_at: int | None = None

    @property
    def is_proven(self) -> bool:
        """Every record is there, unchanged, in order, and the file was sealed."""
        return not self.problem

    @property
    def is_sealed(self) -> bool:
        """It was closed properly."""
        return bool(self.records) and self.records[-1].kind is Kind.SEAL

    @property
    def tip(self) -> str:
        """The last link."""
        return self.records[-1].digest if self.records else NO_HASH

    def of(self, kind: Kind) -> list[AuditRecord]:
        """All records of a kind, in order."""
        return [record for record in self.records if record.kind is kind]

    @property
    def contract(self) -> Mapping[str, Any]:
        """The contract document that the episode ran under; {} where the first record is unreadable."""
        begin = self.of(Kind.BEGIN)
        return begin[0].body.get("contract") or {} if begin else {}


def prove_audit(data: bytes, path: Path) -> AuditFile:
    """Parse and prove the bytes of one audit file; what is wrong with them is a finding. path: where they come from, for messages."""
    found = AuditFile(path=path)
    chain = _Chain(found)
    try:
        for item in _items(data):
            if not chain.take(item):
                break
    except Exception as error:  # whatever a damaged file makes a parser raise is a finding about the file
        chain.breaks(f"the file is damaged or ends here ({type(error).__name__}{f': {error}' if str(error) else ''})")
    if not found.problem:
        chain.close(data)
    return found


def _items(data: bytes) -> Iterator[object]:
    from mcap.stream_reader import StreamReader

    stream = io.BytesIO(data)
    yield from StreamReader(stream, validate_crcs=True, record_size_limit=MAX_RECORD_BYTES).records
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes follow the end")


class _Chain:
    """Follows the links and keeps what is good."""

    def __init__(self, found: AuditFile) -> None:
        self._found = found
        self._topics: dict[int, tuple[str, str]] = {}
        self._schemas: dict[int, str] = {}
        self._has_data_crc = False
        self._drawings: dict[str, bytes] = {}

    def take(self, item: object) -> bool:
        """One MCAP record; False when the chain broke."""
        from mcap.records import Channel, DataEnd, Message, Metadata, Schema

        if isinstance(item, Schema):
            self._schemas[item.id] = item.name
        elif isinstance(item, Channel):
            self._topics[item.id] = (item.topic, self._schemas.get(item.schema_id, ""))
        elif isinstance(item, DataEnd):
            self._has_data_crc = item.data_section_crc != 0
        elif isinstance(item, Metadata) and item.name == THINNED:
            self._found.thinned = int(item.metadata.get("images", "0"))
        elif isinstance(item, Message):
            return self._message(item)
        return True

    def _message(self, message: Any) -> bool:
        topic, schema = self._topics.get(message.channel_id, ("", ""))
        if schema == IMAGE_SCHEMA:
            with contextlib.suppress(WireError):  # then the frame that a decision names is missing, which is reported at the end
                self._found.frames[digest(message.data)] = decode_frame(message.data)
        elif topic.startswith("/actwright/"):
            return self._record(topic, message)
        else:
            self._drawings[digest(message.data)] = message.data
        return True

    def _record(self, topic: str, message: Any) -> bool:
        found, body = self._found, json.loads(message.data)
        wrong = self._misplaced(topic, message, body)
        if wrong:
            return self.breaks(wrong)
        kind = Kind(body["kind"])
        found.records.append(AuditRecord(n=body["n"], kind=kind, t=float(body["t"]), body=body, digest=digest(message.data)))
        return True

    def _misplaced(self, topic: str, message: Any, body: Mapping[str, Any]) -> str:
        found = self._found
        n, number, kind = len(found.records), body["n"], Kind(body["kind"])
        if number != n:
            return f"{f'record {n} is missing: ' if number > n else ''}record {number} stands where record {n} belongs"
        if body["previous"] != found.tip:
            return f"record {n} ({kind.value}) names {body['previous'][:12]} as the one before, which is {found.tip[:12]}"
        if found.is_sealed or (n == 0) != (kind is Kind.BEGIN):
            return f"record {n} is of kind {kind.value}, which cannot stand there"
        wall_ns = int((body if n == 0 else found.records[0].body)["wall_ns"])
        if (topic, message.sequence, message.log_time) != (topic_of(kind), n, time_ns(wall_ns, body["t"])):
            return f"record {n}: its channel, number or time are not those in its text"
        return ""

    def breaks(self, problem: str) -> bool:
        """The first thing that is wrong."""
        self._found.problem, self._found.broken_at = problem, len(self._found.records)
        return False

    def close(self, data: bytes) -> None:
        """What can only be checked at the end: sealed, summary unharmed, every frame there that is named and no other."""
        found = self._found
        if not found.is_sealed:
            self.breaks(f"the file was not sealed after record {len(found.records) - 1}: the recorder was killed, or still writes")
            return
        if not self._has_data_crc or not _summary_is_whole(data):
            found.problem, found.broken_at = "the file's own index is damaged; the records are unharmed", None
            return
        named = {
            frame["digest"]: record.n
            for record in found.of(Kind.DECISION)
            for frame in record.body.get("frames", {}).values()
            if frame.get("digest")
        }
        drawn = {record.body["drawing"] for record in found.of(Kind.DECISION) if record.body.get("drawing")}
        missing = [n for name, n in named.items() if name not in found.frames]
        found.missing_frames = len(missing)
        strangers = len(found.frames.keys() - named.keys()) + len(self._drawings.keys() - drawn)
        if missing and not found.thinned:
            found.problem, found.broken_at = (
                f"{len(missing)} camera frames are missing or were changed, the first of record {min(missing)}",
                min(missing),
            )
        elif strangers:
            found.problem = f"{strangers} camera frames or drawings are in the file that no decision names"


def _summary_is_whole(data: bytes) -> bool:
    opcode, length, start, _, crc, mark = _TAIL.unpack(data[-_TAIL.size :])
    return opcode == 2 and length == 20 and mark == _MAGIC and zlib.crc32(data[start : -len(_MAGIC) - 4]) == crc
