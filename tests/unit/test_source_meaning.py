"""What is kept of a source file beside what Python compiled of it: found again, and never taken for a file that changed."""

from __future__ import annotations

import json
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from components.artifacts import source_meaning
from components.artifacts.source_meaning import meaning_of


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A source file that was read once, and what was kept of it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "main.py"
    path.write_text("import alpha\n\n\ndef f(x):\n    return 2 * x\n")
    read(path)
    return path, Path(cache_from_source(str(path))).with_suffix(".meaning")


def read(path: Path) -> source_meaning.Meaning:
    meaning_of.cache_clear()
    return meaning_of(path, "")


def test_what_was_read_is_found_again_without_a_parse(source, monkeypatch):
    path, _ = source
    before = read(path)
    monkeypatch.setattr(source_meaning, "_parsed", lambda *_: pytest.fail("parsed again"))
    assert read(path) == before
    assert before.imports == ("alpha",)


def test_a_changed_file_is_read_again(source):
    path, _ = source
    before = read(path)
    path.write_text(path.read_text().replace("2", "3").replace("alpha", "beta"))
    assert read(path).digest != before.digest
    assert read(path).imports == ("beta",)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"stamp": 1}', "\0"])
def test_what_was_kept_and_is_damaged_counts_as_none(source, damage):
    path, kept = source
    before, whole = read(path), json.loads(kept.read_text())
    kept.write_text(damage)
    assert read(path) == before
    assert json.loads(kept.read_text()) == whole


def test_nothing_is_kept_where_python_may_keep_nothing(source, monkeypatch):
    path, kept = source
    kept.unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    read(path)
    assert not kept.exists()
