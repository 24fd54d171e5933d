"""Which code a result came from: a digest of what the source files that it can reach *do*.

From a stage's modules every import of ours is followed, also those inside functions. Comments, docstrings and layout do not
count, so that tidying up does not retrain a model; the versions of the libraries that change numbers do. Modules that only
carry values or files (`PLUMBING`) are not followed: what of them matters is in the step's config and inputs.

A plug-in that a config names as "module:name" is followed like a module of ours, with the modules of its own top-level package.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components.artifacts.source_meaning import Meaning, meaning_of
from components.config.paths import REPOSITORY
from model_core.spec.documents import identity_document
from model_core.spec.errors import SpecError

ROOMS = ("model_core", "components", "serving")
PLUMBING = frozenset(
    (
        *(f"model_core.spec.{name}" for name in ("documents", "errors", "files")),
        *(
            f"components.config.{name}"
            for name in (
                "annotators",
                "checks",
                "data_config",
                "inspection_config",
                "judging.gate_config",
                "judging.suite_stages",
                "judging.suites",
                "judging.verdict",
                "paths",
                "ports",
                "recipe",
                "records",
                "published.networks",
                "published.training",
                "simulators",
                "stages",
                "train_config",
            )
        ),
        *(f"components.artifacts.{name}" for name in ("code_version", "files", "locks", "source_meaning", "step_manifest", "step_store")),
        *(f"components.adapters.mlflow{name}" for name in ("", ".registry", ".runs", ".server", ".spool")),
    )
)

_FREE_TEXT = frozenset(("instructions", "words", "description"))
_NAMED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # "package.module:name"


@cache
def code_version(modules: tuple[str, ...], packages: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> str:
    """16 hex digits over all source that `modules` reach, the installed versions of `packages`, and the data files below `files`."""
    lines = [f"{name} {meaning(name).digest}" for name in sorted(reached(modules))]
    lines += [f"{path.relative_to(REPOSITORY).as_posix()} {_data_digest(path)}" for path in sorted(_data_files(files))]
    lines += [f"{name}=={_installed(name)}" for name in packages]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def reached(modules: Iterable[str]) -> frozenset[str]:
    """The modules and every module of ours that they import, directly or not. Raises `SpecError` for one that does not exist."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in PLUMBING:
            found.add(name)
            waiting += _ours(name)
    return frozenset(found)


def named_modules(config: object) -> tuple[str, ...]:
    """The modules of every "module:name" in `config`, sorted: plug-ins, whose code decides the result as much as their name.

    Nothing is imported. Raises `SpecError` for a module that cannot be found.
    """
    modules: set[str] = set()
    for text in _texts(identity_document(config)):
        if _NAMED.fullmatch(text):
            name = text.partition(":")[0]
            if _path(name) is None:
                raise SpecError(f"no module {name!r} for {text!r}; expected 'package.module:name' of a source file that Python finds here")
            modules.add(name)
    return tuple(sorted(modules))


def meaning(name: str) -> Meaning:
    """What a module does. Raises `SpecError` for one that does not exist."""
    path = _known(name)
    return meaning_of(path, name if path.name == "__init__.py" else name.rpartition(".")[0])


def _ours(name: str) -> Iterator[str]:
    """The modules that a module imports: of ours, and of its own top-level package."""
    rooms = (*ROOMS, name.split(".")[0])
    return (found for found in meaning(name).imports if found.split(".")[0] in rooms and _path(found) is not None)


def _texts(document: object) -> Iterator[str]:
    """Every text of a config that may name a plug-in: not what people write to a robot."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for name, value in document.items():
            if name not in _FREE_TEXT:
                yield from _texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _texts(value)


@cache
def _path(name: str) -> Path | None:
    """The source file of a module; None where there is none."""
    if name.split(".")[0] not in ROOMS:
        return _outside(name)
    place = REPOSITORY.joinpath(*name.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def _outside(name: str) -> Path | None:
    """As Python would find it, but `importlib.util.find_spec` imports the packages around a module, and this imports nothing."""
    parts, places = name.split("."), None
    for depth in range(1, len(parts) + 1):
        found = (finder.find_spec(".".join(parts[:depth]), places) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            return None
        if depth == len(parts):
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        places = spec.submodule_search_locations
        if places is None:
            return None
    return None


def _known(name: str) -> Path:
    path = _path(name)
    if path is None:
        raise SpecError(f"no module {name!r}; a stage's list of modules is out of date")
    return path


def _data_files(places: Iterable[str]) -> Iterator[Path]:
    for place in places:
        path = REPOSITORY / place
        yield from (p for p in path.rglob("*") if p.suffix in (".json", ".html")) if path.is_dir() else [path]


def _data_digest(path: Path) -> str:
    """Of a JSON file its content without the layout; of any other file its bytes."""
    content = path.read_bytes()
    return hashlib.sha256(json.dumps(json.loads(content), sort_keys=True).encode() if path.suffix == ".json" else content).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "absent"
