"""Which code a result came from: a digest of what the source files that it can reach *do*.

From a stage's modules every import of ours is followed, also those inside functions. Comments, docstrings and layout do not
count, so that tidying up does not retrain a model; the versions of the libraries that change numbers do. Modules that only
carry values or files (`PLUMBING`) are not followed: what of them matters is in the step's config and inputs.

A plug-in that a config names as "module:name" is followed like a module of ours, with the modules of its own top-level package.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
        *(f"components.artifacts.{name}" for name in ("code_version", "files", "locks", "step_manifest", "step_store")),
        *(f"components.adapters.mlflow{name}" for name in ("", ".registry", ".runs", ".server", ".spool")),
    )
)

_FREE_TEXT = frozenset(("instructions", "words", "description"))
_NAMED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # "package.module:name"


@cache
def code_version(modules: tuple[str, ...], packages: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> str:
    """16 hex digits over all source that `modules` reach, the installed versions of `packages`, and the data files below `files`."""
    lines = [f"{name} {_module(name)[0]}" for name in sorted(reached(modules))]
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
            waiting += _module(name)[1]
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


def _module(name: str) -> tuple[str, tuple[str, ...]]:
    path = _known(name)
    inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _read(path, name.split(".")[0], inside)


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
def _read(path: Path, package: str, inside: str) -> tuple[str, tuple[str, ...]]:
    """Of a source file: the digest of its syntax tree without docstrings, and which modules of ours and of `package` it imports.

    inside: the package that the file is in, from which `from . import x` counts.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named: list[str] = []
    for node in _at_run_time(tree):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, inside)
            named += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            del body[0]
    meaning = hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest()
    return meaning, tuple(n for n in named if n.split(".")[0] in (*ROOMS, package) and _path(n) is not None)


def _source(node: ast.ImportFrom, inside: str) -> str:
    """The module that names are imported from; each dot beyond the first is one package further up."""
    if node.level == 0:
        return node.module or ""
    above = inside.split(".")[: len(inside.split(".")) - (node.level - 1)]
    return ".".join((*above, *([node.module] if node.module else [])))


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without the bodies of ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _at_run_time(child)


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
