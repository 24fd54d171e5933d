"""Ready embodiment files of public robots, shipped with the package: every number names its source, and what has none stays open."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "ready"


def ready_names() -> tuple[str, ...]:
    """The names of the ready files, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def ready_path(name: str) -> Path:
    """Where the ready file of a name is."""
    return _FOLDER / f"{name}.yaml"
