"""`actwright export`: put the champion where a policy service outside this machine's own processes finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.output import say, tell


def export(
    recipe: Annotated[str, typer.Argument(help="name of a recipe, or a resolved .json file", metavar="RECIPE")] = "loop",
    to: Annotated[Path, typer.Option(help="folder that the service reads; the bundle becomes FOLDER/bundle", metavar="FOLDER")] = Path(
        "serve/champion"
    ),
) -> None:
    """Write the bundle of a recipe's champion (weights, contract, probes) into a folder, in one step that no reader sees half done.

    The policy service of infra/k8s runs this before it starts; run it again and restart the service to serve a newer champion.

    Example: actwright export loop --to /workspace/serve/champion
    """
    from flows.commands.operations.up import champion_bento
    from flows.pipeline.recipes import get_recipe
    from flows.platform.wiring import open_house
    from model_core.spec.errors import NotReady, SpecError

    try:
        chosen = get_recipe(recipe)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    packaged = champion_bento(open_house(), chosen)
    if packaged is None:
        raise NotReady(f"no packaged champion of {chosen.package.model_name}; make one with `actwright run {chosen.name}`")
    from components.release.export import export_bundle

    told = export_bundle(packaged.path / "bento", to)
    say(f"{told['bundle']}: {told['model_version']} ({'written' if told['changed'] else 'there already'})")
    tell(**told)
