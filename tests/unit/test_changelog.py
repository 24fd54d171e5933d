"""Fragments of changelog.d/ are named right and are joined under the headings of the Unreleased part."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("changelog", ROOT / "infra" / "local" / "changelog.py")
assert spec is not None
assert spec.loader is not None
changelog = importlib.util.module_from_spec(spec)
spec.loader.exec_module(changelog)

TEXT = "# Changelog\n\n## [Unreleased]\n\n### Added\n- one\n\n### Changed\n- two\n\n## [0.1.0]\n\n### Added\n- old\n"


def test_fragments_go_under_their_headings_of_the_unreleased_part():
    made = changelog.joined(TEXT, [("added", "three\nlong\n"), ("fixed", "four"), ("changed", "five")])
    assert made == (
        "# Changelog\n\n## [Unreleased]\n\n### Added\n- one\n- three\n  long\n\n### Changed\n- two\n- five\n\n### Fixed\n- four\n\n"
        "## [0.1.0]\n\n### Added\n- old\n"
    )


def test_without_fragments_nothing_changes():
    assert changelog.joined(TEXT, []) == TEXT


def test_every_fragment_of_this_tree_has_a_known_name():
    changelog.fragments(ROOT / "changelog.d")


def test_a_fragment_of_an_unknown_kind_is_told(tmp_path):
    (tmp_path / "x.improved.md").write_text("better")
    with pytest.raises(SystemExit, match="expected NAME"):
        changelog.fragments(tmp_path)
