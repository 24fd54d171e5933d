"""`actwright study take-in`: two results of vla-eval as the trials of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import from_options
from flows.commands.recipe_arguments import Overrides, RecipeName, recipe_of
from flows.commands.studies.run import SIDES, tell_verdict

_FILE = "the aggregate JSON that `vla-eval run` or `vla-eval export` wrote for "


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeInOptions:
    """Whose results are compared, by whose gate."""

    candidate: Annotated[str, typer.Option(help="NAME/VERSION, or the folder of a bento, bundle or checkpoint", metavar="MODEL")]
    candidate_file: Annotated[Path, typer.Option(help=f"{_FILE}the candidate", metavar="FILE")]
    champion_file: Annotated[Path, typer.Option(help=f"{_FILE}the champion", metavar="FILE")]
    champion: Annotated[str, typer.Option(help="as --candidate", metavar="MODEL")] = "champion"
    recipe: RecipeName = "loop"
    change: Overrides = None


@from_options(TakeInOptions)
def take_in_command(options: TakeInOptions) -> None:
    """Judge two policies on the episodes that vla-eval ran with both: every episode becomes a line of a study's ledger.

    The section `gate` of the recipe says what is asked. What vla-eval could not finish is void and voids its pair. The design says that it
    was locked after the trials. Exits as `actwright study run` does.

    Example: actwright study take-in --candidate actwright/4 --candidate-file new.json --champion actwright/3 --champion-file old.json
    """
    from flows.pipeline.model_lookup import checkpoint_of
    from flows.pipeline.studies.foreign import foreign_study
    from flows.platform.wiring import open_platform
    from model_core.spec.errors import SpecError

    gate, platform = recipe_of(options.recipe, options.change).gate, open_platform()
    try:
        sides = {side: (getattr(options, f"{side}_file"), checkpoint_of(platform, getattr(options, side))) for side in SIDES}
        folder, verdict, ledger = foreign_study(platform, gate, sides)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error
    tell_verdict(folder, verdict, ledger.head, len(ledger.trials))
