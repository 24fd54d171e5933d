"""`actwright probe`: one handshake and one decision of a policy service, timed and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import from_options
from flows.commands.serving.service_options import CaFile, ServiceAddress, TokenFile, credentials_of
from flows.terminal.output import HELD, print_line, print_result

if TYPE_CHECKING:
    from components.deployment.probe import Probed


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """Which service is asked for what, and where the image of the answer goes."""

    url: ServiceAddress
    out: Annotated[Path, typer.Option(help="where the image of the decision goes", metavar="PNG")] = Path("probe.png")
    instruction: Annotated[str, typer.Option(help="instruction of the request (default: the first that the contract knows)")] = ""
    level: Annotated[str, typer.Option(help="reasoning level: full, reuse-depth, trace+action, action (default: the policy's own)")] = ""
    steer: Annotated[
        str, typer.Option(help="a line for the gripper to follow: pixels of the image, such as '12,60 40,48 61,20'", metavar="X,Y ...")
    ] = ""
    token_file: TokenFile = None
    ca_file: CaFile = None
    timeout_s: Annotated[float, typer.Option(help="time limit for each answer, in seconds", min=0.1)] = 10.0


@from_options(ProbeOptions)
def probe(options: ProbeOptions) -> None:
    """Shake hands with a policy service, show its contract, and ask for one decision on a synthetic image, with timings of every stage.

    The image shows what was asked and answered. The handshake names the embodiment of the service's contract. Exits 3 when
    the service refuses to answer; the reason says what it takes.

    Example: actwright probe http://127.0.0.1:3000
    Example: actwright probe http://127.0.0.1:3000 --steer "12,60 40,48 61,20"
    Example: actwright probe https://cell-server:3000 --token-file token --ca-file ca.pem --level action --out action.png
    """
    from components.deployment.probe import probe as ask
    from components.deployment.service_address import ServiceUrl
    from model_core.spec.errors import SpecError

    try:
        ServiceUrl.of(options.url, before="actwright probe ")
        credentials = credentials_of(options.token_file, options.ca_file, options.timeout_s)
        probed = ask(options.url, credentials, instruction=options.instruction, level=options.level, line=options.steer)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    answer = probed.report()
    for line in _lines(probed, answer):
        print_line(line)
    image = _drawn(probed, options.out)
    print_line(f"image     {image}")
    print_result(**answer, picture=str(image))
    if answer["answer"] == "refusal":
        raise typer.Exit(HELD)


def _lines(probed: Probed, answer: Mapping[str, Any]) -> list[str]:
    """What a person reads: the service, its contract, the timings and the answer."""
    from components.deployment.probe_view import contract_lines

    stages = "  ".join(f"{name} {ms:.1f}" for name, ms in answer.get("timing_ms", {}).items())
    is_refusal = answer["answer"] == "refusal"
    detail = (
        f" ({answer.get('code')}: {answer.get('reason')})" if is_refusal else f" {answer['actions'][0]} x {answer['actions'][1]} actions"
    )
    took = {"connect": answer["connect_ms"], "handshake": answer["handshake_ms"], "answer": answer["round_trip_ms"]}
    bundle = answer["bundle_digest"][:16] or "-"
    return [
        f"service   {answer['url']}: {answer['model_version']}, bundle {bundle}, lease {answer['lease_s']:g} s",
        *contract_lines(probed.contract, probed.ready.levels),
        "took      " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in took.items()),
        f"stages    {stages or '-'}   (ms)",
        f"answer    {answer['answer']}{detail}",
    ]


def _drawn(probed: Probed, out: Path) -> Path:
    from components.deployment.probe_view import view_of_probe
    from components.drawing.decision import draw_decision
    from components.drawing.images import save_png
    from flows.pipeline.model_lookup import policies_here
    from flows.platform.settings import load_settings

    codebooks = [packed.codebook for packed in policies_here(load_settings())]
    return save_png(draw_decision(view_of_probe(probed, codebooks)), out)
