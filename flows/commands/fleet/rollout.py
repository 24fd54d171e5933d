"""`actwright fleet rollout ...`: how a release goes to the cells of a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.fleet.controller_options import ControllerOptions, asked, ordered
from flows.commands.options import from_options
from flows.terminal.output import print_line, print_result

if TYPE_CHECKING:
    from model_core.spec.fleet.rollout_plan import RolloutPlan

_HELP = "Rollouts: from one cell to all, by a plan, with the evidence of every cell."
rollout_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
PlanFile = Annotated[Path, typer.Argument(help="plan of a rollout, YAML or JSON", metavar="PLAN", exists=True, dir_okay=False)]
ReleaseDigest = Annotated[str, typer.Option("--release", help="digest of the release, in place of the plan's", metavar="DIGEST")]


def read_plan(path: Path, release: str = "") -> RolloutPlan:
    """A plan from a file. Raises `SpecError` naming the field that is wrong."""
    import yaml

    from model_core.spec.documents import from_document
    from model_core.spec.errors import SpecError
    from model_core.spec.fleet.rollout_plan import RolloutPlan

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is neither YAML nor JSON: {error}. Fix: see docs/fleet.md") from error
    if not isinstance(document, dict):
        raise SpecError(f"{path}: expected a mapping with name, release and stages. Fix: see docs/fleet.md")
    return from_document(RolloutPlan, {**document, **({"release": release} if release else {})}, where=str(path))


@rollout_app.command("plan")
def plan_command(plan: PlanFile, release: ReleaseDigest = "") -> None:
    """Check a plan of a rollout and say what it does, stage by stage; nothing is sent.

    Example: actwright fleet rollout plan careful.yaml
    """
    from model_core.spec.documents import to_document

    found = read_plan(plan, release)
    print_line(f"{found.name}: release {found.release[:16]}, back by itself where it is shown to be worse (alpha {found.rollback_alpha:g})")
    for stage in found.stages:
        print_line(f"  {stage.in_words}")
    for name, limit in found.guards.items():
        print_line(f"  back by itself where more than {limit:.0%} of episodes have {name}")
    print_result(**to_document(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions(ControllerOptions):
    """Which plan, against which old release."""

    plan: PlanFile
    release: ReleaseDigest = ""
    baseline: Annotated[str, typer.Option(help="digest of the old release (default: the one that all cells run)", metavar="DIGEST")] = ""


@rollout_app.command("start")
@from_options(StartOptions)
def start_command(options: StartOptions) -> None:
    """Start a rollout by a plan; it goes on by itself until it passes, pauses or is rolled back.

    Example: actwright fleet rollout start careful.yaml --release 0123456789abcdef...
    """
    from model_core.spec.documents import to_document

    plan = read_plan(options.plan, options.release)
    done = ordered(options, "/v1/rollouts", {"plan": to_document(plan), "baseline": options.baseline})
    print_result(rollout=done["id"], told=done["told"], head=done["head"])


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions(ControllerOptions):
    """Of which rollout."""

    rollout: Annotated[int | None, typer.Argument(help="number of the rollout (default: the newest)", metavar="ROLLOUT")] = None


@rollout_app.command("status")
@from_options(StatusOptions)
def status_command(options: StatusOptions) -> None:
    """Tell where a rollout stands: stage, cells that report the new release, evidence, and what it waits for.

    Example: actwright fleet rollout status
    """
    found = asked(options, "/v1/rollouts")
    for one in found:
        print_line(f"{one['id']:>3}  {one['told']}")
    shown = [one for one in found if one["id"] == (options.rollout or (found[-1]["id"] if found else 0))]
    if options.rollout and not shown:
        shown = [asked(options, f"/v1/rollouts/{options.rollout}")]
    for one in shown:
        _tell(one)
    print_result(
        rollouts=[{name: one[name] for name in ("id", "name", "status", "stage")} for one in found], shown=shown[0] if shown else None
    )


def _tell(one: dict[str, Any]) -> None:
    print_line(f"release {one['release'][:16]} over {one['baseline'][:16]}, started by {one['started_by']}; {one['reason']}")
    if one["override"]:
        print_line(f"OVERRIDE by {one['override']}")
    for row in one["strata"]:
        new, old = f"{row['new_successes']} of {row['new_trials']}", f"{row['old_successes']} of {row['old_trials']}"
        print_line(f"  {row['stratum']}: new {new}, old {old}")
    proofs = "; ".join(f"not worse by {margin}: {factor:g} to 1" for margin, factor in one["proofs"].items())
    print_line(f"  evidence: {proofs + '; ' if proofs else ''}worse: {one['worse']:g} to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOptions(ControllerOptions):
    """Of which rollout, and why."""

    rollout: Annotated[int, typer.Argument(help="number of the rollout", metavar="ROLLOUT")]
    reason: Annotated[str, typer.Option(help="why; it stays in the log")] = ""


def _order(options: OrderOptions, kind: str) -> None:
    done = ordered(options, f"/v1/rollouts/{options.rollout}/{kind}", {"reason": options.reason})
    print_result(rollout=options.rollout, told=done["told"], head=done["head"])


@rollout_app.command("pause")
@from_options(OrderOptions)
def pause_command(options: OrderOptions) -> None:
    """Let the cells stay as they are, and no stage follow; a finding against the release still rolls it back.

    Example: actwright fleet rollout pause 3 --reason "a look at cell 7"
    """
    _order(options, "pause")


@rollout_app.command("resume")
@from_options(OrderOptions)
def resume_command(options: OrderOptions) -> None:
    """Let a paused rollout go on; its stage gets its whole time again.

    Example: actwright fleet rollout resume 3
    """
    _order(options, "resume")


@rollout_app.command("abort")
@from_options(OrderOptions)
def abort_command(options: OrderOptions) -> None:
    """End a rollout and leave every cell as it is.

    Example: actwright fleet rollout abort 3 --reason "replaced by 1.4"
    """
    _order(options, "abort")


@rollout_app.command("approve")
@from_options(OrderOptions)
def approve_command(options: OrderOptions) -> None:
    """Agree to the next stage of a rollout; one person counts once, whatever their tokens.

    Example: actwright fleet rollout approve 3
    """
    _order(options, "approve")


@rollout_app.command("rollback")
@from_options(OrderOptions)
def rollback_command(options: OrderOptions) -> None:
    """End a rollout and propose the old release to every cell; each takes it at the end of its episode.

    Example: actwright fleet rollout rollback 3 --reason "drops cups"
    """
    _order(options, "rollback")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOptions(ControllerOptions):
    """Which release, where."""

    release: Annotated[str, typer.Argument(help="digest of a release that was offered", metavar="DIGEST")]
    site: Annotated[list[str] | None, typer.Option(help="only cells of this site, once for each (default: all)")] = None
    reason: Annotated[str, typer.Option(help="why; it stays in the log")] = ""


@from_options(InstallOptions)
def install_command(options: InstallOptions) -> None:
    """Name the first release of cells that never ran one, now and later; cells that run a release get another by a rollout alone.

    A cell that joins a fleet gets what the newest rollout left behind; only where there was none does it get this one.

    Example: actwright fleet install 0123456789abcdef... --site lab
    """
    body = {"release": options.release, "sites": options.site or [], "reason": options.reason}
    done = ordered(options, "/v1/first-release", body)
    print_result(release=options.release, sites=options.site or [], told=done["told"], head=done["head"])


@rollout_app.command("skip")
@from_options(OrderOptions)
def skip_command(options: OrderOptions) -> None:
    """Go to the next stage without what this one asks for; needs the role admin and a reason.

    Example: actwright fleet rollout skip 3 --reason "seen on the bench for a week"
    """
    _order(options, "skip")
