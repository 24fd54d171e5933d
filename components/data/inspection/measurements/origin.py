"""Measurements of origin: what a folder says of its licence, its robot, and of itself in its data card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.data.inspection.folder.content import FolderView

_COUNT = {"episodes": r"total_episodes\D{1,4}(\d+)", "frames": r"total_frames\D{1,4}(\d+)", "fps": r'"fps"\D{1,3}(\d+(?:\.\d+)?)'}


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginMeasurements:
    """licence: as stated, "" for none; licence_place: where. robot: robot_type. card_numbers: name -> (in the card, in info.json).

    producers: who recorded -> episodes. splits: name -> (first, after the last). version: codebase_version.
    """

    licence: str
    licence_place: str
    robot: str
    version: str
    has_card: bool
    card_numbers: Mapping[str, tuple[float, float]]
    producers: Mapping[str, int]
    splits: Mapping[str, tuple[int, int]]
    bad_splits: tuple[str, ...]


def measure_origin(view: FolderView) -> OriginMeasurements:
    """Read what is said of licence and origin."""
    text, front = view.card
    licence, place = _licence(view, front)
    splits, bad = _splits(view.info.get("splits"))
    stated = {"episodes": view.info.get("total_episodes"), "frames": view.info.get("total_frames"), "fps": view.info.get("fps")}
    said = {name: re.search(pattern, text) for name, pattern in _COUNT.items()}
    numbers = {
        name: (float(found[1]), float(stated[name] or 0))
        for name, found in said.items()
        if found is not None and isinstance(stated[name], int | float)
    }
    producers: dict[str, int] = {}
    for row in view.ours.values():
        name = str(json.loads(row.get("provenance") or "{}").get("producer", "unknown"))
        producers[name] = producers.get(name, 0) + 1
    return OriginMeasurements(
        licence=licence,
        licence_place=place,
        robot=str(view.info.get("robot_type") or ""),
        version=str(view.info.get("codebase_version", "")),
        has_card=bool(text or front),
        card_numbers=numbers,
        producers=producers,
        splits=splits,
        bad_splits=bad,
    )


def _licence(view: FolderView, front: Mapping[str, str]) -> tuple[str, str]:
    for name in ("license", "licence"):
        if value := view.info.get(name):
            return str(value), "meta/info.json"
        if value := front.get(name):
            return value, "README.md"
    for path in sorted(view.root.glob("LICEN[CS]E*")):
        return _first_line(path), path.name
    return "", ""


def _first_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else ""


def _splits(stated: object) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    found: dict[str, tuple[int, int]] = {}
    bad: list[str] = []
    for name, value in stated.items() if isinstance(stated, Mapping) else ():
        match = re.fullmatch(r"(\d+):(\d+)", str(value))
        if match:
            found[str(name)] = (int(match[1]), int(match[2]))
        else:
            bad.append(f"{name} is {value!r}, expected 'first:last'")
    return found, tuple(bad)
