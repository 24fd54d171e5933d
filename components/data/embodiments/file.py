"""Read an embodiment file: its values, what of them is still to be confirmed, and what each is founded on.

Every value is written in one of three forms:

    control_hz: 30                                          # as a person knows it
    control_hz: {value: 30, evidence: "where it is from"}   # measured, or taken from a named source
    control_hz: {confirm: "a question", likely: 30}         # open: a person writes `value: 30` in place of `confirm: ...`

A mapping of fields may hold `evidence` too: a text for all of them, or a text for some of them by name.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.data.embodiments.document import FORMAT, EmbodimentDocument
from components.data.embodiments.ready import ready_names, ready_path
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.documents import from_document
from model_core.spec.errors import SpecError

HOW_TO_ANSWER = "write `value: ANSWER` in place of the line `confirm: ...`"
HOW_TO_SIGN = "confirmed: {by: YOUR NAME, on: YEAR-MONTH-DAY}"
_LARGEST_FILE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenItem:
    """One value that a person has still to confirm. place: for people; line: of the file, from 1. likely, evidence: "" for none."""

    place: str
    line: int
    question: str
    likely: str = ""
    evidence: str = ""

    def __str__(self) -> str:
        likely = f" Likely: {self.likely}." if self.likely else ""
        evidence = f" Evidence: {self.evidence}." if self.evidence else ""
        stop = "" if self.question.endswith(("?", ".")) else "."
        return f"line {self.line}, {self.place}: {self.question}{stop}{likely}{evidence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentFile:
    """A file that was read. evidence: place -> text; a place is written as "action.dims[0].low"."""

    path: Path
    document: EmbodimentDocument
    open_items: tuple[OpenItem, ...]
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def signature(self) -> tuple[OpenItem, ...]:
        """The open items of who confirmed the file, and when."""
        return tuple(item for item in self.open_items if item.place.startswith("confirmed"))

    @property
    def questions(self) -> tuple[OpenItem, ...]:
        """The open items without those of the signature."""
        return tuple(item for item in self.open_items if not item.place.startswith("confirmed"))


def read_embodiment(path: Path) -> EmbodimentSpec:
    """The embodiment of a file that a person has confirmed. Raises `SpecError` that lists what is still open, and how to answer it."""
    file = read_file(path)
    require_confirmed(file)
    return _located(path, file.document)


def require_confirmed(file: EmbodimentFile) -> None:
    """Raise `SpecError` where a value of `file` is open, or no person has signed it."""
    signed, name = file.document.confirmed, file.path.name
    if file.questions:
        listed = "".join(f"\n  {item}" for item in file.questions)
        raise SpecError(
            f"{name}: {len(file.questions)} items are still to be confirmed by a person; nothing is trained on them until then:{listed}\n"
            f"Fix: for each of these lines {HOW_TO_ANSWER}; then sign at the end, {HOW_TO_SIGN}, and test it with "
            f"`actwright embodiment check {file.path} FOLDER`"
        )
    if not signed.by or not signed.on:
        raise SpecError(f"{name}: no person has confirmed it. Fix: compare it with the robot, then sign at the end, {HOW_TO_SIGN}")
    try:
        datetime.date.fromisoformat(signed.on)
    except ValueError as error:
        raise SpecError(f"{name}: confirmed.on is {signed.on!r}, expected a day such as 2026-11-29. Fix: correct it") from error


def read_file(path: Path) -> EmbodimentFile:
    """A file as it is, open items and all. Raises `SpecError` naming the line and field of what is no embodiment file."""
    reading = _Reading()
    document = reading.plain(_load(path), "")
    if not isinstance(document, dict):
        raise SpecError(f"{path.name} holds no fields, expected an embodiment file. Fix: make one, `actwright embodiment draft FOLDER`")
    if document.get("format") != FORMAT:
        raise SpecError(
            f"{path.name}: format is {document.get('format')!r}, expected {FORMAT}. Fix: use the version of Actwright that wrote it"
        )
    read = from_document(EmbodimentDocument, document, where=path.name)
    return EmbodimentFile(path=path, document=read, open_items=tuple(reading.open_items), evidence=reading.evidence)


def find_file(name: str) -> Path:
    """The file at a path, or the ready one of a name. Raises `SpecError` where there is neither."""
    if name in ready_names():
        return ready_path(name)
    path = Path(name)
    if not path.is_file():
        raise SpecError(f"there is no embodiment file {name}. Fix: give the path of one, or a ready one: {', '.join(ready_names())}")
    return path


def _located(path: Path, document: EmbodimentDocument) -> EmbodimentSpec:
    try:
        return document.spec()
    except SpecError as error:
        raise SpecError(f"{path.name}: {error}") from error


def _load(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SpecError(f"{path.name} has {path.stat().st_size} bytes, expected an embodiment file of at most {_LARGEST_FILE}")
        # round trip keeps line numbers, refuses a key that is there twice, and makes no objects; `on` is a text, as in YAML 1.2
        return YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read the embodiment file {path}: {error.strerror}. Fix: give the path of a file") from error
    except (YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:300]
        raise SpecError(f"{path.name} is not YAML: {said}. Fix: correct it there") from error


class _Reading:
    """One pass over a loaded file: plain values, None for what is open."""

    def __init__(self) -> None:
        self.open_items: list[OpenItem] = []
        self.evidence: dict[str, str] = {}

    def plain(self, node: Any, place: str, *, title: str = "", line: int = 0) -> Any:
        """`node` without its evidence and questions. title: of the place, for people."""
        if isinstance(node, Mapping):
            return self._mapping(node, place, title or place, line)
        if isinstance(node, Sequence) and not isinstance(node, str):
            titles = [f"{title or place} {self._name(item, number)}" for number, item in enumerate(node)]
            return [
                self.plain(item, f"{place}[{number}]", title=titles[number], line=_line(node, number)) for number, item in enumerate(node)
            ]
        return _scalar(node)

    def _mapping(self, node: Mapping[Any, Any], place: str, title: str, line: int) -> Any:
        if "confirm" in node:
            return self._open(node, place, title, line)
        if "value" in node:
            _only(node, ("value", "evidence", "likely"), title, line)  # `likely` stays where a question was answered
            if "evidence" in node:
                self.evidence[place] = str(node["evidence"])
            return self.plain(node["value"], place, title=title, line=line)
        found: dict[str, Any] = {}
        for key, value in node.items():
            inner = f"{place}.{key}" if place else str(key)
            if key == "evidence":
                self._founded(value, place)
                continue
            found[str(key)] = self.plain(value, inner, title=f"{title}, {key}" if title else str(key), line=_line(node, key))
        return found

    def _open(self, node: Mapping[Any, Any], place: str, title: str, line: int) -> None:
        if "value" in node:
            raise SpecError(f"line {line}, {title}: has both `value` and `confirm`. Fix: remove `confirm` where the value is right")
        _only(node, ("confirm", "likely", "evidence"), title, line)
        line = _line(node, "confirm") or line
        told = {key: _text(node[key]) if key in node else "" for key in ("confirm", "likely", "evidence")}
        if any((item.line, item.question) == (line, told["confirm"]) for item in self.open_items):
            return  # one answer is used in two places
        self.open_items.append(
            OpenItem(place=title, line=line, question=told["confirm"], likely=told["likely"], evidence=told["evidence"].rstrip("."))
        )

    def _founded(self, value: Any, place: str) -> None:
        if isinstance(value, Mapping):
            self.evidence |= {f"{place}.{key}" if place else str(key): _text(text) for key, text in value.items()}
        else:
            self.evidence[place] = _text(value)

    @staticmethod
    def _name(item: Any, number: int) -> str:
        name = item.get("name") if isinstance(item, Mapping) else None
        return repr(str(name)) if isinstance(name, str) else str(number)


def _only(node: Mapping[Any, Any], keys: Sequence[str], title: str, line: int) -> None:
    if odd := [str(key) for key in node if key not in keys]:
        raise SpecError(
            f"line {line}, {title}: has the field {odd[0]!r} beside {keys[0]!r}, expected only {', '.join(keys)}. Fix: remove it"
        )


def _line(node: Any, key: Any) -> int:
    """The line on which the value of `key` stands, from 1; 0 where that is not known."""
    try:
        return int(node.lc.data[key][0]) + 1
    except (AttributeError, KeyError, IndexError, TypeError):
        return 0


def _scalar(value: Any) -> Any:
    """A scalar of the YAML library as a plain one; a day as text."""
    if isinstance(value, datetime.date):
        return value.isoformat()[:10]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _text(value: Any) -> str:
    return " ".join(str(_scalar(value) if not isinstance(value, list | tuple) else [_scalar(v) for v in value]).split())
