"""`actwright export`: put the champion where a policy service outside this machine's own processes finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.recipe_arguments import RecipeName, recipe_of
from flows.terminal.output import print_line, print_result


def export(
    recipe: RecipeName = "loop",
    to: Annotated[Path, typer.Option(help="folder that the service reads; the bundle becomes FOLDER/bundle", metavar="FOLDER")] = Path(
        "serve/champion"
    ),
) -> None:
    """Write the bundle of a recipe's champion (weights, contract, probes) into a folder, atomically.

    The policy service of infra/k8s runs this before it starts; run it again and restart the service to serve a newer champion. An older
    champion never replaces a newer one there: FOLDER/champion.json holds the number of the last.

    Example: actwright export loop --to /workspace/serve/champion
    """
    from flows.commands.operations.up import champion_package
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import NotReady

    chosen = recipe_of(recipe)
    packaged, champion = champion_package(open_platform(), chosen)
    if packaged is None:
        raise NotReady(f"no packaged champion of {chosen.package.model_name}; make one with `actwright run {chosen.name}`")
    from components.release.export import export_bundle

    written = export_bundle(packaged.path / "bento", to, champion)
    print_line(f"{written['bundle']}: {written['model_version']} ({'written' if written['changed'] else 'there already'})")
    print_result(**written)
