"""`actwright data topics`: what is in a robot log, and a first mapping file for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.data.sources.mcap.topics import TopicSummary


def topics(
    file: Annotated[Path, typer.Argument(help="an MCAP file of a robot", metavar="FILE")],
    draft: Annotated[Path | None, typer.Option(help="write a first mapping file for its topics here", metavar="OUT")] = None,
) -> None:
    """List the topics of a robot log (MCAP) with schema, rate and gaps; draft the mapping file that makes episodes of it.

    A draft says of each guess what it rests on. What the log cannot tell stays 'confirm:', and reading refuses it until a person decided.

    Example: actwright data topics recording.mcap
    Example: actwright data topics recording.mcap --draft mapping.yaml
    """
    from components.data.sources.mcap.draft import draft_mapping
    from components.data.sources.mcap.topics import list_topics
    from model_core.spec.documents import to_document
    from model_core.spec.errors import DatasetError
    from model_core.spec.files import atomic_write

    if draft is not None and draft.exists():
        raise DatasetError(f"{draft} exists; a mapping that a person corrected is not replaced. Fix: name another file, or remove it")
    found = list_topics(file)
    for topic in found:
        print_line(_line(topic))
    if draft is not None:
        atomic_write(draft, draft_mapping(found))
        print_line(f"{draft}: correct it, and replace each text that begins with 'confirm:'")
    print_result(topics=[to_document(topic) for topic in found], draft=None if draft is None else str(draft))


def _line(topic: TopicSummary) -> str:
    told = f"{topic.name}  {topic.schema or 'no schema'} ({topic.encoding})  {topic.messages} messages"
    if topic.messages > 1:
        told += f", {topic.rate_hz:.4g} a second, largest gap {topic.largest_gap_s:.4g} s"
    if topic.log_after_stamp_s is not None:
        told += f", logged {topic.log_after_stamp_s:.4g} s after its stamp"
    if isinstance(topic.image, tuple):
        told += f", images {topic.image[1]}x{topic.image[0]}"
    elif topic.image:
        told += f", images cannot be read: {topic.image}"
    numbers = ", ".join(f"{number.path}[{number.width}]" if number.width > 1 else number.path for number in topic.numbers[:8])
    return told + (f"; {numbers}" if numbers else "") + (f"; {topic.problem}" if topic.problem else "")
