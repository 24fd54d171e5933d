"""The ready files: read, shipped, and no number without a source."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from components.data.embodiments.file import EmbodimentFile, find_file, read_embodiment, read_file
from components.data.embodiments.ready import ready_names, ready_path
from components.simulation.metaworld import embodiment
from model_core.spec.documents import to_document
from model_core.spec.errors import SpecError

ROOT = Path(__file__).parents[2]
# "robosuite 1.4.0, robosuite/...json: ..." or "owner/name@0123abc, path/file.py: ..."
SOURCE = re.compile(r"([\w.-]+ \d+\.\d+(\.\d+)*|[\w.-]+/[\w.-]+@[0-9a-f]{7,40}), [\w./-]+\.(py|xml|json|md|sh)\b")


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a document with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numbers(item, f"{place}[{index}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def source_of(file: EmbodimentFile, place: str) -> str:
    """The evidence of a place, or of what it is part of."""
    while place:
        if place in file.evidence:
            return file.evidence[place]
        place = re.sub(r"(\.[^.\[\]]+|\[\d+\]|^[^.\[\]]+)$", "", place)
    return ""


@pytest.mark.parametrize("name", ready_names())
def test_every_number_of_a_ready_file_names_its_package_and_file(name: str) -> None:
    file = read_file(ready_path(name))
    stated = [
        (place, value) for place, value in numbers(to_document(file.document)) if place not in ("format",) and "max_age_ms" not in place
    ]
    assert stated
    without = [(place, value) for place, value in stated if not SOURCE.search(source_of(file, place))]
    assert without == []


@pytest.mark.parametrize("name", ready_names())
def test_a_ready_file_is_not_trained_on_before_a_person_signed_it(name: str) -> None:
    with pytest.raises(SpecError, match="confirmed"):
        read_embodiment(ready_path(name))


@pytest.mark.parametrize("name", ["aloha", "droid", "metaworld"])
def test_a_ready_file_without_open_items_is_a_whole_embodiment(name: str) -> None:
    file = read_file(ready_path(name))
    assert file.questions == ()
    assert file.document.spec().name


def test_there_is_one_of_each_public_robot() -> None:
    assert set(ready_names()) == {"so101", "aloha", "libero", "droid", "widowx_bridge", "google_robot", "metaworld"}


def test_metaworld_is_what_the_simulation_gives() -> None:
    assert read_file(ready_path("metaworld")).document.spec() == embodiment()


def test_ready_files_are_found_by_name_and_another_name_is_told_what_there_is() -> None:
    assert find_file("droid") == ready_path("droid")
    with pytest.raises(SpecError, match=r"no embodiment file franka\. .*aloha, droid"):
        find_file("franka")


def test_ready_files_are_part_of_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    package = ROOT / "components/data/embodiments"
    assert (package / "__init__.py").exists()
    for name in ready_names():
        place = ready_path(name).relative_to(package).as_posix()
        assert any(fnmatch(place, pattern) and place.count("/") == pattern.count("/") for pattern in patterns), place
