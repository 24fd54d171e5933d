"""Reports as a controller keeps them, and the JSON schemas of what travels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from model_core.spec.fleet.documents import CellReport, canonical


def kept_report(report: CellReport) -> str:
    """The text of a report without its episodes, which are kept apart."""
    return canonical(msgspec.structs.replace(report, episodes=())).decode()


@functools.lru_cache(maxsize=4_096)
def report_kept_as(text: str) -> CellReport:
    """The report in such a text."""
    return msgspec.json.decode(text, type=CellReport)


def json_schemas(types: Sequence[Any], reference: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schema of each type, and those that they refer to by name. reference: template such as "#/components/schemas/{name}"."""
    schemas, components = msgspec.json.schema_components(types, ref_template=reference)
    return list(schemas), components
