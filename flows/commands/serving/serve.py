"""`actwright serve`: one packed policy as a gateway process on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from components.deployment.gateway_service import Listening
    from components.release.bundle import PackedPolicy
    from flows.platform.wiring import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Which policy is served, where, and to whom."""

    model: Annotated[
        str,
        typer.Argument(
            help="champion, NAME@champion, NAME/VERSION, a recipe by name or file, or the folder of a bento, bundle or checkpoint",
            metavar="MODEL",
        ),
    ] = "champion"
    embodiment: Annotated[
        str, typer.Option(help="whose policy is served, where a checkpoint was trained for several embodiments", metavar="NAME")
    ] = ""
    host: Annotated[str, typer.Option(help="address to bind; beyond loopback --tokens is needed")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="port; 0: any free one", min=0, max=65_535)] = 3000
    cert: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM", exists=True, dir_okay=False)] = None
    key: Annotated[Path | None, typer.Option(help="TLS private key, PEM", exists=True, dir_okay=False)] = None
    tokens: Annotated[
        Path | None, typer.Option(help="who may ask what: JSON {sha256 of a token: {subject, role: observe|operate|admin}}", exists=True)
    ] = None
    limits: Annotated[Path | None, typer.Option(help="bounds of the gateway, JSON", exists=True, dir_okay=False)] = None
    fleet: Annotated[
        Path | None,
        typer.Option(help="what ties the service to a fleet: kill list, lease, offline rule; JSON", exists=True, dir_okay=False),
    ] = None
    shadow: Annotated[
        str, typer.Option(help="a candidate, named as MODEL is: it answers the same observations beside it, and no robot", metavar="MODEL")
    ] = ""


@from_options(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve one packed policy to workcells until Ctrl-C; on loopback unless --host says otherwise.

    A checkpoint is packed first (golden probes recorded, contract written), once. Ready means that the packed model answered its
    golden probes as it did when it was packed.

    Example: actwright serve
    Example: actwright serve own.json
    Example: actwright serve actwright-metaworld/3 --port 3001
    Example: actwright serve .actwright/store/train/9866/checkpoint
    Example: actwright serve .actwright/store/train/4c20/checkpoint --embodiment so101
    Example: actwright serve champion --shadow actwright-metaworld/4
    Example: actwright serve champion --host 0.0.0.0 --tokens tokens.json --cert cell.pem --key cell.key
    """
    from components.deployment.gateway_service import running_gateway
    from flows.commands.operations.up import asked_to_stop
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import SpecError

    platform = open_platform()
    try:
        listening = _listening(platform, options)
        packed = packed_model(platform, options.model, options.embodiment)
        if options.shadow:
            listening = replace(listening, shadow=packed_model(platform, options.shadow, options.embodiment).bundle)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    assert packed.bundle is not None  # packed_model packs what is not
    stop = asked_to_stop()
    log = platform.settings.home.resolve() / "serve" / f"gateway-{options.port or 'any'}.log"  # two services of one home keep a log each
    print_line(f"loading {packed.model_version} from {packed.bundle} ...")
    with running_gateway(packed.bundle, listening, log=log) as address:
        print_line(f"ready     {address.http}   workcells: {address.session}   log: {log}   (Ctrl-C stops it)")
        for line in _next_commands(packed, listening, address.http):
            print_line(line)
        if listening.shadow is not None:
            print_line(f"shadow    {options.shadow} answers beside it; compare with  actwright fleet shadow {address.http}")
        print_result(policy=address.http, session=address.session, model_version=packed.model_version, bundle=str(packed.bundle))
        stop.wait()
        print_line("stopping: running requests are answered, sessions are closed ...")
    print_line("stopped")


def _listening(platform: Platform, options: ServeOptions) -> Listening:
    from components.deployment.gateway_service import Listening

    has_tokens = bool(platform.settings.tokens.get_secret_value() or platform.settings.tokens_file)
    return Listening(
        host=options.host,
        port=options.port,
        certificate=options.cert,
        key=options.key,
        tokens=options.tokens,
        limits=options.limits,
        fleet=options.fleet,
        inherits_tokens=has_tokens,
    )


def _next_commands(packed: PackedPolicy, listening: Listening, url: str) -> list[str]:
    """What to type next, with the options that this service needs."""
    token = " --token-file FILE" if listening.needs_token else ""
    trusted = "" if listening.certificate is None else f" --ca-file {listening.certificate}"
    return [
        f"then try  actwright probe {url}{token}{trusted}",
        f"     or   actwright workcell run {_robot(packed)} --url {url}{token}{trusted}",
    ]


def _robot(packed: PackedPolicy) -> str:
    """The options of a robot that fits: of the simulator where it has one, else a simulated driver, asked for what a golden probe asks."""
    from components.simulation import libero, metaworld
    from model_core.spec.contract import PolicyContract
    from model_core.spec.protocol.wire import Observe, decode_message

    assert packed.bundle is not None  # it is served
    contract = packed.bundle / "contract.json"
    body = PolicyContract.from_json(json.loads(contract.read_text(encoding="utf-8"))).embodiment
    simulated = {metaworld.EMBODIMENT: "metaworld", libero.EMBODIMENT: "libero"}.get(body.name)
    if simulated:
        return f"--robot {simulated} --task {_a_task(packed.manifest)}"
    probes = (decode_message(probe.read_bytes()) for probe in sorted((packed.bundle / "probes").glob("*.observe")))
    asked = next((probe.observation.instruction for probe in probes if isinstance(probe, Observe)), "TASK")
    return f"--robot strict --option contract={shlex.quote(str(contract))} --task {shlex.quote(asked)}"


def _a_task(manifest: Any) -> str:
    """A task that this model was trained on, for a line to type; the word TASK where only the user knows one."""
    from flows.pipeline.recipes import RECIPES, get_recipe

    name = str(manifest.get("model_version", "")).partition("/")[0]
    for recipe in RECIPES:
        made = get_recipe(recipe)
        if made.package.model_name == name and not made.data:
            return made.collect.tasks[0]
    return "TASK"
