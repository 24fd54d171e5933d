"""What users rely on, read from the code: command line options, wire messages, the contract, public names of the spec, metrics.

Run: make freeze-surfaces    (rewrites tests/architecture/frozen/; only for a deliberate change, which the changelog names)
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

FROZEN = Path(__file__).with_name("frozen")


def command_line_options() -> dict[str, Any]:
    """Every command with its arguments and options: names, whether required, default."""
    return {name: [_parameter(p) for p in command.params if p.name != "help"] for name, command in commands().items()}


def commands() -> dict[str, Any]:
    """Every command of the real command line by the words that call it, groups included."""
    import typer

    from flows.commands.main import command_line

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            yield from walk(f"{words} {name}", inner)

    return dict(walk("actwright", typer.main.get_command(command_line())))


def _parameter(parameter: Any) -> str:
    named = [*parameter.opts, *parameter.secondary_opts]
    names = "/".join(named) if named[0].startswith("-") else f"<{parameter.name}>"
    annotation = parameter.type_descriptor.annotation
    default = parameter.default
    plain = default if default is None or isinstance(default, str | int | float | bool) else str(default)
    kind = getattr(annotation, "__name__", str(annotation)) if not parameter.multiple else str(annotation)
    return f"{names} {kind}{' required' if parameter.required else f' = {json.dumps(plain)}'}"


def wire_messages() -> dict[str, Any]:
    """The fields of every message, with their types."""
    return dict(_dataclasses(importlib.import_module("model_core.spec.protocol.messages")))


def contract_fields() -> dict[str, Any]:
    """The fields of the contract and of the embodiment that it names."""
    names = ("model_core.spec.contract", "model_core.spec.embodiment")
    return {name: fields for module in names for name, fields in _dataclasses(importlib.import_module(module))}


def _dataclasses(module: ModuleType) -> Iterator[tuple[str, list[str]]]:
    for name, found in sorted(vars(module).items()):
        if dataclasses.is_dataclass(found) and found.__module__ == module.__name__ and not name.startswith("_"):
            yield name, [f"{field.name}: {field.type}" for field in dataclasses.fields(found)]


def public_names() -> dict[str, Any]:
    """What each module of the spec defines for others."""
    import model_core.spec as spec

    modules = sorted(m.name for m in pkgutil.walk_packages(spec.__path__, f"{spec.__name__}.") if not m.ispkg)
    return {name: _defined(name) for name in modules}


def _defined(module: str) -> list[str]:
    source = importlib.util.find_spec(module)
    assert source is not None
    assert source.origin is not None
    found: set[str] = set()
    for node in ast.parse(Path(source.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return sorted(name for name in found if not name.startswith("_") and name != "logger")


def gateway_metrics() -> dict[str, Any]:
    """Every metric of the gateway: kind and labels."""
    from prometheus_client.metrics import MetricWrapperBase

    from serving.gateway.operations.metrics import Metrics

    found = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    return {metric._name: [metric._type, *metric._labelnames] for metric in found}


SURFACES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "cli": command_line_options,
    "wire": wire_messages,
    "contract": contract_fields,
    "public_names": public_names,
    "metrics": gateway_metrics,
}


def frozen(name: str) -> dict[str, Any]:
    """The surface as it was frozen."""
    return json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    """Write every surface as it is now."""
    FROZEN.mkdir(exist_ok=True)
    for name, read in SURFACES.items():
        (FROZEN / f"{name}.json").write_text(json.dumps(read(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        sys.stdout.write(f"froze {name}\n")


if __name__ == "__main__":
    main()
