"""Other tools that check LeRobot folders, run in an environment of their own: what each reports, as comparable texts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One tool. command: its program; `arguments` stand after the folder. form: "doctor" or "audit", how its report is read."""

    name: str
    command: Path
    before: tuple[str, ...]
    after: tuple[str, ...]
    form: str


def peers(environment: Path) -> tuple[Peer, ...]:
    """The tools of a virtual environment that are there."""
    known = (
        Peer(name="lerobot-doctor", command=environment / "bin/lerobot-doctor", before=("check",), after=("--json",), form="doctor"),
        Peer(name="robot-data-audit", command=environment / "bin/rda", before=("audit",), after=("--full",), form="audit"),
    )
    return tuple(peer for peer in known if peer.command.is_file())


def findings_of(peer: Peer, folder: Path) -> set[str]:
    """What the tool reports as a warning or worse, without numbers and names, so that the same fault of two folders reads alike.

    A tool that fails on a folder has reported it ("ended with an error").
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "400"}
    with tempfile.TemporaryDirectory() as out:
        command = [str(peer.command), *peer.before, str(folder), *peer.after]
        if peer.form == "audit":
            command += ["--format", "json", "--output", f"{out}/report.json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=out, check=False)
        path = Path(out) / "report.json"
        text = path.read_text() if path.is_file() else done.stdout
    try:
        document = json.loads(text[text.index("{") :])
    except ValueError:
        return {"ended with an error"}
    return {_plain(line) for line in (_doctor(document) if peer.form == "doctor" else _audit(document))}


def _doctor(document: Any) -> Iterator[str]:
    for check in document.get("checks", ()):
        for message in check["messages"]:
            if message["severity"] in ("WARN", "FAIL", "ERROR"):
                yield f"{check['name']}: {message['severity']}: {message['message']}"


def _audit(document: Any, place: str = "") -> Iterator[str]:
    """Every value of a report whose name says how bad it is, with its place."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name in ("severity", "status", "grade", "verdict", "decision") and isinstance(value, str):
                if value.lower() not in ("pass", "ok", "info", "good", "accept", "none", "a", "b", "excellent"):
                    yield f"{place}/{name}: {value}"
            elif name in ("issues", "warnings", "flags", "anomalies", "reasons") and isinstance(value, list):
                yield from (f"{place}/{name}: {item if isinstance(item, str) else json.dumps(item)}" for item in value)
            else:
                yield from _audit(value, f"{place}/{name}")
    elif isinstance(document, list):
        for item in document:
            yield from _audit(item, place)


def _plain(line: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", line)
