"""`actwright champion status|promote|rollback|withdraw|take-over`: who is champion, and a person's decisions about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal.output import print_line, print_result
from model_core.spec.errors import NotReady

if TYPE_CHECKING:
    from components.config.judging.champion_entry import ChampionEntry, How
    from components.config.ports import ModelRegistry

_HELP = "Who is champion, who was, and a person's decisions about it: promote, roll back, withdraw."
champion_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=_HELP)
Model = Annotated[str, typer.Argument(help="a registered model, or the recipe that makes it", metavar="MODEL")]
Reason = Annotated[str, typer.Option(help="one sentence; it stays on record")]


@champion_app.command("status")
def status_command(model: Model = "loop") -> None:
    """Show who is champion and every change so far, with its fencing number, newest first.

    Example: actwright champion status loop
    """
    from components.adapters.champions.table import told_history

    name, registry = _opened(model)
    history = registry.champion_history(name)
    for line in told_history(history) or [f"{name} never had a champion; `actwright run` makes one, or `actwright champion promote`"]:
        print_line(line)
    print_result(model=name, champion=history[-1].version if history else None, history=[asdict(one) for one in history])


@champion_app.command("promote")
def promote_command(
    version: Annotated[str, typer.Argument(help="a registered version, such as actwright/3", metavar="MODEL/VERSION")],
    reason: Reason,
    expected: Annotated[
        int | None, typer.Option(help="only if this version is champion now (default: the one that is it as we look)")
    ] = None,
) -> None:
    """Make a registered version champion by a person's decision, whatever the gate found.

    It is a compare-and-set: if somebody else promotes in between, nothing is changed.

    Example: actwright champion promote actwright/3 --reason "passed two weeks on the pilot cell"
    """
    model, _, number = version.rpartition("/")
    if not model or not number.isdecimal():
        raise typer.BadParameter(f"expected MODEL/VERSION such as actwright/3, got {version!r}")
    name, registry = _opened(model)
    now = registry.champion_entry(name)
    seen = expected if expected is not None else now.version if now else None
    _promote(registry, (name, int(number)), seen, "person", reason)


@champion_app.command("rollback")
def rollback_command(model: Model, reason: Reason) -> None:
    """Make the version champion again that the champion replaced; once more goes one further back.

    Example: actwright champion rollback loop --reason "drops the cup on cell 4"
    """
    from components.config.judging.champion_entry import version_to_roll_back_to

    name, registry = _opened(model)
    history = registry.champion_history(name)
    before = version_to_roll_back_to(history)
    if before is None:
        raise NotReady(
            f"{name}: {'its champion replaced no other version' if history else 'it has no champion'}. Fix: name a version: "
            f"`actwright champion promote {name}/VERSION --reason TEXT`, or `actwright champion withdraw {name} --reason TEXT`"
        )
    _promote(registry, (name, before), history[-1].version, "rollback", reason)


@champion_app.command("withdraw")
def withdraw_command(
    model: Model,
    reason: Reason,
    expected: Annotated[int | None, typer.Option(help="the version, where MLflow has none of that number any more")] = None,
) -> None:
    """Let no version be champion from here on; what is served already goes on until it is restarted.

    Example: actwright champion withdraw loop --reason "its data were mislabelled"
    """
    name, registry = _opened(model)
    seen = expected
    if seen is None:
        now = registry.champion_entry(name)
        seen = now.version if now else None
    if seen is None:
        raise NotReady(f"{name} has no champion, so there is nothing to withdraw")
    _told(registry.withdraw(name, expected=seen, reason=reason))


@champion_app.command("take-over")
def take_over_command(model: Model, reason: Reason) -> None:
    """Let the table of champions that this machine uses decide from now on, where the one that did is lost.

    The champion stays the version that MLflow's alias names, under a number above every earlier one.

    Example: actwright champion take-over loop --reason "the database of the old table is gone"
    """
    name, registry = _opened(model)
    entry = registry.adopt_table(name, reason)
    if entry is None:
        print_line(f"{name} has no champion; this table decides from now on")
        print_result(model=name, version=None)
        return
    _told(entry)


def _promote(registry: ModelRegistry, wanted: tuple[str, int], expected: int | None, how: How, reason: str) -> None:
    name, number = wanted
    found = {one.version: one for one in registry.versions(name)}
    if number not in found:
        known = ", ".join(f"{name}/{one}" for one in found) or "none"
        raise NotReady(f"no version {name}/{number} is registered; there are: {known}")
    registry.promote(found[number], expected=expected, how=how, reason=reason)
    entry = registry.champion_entry(name)
    if entry is not None:
        _told(entry)


def _told(entry: ChampionEntry) -> None:
    from components.adapters.champions.table import told_history

    print_line(told_history([entry])[0])
    print_result(**asdict(entry))


def _opened(model: str) -> tuple[str, ModelRegistry]:
    """The registered name that `model` means, and the registry."""
    from flows.pipeline.recipes import RECIPES, get_recipe
    from flows.platform.wiring import open_platform

    name = get_recipe(model).package.model_name if model in RECIPES or model.endswith(".json") else model
    return name, open_platform().registry()
