"""Other tools that check LeRobot folders, run in an environment of their own: what each reports, as comparable texts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data_faults.warm_program import WarmProgram, warm_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One tool. command: its program; before, after: arguments around the folder. form: how its report is read.

    report: the option that names the file of its report; "" where it prints it. version: of its package.
    """

    name: str
    command: Path
    before: tuple[str, ...]
    after: tuple[str, ...]
    form: str
    report: str = ""
    version: str = ""


def peers(environment: Path) -> tuple[Peer, ...]:
    """The tools of a virtual environment that are there."""
    environment = environment.absolute()  # the tools run in a folder of their own
    known = (
        ("lerobot-doctor", "lerobot-doctor", "doctor", ("check",), ("--json",), ""),
        ("robot-data-audit", "rda", "audit", ("audit",), ("--full", "--format", "json"), "--output"),
        ("rdq", "rdq", "rdq", ("check",), ("--video-full",), "--json"),
        ("deepen-grade", "deepen", "deepen", ("grade",), ("--json", "--quiet"), ""),
    )
    return tuple(
        Peer(
            name=name,
            command=environment / "bin" / program,
            before=before,
            after=after,
            form=form,
            report=report,
            version=_version(environment, name),
        )
        for name, program, form, before, after, report in known
        if (environment / "bin" / program).is_file()
    )


def _version(environment: Path, package: str) -> str:
    asked = [str(environment / "bin/python"), "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(asked, capture_output=True, text=True, env=settings, check=True).stdout.strip()


def running(peer: Peer) -> AbstractContextManager[WarmProgram]:
    """The tool, to be asked about many folders."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ACTWRIGHT"))}
    return warm_program(peer.command, settings | {"OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "400"})


def findings_of(peer: Peer, program: WarmProgram, folder: Path) -> set[str]:
    """What the tool reports as a warning or worse, without numbers and names, so that the same fault of two folders reads alike.

    A tool that fails on a folder has reported it ("ended with an error").
    """
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "report.json"
        words = [*peer.before, str(folder), *peer.after, *((peer.report, str(path)) if peer.report else ())]
        _, printed = program.run(words, Path(out))
        text = path.read_text() if path.is_file() else printed
    try:
        document = json.loads(text[text.index("{") :])
    except ValueError:
        return {"ended with an error"}
    return {_plain(line) for line in _READ[peer.form](document)}


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


def _rdq(document: Any) -> Iterator[str]:
    for finding in document.get("findings", ()):
        if finding["severity"] in ("warning", "critical"):
            yield f"{finding['severity']}: {finding['message']}"


def _deepen(document: Any) -> Iterator[str]:
    yield from (f"{name}: defective" for name, found in document["defect_classes"].items() if found["defective"])
    if document["overall"]["grade"] != "A":
        yield f"grade {document['overall']['grade']}"
    for name, found in document["training_value"].items():
        yield from (f"{name}: {level}" for level in ("warn", "fail") if found["counts"].get(level))


_READ: dict[str, Callable[[Any], Iterator[str]]] = {"doctor": _doctor, "audit": _audit, "rdq": _rdq, "deepen": _deepen}


def _plain(line: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", line)
