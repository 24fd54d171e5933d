"""The documents of meta/ as they are: info.json, tasks, statistics, the data card. What cannot be read becomes a fact."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.data.inspection.folder.facts import FactList
from components.data.lerobot import layout
from components.data.lerobot.meta.tasks import read_tasks
from components.data.lerobot.tables import read_json
from model_core.spec.errors import DatasetError

KNOWN_VERSIONS = ("v2.0", "v2.1", "v3.0")
EPISODE_LINES, STATISTICS_LINES = "meta/episodes.jsonl", "meta/episodes_stats.jsonl"  # the second since version 2.1


def read_description(root: Path, facts: FactList) -> Mapping[str, Any]:
    """meta/info.json; an empty mapping where there is none. Facts: `file_unreadable`, `version`, `info_field`."""
    try:
        facts.look("file_unreadable")
        info = read_json(root / layout.INFO)
    except DatasetError as error:
        facts.add("file_unreadable", layout.INFO, str(error))
        return {}
    version = str(info.get("codebase_version"))
    facts.check("version", version in KNOWN_VERSIONS, layout.INFO, f"codebase_version is {version}, expected {', '.join(KNOWN_VERSIONS)}")
    is_new = (root / "meta" / "episodes").is_dir()
    says_new = version.startswith("v3")
    if version in KNOWN_VERSIONS:
        reason = f"codebase_version is {version}, but the files are those of {'v3' if is_new else 'v2'}"
        facts.check("version", is_new == says_new or not any((is_new, (root / EPISODE_LINES).exists())), layout.INFO, reason)
    fps = info.get("fps")
    is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and math.isfinite(fps) and fps > 0
    facts.check("info_field", is_rate, layout.INFO, f"fps is {fps!r}, expected a number above 0")
    for name in ("total_episodes", "total_frames"):
        value = info.get(name)
        facts.check("info_field", isinstance(value, int) and value >= 0, layout.INFO, f"{name} is {value!r}, expected a whole number")
    features = info.get("features")
    is_table = isinstance(features, Mapping) and all(isinstance(f, Mapping) and isinstance(f.get("dtype"), str) for f in features.values())
    facts.check("info_field", is_table, layout.INFO, "features is no table of features with a dtype each")
    return dict(info) | ({} if is_table else {"features": {}}) | ({} if is_rate else {"fps": 0.0})


def read_lines(root: Path, name: str, facts: FactList) -> list[dict[str, Any]]:
    """A file of one JSON object a line, in their order; a line that is none becomes a fact `file_unreadable`."""
    path = root / name
    facts.look("file_unreadable")
    if not path.is_file():
        facts.add("file_unreadable", name, "the file is missing, expected one JSON object a line")
        return []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            facts.add("file_unreadable", name, f"line {number + 1} is not JSON: {error}")
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def read_sentences(root: Path, info: Mapping[str, Any], facts: FactList) -> dict[int, str]:
    """task_index -> sentence. Facts: `task_table`."""
    facts.look("task_table")
    try:
        return dict(read_tasks(root, info))
    except DatasetError as error:
        facts.add("task_table", layout.TASKS, str(error))
        return {}


def read_statistics(root: Path) -> Mapping[str, Any]:
    """meta/stats.json; empty where there is none or it is no document."""
    try:
        return read_json(root / layout.STATS)
    except DatasetError:
        return {}


def read_card(root: Path) -> tuple[str, Mapping[str, str]]:
    """(text, front matter) of README.md: what a data card says of licence and origin. Of the front matter, only `name: value` lines."""
    path = root / "README.md"
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    parts = text.split("---", 2) if text.lstrip().startswith("---") else []
    if len(parts) < 3:
        return text, {}
    lines = (line.partition(":") for line in parts[1].splitlines() if ":" in line and not line.startswith((" ", "-", "\t")))
    return parts[2], {name.strip(): value.strip().strip("'\"") for name, _, value in lines}
