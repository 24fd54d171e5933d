"""One MCAP file: its topics, and its messages decoded one after the other. Checksums are verified, an unfinished file is refused.

ROS 2 messages (CDR with a ros2msg schema), Protobuf and JSON are decoded. Only the chunks that overlap are held in memory at a time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.errors import DatasetError

RECOVER = "Fix: close the recorder, or write a whole copy with the MCAP command line: mcap recover FILE -o COPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic of a file. encoding: of its messages ("cdr", "protobuf", "json")."""

    name: str
    schema: str
    encoding: str
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedMessage:
    """One message. (log_ns, repeat) names it within its topic: repeat counts those before it with the same log time."""

    topic: str
    log_ns: int
    repeat: int
    schema: str
    decode: Callable[[], Any]


class LogFile:
    """An open MCAP file. Raises `DatasetError` naming the file for one that is torn, without an index, or no MCAP at all."""

    def __init__(self, path: Path, name: str = "") -> None:
        from mcap.exceptions import McapError
        from mcap.reader import SeekingReader

        self.path, self.name = path, name or path.name
        self._factories = decoder_factories()
        self._decoders: dict[int, Callable[[bytes], Any]] = {}
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise DatasetError(f"{self.name} cannot be opened: {error}") from error
        try:
            self._reader = SeekingReader(self._stream, validate_crcs=True)
            summary = self._reader.get_summary()
        except (McapError, OSError, ValueError, EOFError, StopIteration, AttributeError, MemoryError) as error:
            self._stream.close()
            raise DatasetError(f"{self.name} is no whole MCAP file ({type(error).__name__}: {error}). {RECOVER}") from error
        statistics = None if summary is None else summary.statistics
        # without a chunk index the reader would load the whole file, and skip the checksums
        if summary is None or statistics is None or (statistics.message_count and not summary.chunk_indexes):
            self._stream.close()
            raise DatasetError(f"{self.name} has no index of its messages: its recorder did not finish it. {RECOVER}")
        self._summary, self.message_count = summary, statistics.message_count
        self.start_ns, self.end_ns = statistics.message_start_time, statistics.message_end_time

    @property
    def topics(self) -> dict[str, Topic]:
        """What is in the file, by name. Raises `DatasetError` where one topic has messages of two schemas."""
        found: dict[str, Topic] = {}
        counts = {} if self._summary.statistics is None else self._summary.statistics.channel_message_counts
        for number, channel in sorted(self._summary.channels.items()):
            schema = self._summary.schemas.get(channel.schema_id)
            topic = Topic(
                name=channel.topic,
                schema="" if schema is None else schema.name,
                encoding=channel.message_encoding,
                messages=counts.get(number, 0),
            )
            before = found.get(channel.topic)
            if before is not None and (before.schema, before.encoding) != (topic.schema, topic.encoding):
                raise DatasetError(f"{self.name}: topic {channel.topic} has messages of {before.schema} and of {topic.schema}")
            total = topic.messages + (0 if before is None else before.messages)
            found[channel.topic] = Topic(name=topic.name, schema=topic.schema, encoding=topic.encoding, messages=total)
        return found

    def messages(self, topics: Sequence[str], start_ns: int = 0, end_ns: int | None = None) -> Iterator[LoggedMessage]:
        """Messages of these topics in the order of their log times, from `start_ns` to `end_ns` (both included).

        Raises `DatasetError` for damage, also while decoding.
        """
        from mcap.exceptions import McapError

        newest: dict[str, tuple[int, int]] = {}
        stop_ns = None if end_ns is None else end_ns + 1
        try:
            for schema, channel, message in self._reader.iter_messages(topics=topics, starting_at=start_ns, ending_before=stop_ns):
                before_ns, repeats = newest.get(channel.topic, (-1, 0))
                repeat = repeats + 1 if message.log_time == before_ns else 0
                newest[channel.topic] = (message.log_time, repeat)
                yield LoggedMessage(
                    topic=channel.topic,
                    log_ns=message.log_time,
                    repeat=repeat,
                    schema="" if schema is None else schema.name,
                    decode=lambda s=schema, c=channel, m=message: self._decode(s, c, m),
                )
        except (McapError, OSError, ValueError, EOFError, MemoryError) as error:
            raise DatasetError(f"{self.name} is damaged ({type(error).__name__}: {error}). {RECOVER}") from error

    def _decode(self, schema: Any, channel: Any, message: Any) -> Any:
        where = f"{self.name}: message of {channel.topic} at log time {message.log_time}"
        if channel.id not in self._decoders:
            self._decoders[channel.id] = self._decoder(schema, channel)
        try:
            return self._decoders[channel.id](message.data)
        except Exception as error:  # the decoders of foreign bytes raise whatever they meet
            raise DatasetError(f"{where} cannot be decoded as {'JSON' if schema is None else schema.name}: {error}") from error

    def _decoder(self, schema: Any, channel: Any) -> Callable[[bytes], Any]:
        if channel.message_encoding == "json":
            return json.loads
        for factory in self._factories:
            with contextlib.suppress(NotImplementedError):
                if (decoder := factory.decoder_for(channel.message_encoding, schema)) is not None:
                    return decoder
        stated = "none" if schema is None else f"{schema.name} ({schema.encoding})"
        raise DatasetError(
            f"{self.name}: topic {channel.topic} is encoded as {channel.message_encoding!r} with schema {stated}; expected CDR with a "
            "ros2msg schema, Protobuf or JSON. Fix: record the topic again, or convert the file"
        )

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def decoder_factories() -> tuple[Any, ...]:
    """New decoders of ROS 2 and Protobuf messages: each remembers the schemas of one file."""
    from mcap_protobuf.decoder import DecoderFactory as ProtobufDecoderFactory
    from mcap_ros2.decoder import DecoderFactory as Ros2DecoderFactory

    return (Ros2DecoderFactory(), ProtobufDecoderFactory())


def split_recordings(files: Sequence[Path]) -> dict[Path, str]:
    """Files that hold one part of a recording, and why that is no episode: ROS 2 names the parts in a metadata.yaml beside them."""
    import yaml

    found: dict[Path, str] = {}
    for folder in sorted({file.parent for file in files}):
        try:
            document = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
            parts = document["rosbag2_bagfile_information"]["relative_file_paths"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
            continue  # no recording of ROS 2, or one without a list of parts
        if len(parts) > 1:
            why = f"it is one of {len(parts)} parts of one recording (metadata.yaml). Fix: join them, with mcap merge or ros2 bag"
            found |= {file: why for file in files if file.parent == folder and file.name in parts}
    return found
