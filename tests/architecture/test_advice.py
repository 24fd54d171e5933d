"""Every command that a message, a help text, a docstring or a document advises exists, with its options.

A command is what stands in backquotes and begins with ``actwright``, what follows "Example:", "then try" or another introduction to the end
of its line, a text of the code that begins with a command, and every line of a document's code block that begins with ``actwright``.
"""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.sources import nodes_of
from tests.architecture.surfaces import commands
from tests.architecture.test_rooms import FILES, ROOT

pytestmark = pytest.mark.xdist_group("sources")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "changelog.d").glob("*.md")),
    *sorted((ROOT / "findings").glob("*.md")),
]
QUOTED = re.compile(r"`(actwright(?: [^`]*)?)`")
INTRODUCED = re.compile(r"(?:^ *(?:then try|or) +|: +)(actwright [a-z].*?)(?:   .*)?$", flags=re.MULTILINE)
ALONE = re.compile(r"\Aactwright [a-z][^\n]*\Z")
CODE_LINE = re.compile(r"^\s*(?:\$ +)?(?:\.venv/bin/)?(actwright [a-z].*?)(?:\s+#.*)?$", flags=re.MULTILINE)
FENCED = re.compile(r"```.*?\n(.*?)```", flags=re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t)[^\n]*$", flags=re.MULTILINE)
GONE = ("actwright package",)  # commands that the changelog names because they do not exist
FORWARDED = ("actwright fault-server", "actwright fault-proxy")  # their options belong to another program


def advised(text: str) -> list[str]:
    """The commands that a text names."""
    return [*QUOTED.findall(text), *INTRODUCED.findall(text), *ALONE.findall(text)]


def documented(text: str) -> list[str]:
    """The commands that a document names, in its sentences and in its code blocks."""
    prose = FENCED.sub("", text)
    blocks = [*FENCED.findall(text), *INDENTED.findall(prose)]
    return [*QUOTED.findall(prose), *(told for block in blocks for told in CODE_LINE.findall(block))]


def problem_of(line: str) -> str:
    """Why this is no command of ours; "" for one that is. A list in the command (`a | b`) names each of them; CAPITALS stand for a name."""
    known = commands_by_words()
    line = re.sub(r"\\?\|", " | ", line)
    first, *others = re.split(r"\s+\|\s+|\s+&&\s+", line)
    words = _words(first)
    path, rest = "actwright", words[1:]
    while rest and f"{path} {rest[0]}" in known:
        path, rest = f"{path} {rest[0]}", rest[1:]
    command = known[path]
    is_group = bool(getattr(command, "commands", None))
    if is_group and rest and not rest[0].startswith(("-", "...")) and not rest[0].isupper():
        return f"{path} has no command {rest[0]!r}"
    if path in FORWARDED:
        return ""
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-")}
    wrong = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}]
    if wrong:
        return f"{path} has no option {wrong[0]}"
    parent = path.rpartition(" ")[0]
    for other in others:
        name = other.split()[0]
        if name.startswith("actwright"):
            told = problem_of(other)
            if told:
                return told
        elif is_group or name in ("kubectl",):
            continue
        elif re.fullmatch(r"[a-z-]+", name) and f"{parent} {name}" not in known:
            return f"{parent} has no command {name!r}"
    return ""


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


@cache
def commands_by_words():
    return commands()


def strings_of(path: Path) -> list[tuple[int, str]]:
    """Every text of a source file with its line; of an f-string, what is put in stands as X."""
    nodes = nodes_of(path)
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            found.append((node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append((node.lineno, node.value))
    return found


def test_every_command_that_the_code_advises_exists():
    asked = [(f"{path.relative_to(ROOT)}:{line}", told) for path in FILES for line, text in strings_of(path) for told in advised(text)]
    assert len(asked) > 60, "the advice is not found any more"
    wrong = [f"{where}: `{told}`: {problem}" for where, told in asked if (problem := problem_of(told))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_a_document_names_exists(path):
    named = documented(path.read_text(encoding="utf-8"))
    if path.parent.name == "changelog.d":
        named = [told for told in named if told not in GONE]
    wrong = [f"`{told}`: {problem}" for told in named if (problem := problem_of(told))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("then try  actwright up   (Prefect, MLflow)", ["actwright up"]),
        ("served\n     or   actwright workcell run --url X", ["actwright workcell run --url X"]),
        ("Example: actwright serve champion", ["actwright serve champion"]),
        ("trained; continue with: actwright run X", ["actwright run X"]),
        ("actwright up X", ["actwright up X"]),
        ("is this an actwright service?", []),
    ],
)
def test_advice_is_found_in_a_text(text, commands):
    assert advised(text) == commands


def test_commands_are_found_in_a_document():
    text = (
        "Run `actwright up`:\n\n```\n$ actwright serve champion   # on loopback\n```\n\n    actwright run loop\n\nactwright is a program.\n"
    )
    assert documented(text) == ["actwright up", "actwright serve champion", "actwright run loop"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("actwright run loop --set train.seed=1", ""),
        ("actwright package", "actwright has no command 'package'"),
        ("actwright run --sets x=1", "actwright run has no option --sets"),
        ("actwright audit prove FILE", "actwright audit has no command 'prove'"),
        ("actwright audit list | verify | replay", ""),
        ("actwright audit list | prove", "actwright audit has no command 'prove'"),
        ("actwright data STAGE", ""),
        (r"actwright model inspect\|parity\|convert ...", ""),
    ],
)
def test_a_wrong_command_is_found(line, problem):
    assert problem_of(line) == problem
