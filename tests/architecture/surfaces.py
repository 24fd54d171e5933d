"""What users rely on, read from the code: command line options, wire messages, the contract, public names of the spec, metrics.

Run: make freeze-surfaces    (rewrites tests/architecture/frozen/; only for a deliberate change, which the changelog names)
"""

from __future__ import annotations

import argparse
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
PROGRAMS = (
    "serving.fault_injection",
    "serving.fleet.agent",
    "serving.fleet.controller",
    "serving.gateway",
    "serving.gateway.http.drain",
    "serving.gateway.shadow.candidate",
    "serving.workcell",
    "serving.workcell.motion.commissioning",
    "serving.workcell.robot.driver_process",
    "serving.workcell.watchdog.watchdog",
)


class _ParserMade(BaseException):
    """Stops a program where it would parse its arguments; not an Exception, so that no program catches it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def command_line_options() -> dict[str, Any]:
    """Every command and program with its arguments and options: names, whether required, default."""
    found = {name: [_parameter(p) for p in command.params if p.name != "help"] for name, command in commands().items()}
    return found | {words: [_argument(one) for one in arguments] for words, arguments in programs().items()}


def commands() -> dict[str, Any]:
    """Every command of the real command line by the words that call it, groups included."""
    import typer

    from flows.commands.main import command_line

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            yield from walk(f"{words} {name}", inner)

    return dict(walk("actwright", typer.main.get_command(command_line())))


def programs() -> dict[str, list[argparse.Action]]:
    """Every program of the robot side (`python -m ...`) with its arguments, those of its commands included."""
    from model_core.spec.execution.cell_options import CellOptions

    found = {}
    for name in PROGRAMS:
        parser = parser_of(name)
        if name == "serving.workcell":  # its parser says None for "not given"; the defaults are those of the dataclass
            parser.set_defaults(**{f.name: f.default for f in dataclasses.fields(CellOptions) if f.default is not dataclasses.MISSING})
        found |= dict(_arguments(f"python -m {name}", parser))
    return found


def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that the program makes when it is called; nothing after that is run."""

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> Any:
        raise _ParserMade(self)

    is_package = hasattr(importlib.import_module(program), "__path__")
    module = importlib.import_module(f"{program}.__main__" if is_package else program)
    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = stop
    try:
        module.main([])
    except _ParserMade as made:
        return made.parser
    finally:
        argparse.ArgumentParser.parse_args = original
    raise AssertionError(f"{program} parses no arguments: take it out of PROGRAMS")


def _arguments(words: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    yield words, [one for one in parser._actions if one not in groups and not isinstance(one, argparse._HelpAction)]
    for group in groups:
        for name, inner in group.choices.items():
            yield from _arguments(f"{words} {name}", inner)


def _argument(action: argparse.Action) -> str:
    names = "/".join(action.option_strings) or f"<{action.dest}>"
    kind = "bool" if action.nargs == 0 else getattr(action.type or str, "__name__", str(action.type)).lstrip("_")
    kind += f" of {'|'.join(map(str, action.choices))}" if action.choices else ""
    kind += " repeated" if isinstance(action, argparse._AppendAction) else ""
    return f"{names} {kind}{' required' if action.required else f' = {json.dumps(action.default, default=str)}'}"


def _parameter(parameter: Any) -> str:
    named = [*parameter.opts, *parameter.secondary_opts]
    names = "/".join(named) if named[0].startswith("-") else f"<{parameter.name}>"
    annotation = parameter.type_descriptor.annotation
    default = parameter.default
    plain = default if default is None or isinstance(default, str | int | float | bool) else str(default)
    kind = getattr(annotation, "__name__", str(annotation)) if not parameter.multiple else str(annotation)
    return f"{names} {kind}{' required' if parameter.required else f' = {json.dumps(plain)}'}"


def wire_messages() -> dict[str, Any]:
    """The fields of every message with their types, the codes of a refusal and the kinds of CONTROL."""
    from model_core.spec.protocol.messages import CONTROL_KINDS
    from model_core.spec.types import RefusalCode

    messages = dict(_dataclasses(importlib.import_module("model_core.spec.protocol.messages")))
    return {**messages, "Reject.code": [code.value for code in RefusalCode], "Control.kind": [*CONTROL_KINDS]}


def contract_fields() -> dict[str, Any]:
    """The fields of the contract and of the embodiment that it names."""
    names = ("model_core.spec.contract", "model_core.spec.embodiment")
    return {name: fields for module in names for name, fields in _dataclasses(importlib.import_module(module))}


def _dataclasses(module: ModuleType) -> Iterator[tuple[str, list[str]]]:
    for name, found in sorted(vars(module).items()):
        if dataclasses.is_dataclass(found) and found.__module__ == module.__name__ and not name.startswith("_"):
            yield name, [f"{field.name}: {field.type}" for field in dataclasses.fields(found)]


def fleet_documents() -> dict[str, Any]:
    """The fields of every document of the fleet with their types, as they are written, and how each is called on its way."""
    from model_core.spec.fleet import documents, kill_list

    named = {**vars(documents), **vars(kill_list)}
    structs = {name: found for name, found in named.items() if isinstance(found, type) and issubclass(found, documents.Document)}
    fields = {name: [f"{field}: {kind}" for field, kind in found.__annotations__.items()] for name, found in sorted(structs.items())}
    return {**fields, "kinds": sorted(documents.KINDS.values())}


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
    """Every metric of the gateway and of the fleet's controller: kind and labels."""
    from prometheus_client.metrics import MetricWrapperBase

    from serving.fleet.controller.metrics import FleetMetrics
    from serving.gateway.operations.metrics import Metrics

    values = [*vars(Metrics()).values(), *vars(FleetMetrics()).values()]
    found = [value for value in values if isinstance(value, MetricWrapperBase)]
    return {metric._name: [metric._type, *metric._labelnames] for metric in found}


SURFACES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "cli": command_line_options,
    "wire": wire_messages,
    "contract": contract_fields,
    "fleet": fleet_documents,
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
