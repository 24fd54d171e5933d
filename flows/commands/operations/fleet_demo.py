"""`actwright fleet demo`: a whole fleet on this machine, one rollout that passes and one that comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from pathlib import Path

    from components.deployment.fleet_demo.site import Site
    from components.deployment.fleet_demo.versions import Versions

_TASKS = ("coffee-button-v3", "drawer-close-v3")  # of the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommandOptions:
    """Which policy, how many cells, and how long."""

    model: Annotated[
        str, typer.Argument(help="the policy: champion, a registered version such as actwright/3, or a bundle", metavar="MODEL")
    ] = "champion"
    cells: Annotated[int, typer.Option(help="simulated cells", min=2, max=64)] = 8
    minutes: Annotated[float, typer.Option(help="after which it ends, wherever it is", min=0.1)] = 30.0
    noise: Annotated[
        float, typer.Option(help="how much worse version 3 is: noise on its output head, in standard deviations of the weights", min=0.0)
    ] = 7.0
    canary: Annotated[int, typer.Option(help="episodes of the new version that the canary stage asks for", min=1)] = 50
    task: Annotated[list[str] | None, typer.Option(help="task of the cells, in turn (default: the two of the loop)")] = None
    to: Annotated[str, typer.Option(help="folder that is made (default: in runs, named by the time)", metavar="FOLDER")] = ""


@from_options(DemoCommandOptions)
def demo_command(options: DemoCommandOptions) -> None:
    """Run a fleet on this machine: a controller, two policy services, simulated cells with an agent each, and two rollouts.

    Version 1 is the policy. Version 2 has the same weights and goes through bench, shadow, canary, cohort and fleet. Version 3 has noise
    on its output head, may reach robots by a named override alone, begins in the canary, and is rolled back once the canary's episodes show
    that it is worse.
    The cells share the services, one for each version that runs.
    Everything goes through the controller's HTTP API, signed update metadata and real agents; episodes are rolled out, none is drawn from a
    rate. The end, also after Ctrl-C, is a page, report.html, and a proof from the audits that no episode was cut and none saw two versions.
    Exits 1 where the proof does not hold or the time was over before the end.

    Example: actwright fleet demo
    Example: actwright fleet demo --cells 4 --canary 30 --minutes 15
    """
    from components.deployment.fleet_demo.course import GUARDS, Sizes
    from components.deployment.fleet_demo.demo import DemoOptions, run_demo
    from components.deployment.fleet_demo.site import Site
    from components.report.fleet_demo import sentences, write_demo_page
    from flows.terminal.fleet_view import FleetView
    from model_core.spec.errors import JobError

    site = Site(folder=_new_folder(options.to))
    site.make()
    print_line(f"making three releases in {site.folder / 'releases'}")
    versions = _versions(options, site)
    view = FleetView(versions.named(), GUARDS)
    setup = DemoOptions(
        cells=options.cells, tasks=tuple(options.task or _TASKS), minutes=options.minutes, sizes=Sizes(canary=options.canary)
    )
    with view.shown():
        result = run_demo(site, versions, setup, show=view.update)
    page = write_demo_page(result.document, site.folder)
    for sentence in sentences(result.document):
        print_line(sentence)
    print_line(f"report    {page}")
    rollouts = [{name: one[name] for name in ("name", "status", "stage", "finished")} for one in result.document["rollouts"]]
    print_result(report=str(page), rollouts=rollouts, reached=result.document["reached"], proof=result.document["proof"]["told"])
    if result.problem:
        raise JobError(result.problem)
    if not result.proof.holds:
        raise JobError(f"{result.proof.told}. Fix: {page} names each of them")


def _new_folder(named: str) -> Path:
    """Where everything of this demonstration goes; it must not be there yet."""
    from pathlib import Path

    from flows.platform.settings import load_settings

    folder = Path(named) if named else load_settings().runs / f"{datetime.now():%Y%m%d-%H%M%S}-fleet-demo"
    if folder.exists():
        raise typer.BadParameter(f"{folder} is there already; name a folder that is not")
    folder.mkdir(parents=True)
    return folder.resolve()


def _versions(options: DemoCommandOptions, site: Site) -> Versions:
    from components.deployment.fleet_demo.versions import make_versions
    from flows.commands.fleet.release_facts import facts_of
    from flows.pipeline.model_lookup import packed_model
    from flows.platform.wiring import open_platform

    platform = open_platform()
    packed = packed_model(platform, options.model)
    facts = facts_of(platform, packed, verdict=None, override=("", ""), base=None, minimum_agent="")
    return make_versions(packed, facts, site.signer, site.folder / "releases", options.noise)
