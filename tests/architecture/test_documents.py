"""The documents name files that exist: a moved module is moved in the text too."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("flows", "components", "model_core", "serving", "infra", "tests", "benchmarks", "findings", "docs")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "infra").rglob("*.md"), *(ROOT / "findings").glob("*.md")])
# `CHANGELOG.md` tells of files as they were
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"^(?:{'|'.join(ROOMS)})/[\w./*{{}},-]*$")
_BRACES = re.compile(r"\{([^}]*)\}")


def spelled_out(text: str) -> list[str]:
    """`a/{b,c}.py` -> a/b.py, a/c.py."""
    parts = _BRACES.split(text)
    return ["".join(choice) for choice in product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts)))]


def named_paths(document: Path) -> list[str]:
    spans = (span.split("::")[0].strip() for span in _SPAN.findall(document.read_text(encoding="utf-8")))
    return [path for span in spans if _PATH.match(span) for path in spelled_out(span)]


@pytest.mark.parametrize("document", CURRENT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_path_that_a_document_names_exists(document):
    missing = [path for path in named_paths(document) if not list(ROOT.glob(path.rstrip("/")))]
    # what a run writes, or a person brings
    missing = [path for path in missing if not path.startswith(("docs/pictures/", "infra/local/"))]
    assert not missing, f"{document.name} names files that do not exist: {', '.join(missing)}"


def named_tests(document: Path) -> list[tuple[str, str]]:
    """(file, function) of every `tests/...py::name` that a document names."""
    spans = (span.strip().partition("::") for span in _SPAN.findall(document.read_text(encoding="utf-8")))
    return [(path, name) for path, mark, name in spans if mark and path.startswith("tests/")]


@pytest.mark.parametrize("document", [path for path in CURRENT if named_tests(path)], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_a_document_names_exists(document):
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path, _ in named_tests(document) if (ROOT / path).is_file()}
    missing = [f"{path}::{name}" for path, name in named_tests(document) if not re.search(rf"def {name}\(", texts.get(path, ""))]
    assert not missing, f"{document.name} names tests that do not exist: {', '.join(missing)}"


def test_paths_are_found_in_documents():
    assert spelled_out("a/{b,c}.py") == ["a/b.py", "a/c.py"]
    assert len(named_paths(ROOT / "ARCHITECTURE.md")) > 20
